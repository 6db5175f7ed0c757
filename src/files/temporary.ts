import { createHash, randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { type FileHandle, lstat, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

// A process that is killed cannot clean up. So the name of everything temporary says which process made it, and whoever makes the
// next one under the same name removes what such a process has left: never that of a process that runs, or that cannot be known.

/** `PLACE-PID-START-RANDOM`. */
const MARK = /^([0-9a-f]{12})-([1-9]\d*)-(\d+)-[0-9A-Za-z]+$/;

/** One boot of one host, as seen in one process-id namespace: where a process id means one process at a time. Undefined where unknown. */
function readPlace(): string | undefined {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8");
    return createHash("sha256").update(boot).update(readlinkSync("/proc/self/ns/pid")).digest("hex").slice(0, 12);
  } catch {
    return undefined;
  }
}

/** When a process was started, in clock ticks since the boot; undefined when it has ended or cannot be seen. */
function startOf(pid: number | "self"): string | undefined {
  try {
    // The program's name stands in brackets and may hold anything: the fields are counted from its end (proc_pid_stat(5)).
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}

/** Of this process; the random part makes it the only one. Where the place is unknown, nobody will ever know it again. */
function mark(): string {
  return [
    readPlace() ?? randomBytes(6).toString("hex"),
    process.pid,
    startOf("self") ?? 0,
    randomBytes(4).toString("hex"),
  ].join("-");
}

/** True if the process of this mark was of this place and has certainly ended. */
function isAbandoned(text: string): boolean {
  const [, place, pid, start] = MARK.exec(text) ?? [];
  if (place === undefined || place !== readPlace()) return false;
  if (!exists(Number(pid))) return true;
  // Another process may have been given the number since.
  const started = startOf(Number(pid));
  return started !== undefined && started !== start;
}

/** Removes what ended processes of this user have left in a folder under the names prefix + mark + suffix. */
async function removeAbandoned(folder: string, prefix: string, suffix: string): Promise<void> {
  // A folder that can be written but not listed has nothing to offer.
  const names = await readdir(folder).catch((): string[] => []);
  for (const name of names) {
    if (!name.startsWith(prefix) || !name.endsWith(suffix)) continue;
    if (!isAbandoned(name.slice(prefix.length, name.length - suffix.length))) continue;
    const path = join(folder, name);
    // Another run may be removing it too; what cannot be removed stands in nobody's way.
    const owner = await lstat(path).catch(() => undefined);
    if (owner?.uid === process.getuid?.()) await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}

/** Bytes of a name that Linux file systems take at most. */
const MOST_NAME_BYTES = 255;
/** `.MARK.tmp`: a mark has at most 12 + 7 + 20 + 8 characters and three dashes. */
const MOST_MARK_BYTES = 55;

/** The start of a name that leaves room for a mark, cut between characters. */
function shortened(name: string): string {
  let bytes = 0;
  let short = "";
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > MOST_NAME_BYTES - MOST_MARK_BYTES) break;
    short += character;
  }
  return short;
}

/**
 * Makes an empty file beside `path`, which grows there and is renamed when it is whole. Those that killed processes left there are
 * removed. Of a name too long for a mark behind it only the start is taken. @throws the file system's own error.
 */
export async function openTemporary(path: string): Promise<{ name: string; file: FileHandle }> {
  const name = await temporaryName(path);
  return { name, file: await open(name, "wx") };
}

/** The name of such a file, or of a link that takes the place of `path` when it is renamed. */
export async function temporaryName(path: string): Promise<string> {
  const start = shortened(basename(path));
  await removeAbandoned(dirname(path), `${start}.`, ".tmp");
  return join(dirname(path), `${start}.${mark()}.tmp`);
}

/** Makes a folder `PREFIX-…`, and removes those that killed processes left there. @throws the file system's own error. */
export async function makeTemporaryFolder(parent: string, prefix: string): Promise<string> {
  await removeAbandoned(parent, `${prefix}-`, "");
  return mkdtemp(join(parent, `${prefix}-${mark().slice(0, -8)}`));
}
