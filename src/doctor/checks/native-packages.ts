import { execa } from "execa";
import { packageRoot } from "../../paths.js";
import { type Check, defineCheck } from "../check.js";

const DEADLINE_MILLISECONDS = 30_000;

/** Uses of a package with native code, each a program that prints its version. A crash ends that program alone. */
const uses = {
  // Calls a function of the C library.
  koffi: `
    const { default: koffi } = await import("koffi");
    if (koffi.load(null).func("int getpid(void)")() !== process.pid) throw new Error("it calls C wrongly");
    writeSync(1, koffi.version);`,
  // Makes keys, and sends a message to itself.
  zeromq: `
    const zmq = await import("zeromq");
    if (zmq.curveKeyPair().publicKey.length !== 40) throw new Error("it makes no keys: libsodium is left out");
    const pull = new zmq.Pull();
    const push = new zmq.Push({ linger: 0 });
    await pull.bind("tcp://127.0.0.1:*");
    push.connect(pull.lastEndpoint);
    await push.send("there");
    const [said] = await pull.receive();
    if (String(said) !== "there") throw new Error("a message has changed on its way");
    push.close();
    pull.close();
    writeSync(1, zmq.version);`,
} as const;

const purposes = {
  koffi: "workers call the kernel modules through it",
  zeromq: "workers and launcher talk over it",
} as const;

type Used = { readonly version: string } | { readonly failure: string };

async function use(name: keyof typeof uses): Promise<Used & { readonly folder: string }> {
  const program = `import { writeSync } from "node:fs";
  try {${uses[name]}
  } catch (error) {
    process.stderr.write(String(error.message).split("\\n")[0]);
    process.exitCode = 1;
  }`;
  const { failed, timedOut, stdout, stderr, signal } = await execa(
    process.execPath,
    ["--input-type=module", "--eval", program],
    { reject: false, stdin: "ignore", cwd: packageRoot, timeout: DEADLINE_MILLISECONDS, killSignal: "SIGKILL" },
  );
  const folder = packageRoot;
  if (!failed) return { folder, version: stdout };
  if (timedOut) return { folder, failure: "it did not answer" };
  if (signal !== undefined) return { folder, failure: `it was killed by ${signal}` };
  return { folder, failure: stderr.trim() || "it ended without a word" };
}

function usable(name: keyof typeof uses, what: string) {
  return defineCheck({
    ...{ name, section: "install", what, deadline: 40 },
    look: () => use(name),
    judge(used) {
      if ("version" in used) return { state: "ok", value: `${used.version}, tried` };
      return {
        ...{ state: "problem", value: `it cannot be used, and ${purposes[name]}: ${used.failure}` },
        wayOut: `cd ${used.folder} && npm rebuild ${name}, or install ditrun again without --ignore-scripts.`,
      };
    },
  });
}

export const koffi = usable("koffi", "koffi");
export const zeromq = usable("zeromq", "ZeroMQ");
export const nativePackages: readonly Check[] = [koffi, zeromq];
