import { createRequire } from "node:module";
import { constants } from "node:os";

/** Of sigaction(2) on x86-64: the C library sets it with every disposition, the kernel at the start of a program does not. */
const SA_RESTORER = 0x0400_0000;
/** Where glibc's struct sigaction on x86-64 has its flags, and how long it is. */
const FLAGS_OFFSET = 136;
const SIGACTION_BYTES = 152;

export type Inheritable = "SIGHUP" | "SIGQUIT" | "SIGINT";

/**
 * The signals that whoever started this process had it ignore: nohup SIGHUP, a shell without job control SIGINT and SIGQUIT of
 * what it starts with `&`. Node.js resets them to their defaults before any JavaScript runs, and thereby leaves a trace: these
 * alone were set by the C library. SIGINT's is lost, since Node.js catches that one itself; SIGQUIT's tells of both. SIGINT
 * alone therefore cannot be seen, and the parent's own signals prove nothing: time(1) ignores it while its child must not.
 * To be called before anything listens to SIGHUP or SIGQUIT.
 * @returns undefined where there is no such trace: on another processor, or where koffi cannot be loaded.
 */
export function inheritedIgnored(): ReadonlySet<Inheritable> | undefined {
  if (process.arch !== "x64") return undefined;
  const ignored = new Set<Inheritable>();
  try {
    // Here and not at the start, since it takes long to load.
    const koffi: typeof import("koffi") = createRequire(import.meta.url)("koffi");
    const sigaction = koffi.load(null).func("int sigaction(int signal, void *action, _Out_ uint8_t *old)");
    for (const signal of ["SIGHUP", "SIGQUIT"] as const) {
      const old = new Uint8Array(SIGACTION_BYTES);
      if (sigaction(constants.signals[signal], null, old) !== 0) return undefined;
      const view = new DataView(old.buffer);
      if ((view.getUint32(FLAGS_OFFSET, true) & SA_RESTORER) !== 0) ignored.add(signal);
    }
  } catch {
    return undefined;
  }
  if (ignored.has("SIGQUIT")) ignored.add("SIGINT");
  return ignored;
}
