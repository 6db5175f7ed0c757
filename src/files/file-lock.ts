import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { makeFolder } from "./folder.js";

/** Values of <sys/file.h> and <errno.h>. */
const LOCK_EX_NB = 2 | 4;
const EINTR = 4;
const EWOULDBLOCK = 11;

const POLL_MS = 200;

/**
 * Runs `action` while no other process runs one under the same lock file. The lock is flock(2), which huggingface_hub takes too,
 * and which the kernel gives back when a process is killed. Where the file system has no such locks, `action` is told so.
 * @param onWait called once when another process holds the lock. @throws the file system's own error, and what `action` throws.
 */
export async function withFileLock<T>(
  path: string,
  onWait: () => void,
  action: (locked: boolean) => Promise<T>,
): Promise<T> {
  makeFolder(dirname(path));
  const flock = await loadFlock();
  let waits = false;
  for (;;) {
    // Reading is enough to lock, also a file of another user of a shared cache. A pipe of this name would be waited for without end.
    const file = await open(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NONBLOCK, 0o666);
    try {
      const result = flock(file.fd);
      if (result === "locked" ? await isStill(path, file) : result === "unsupported")
        return await action(result === "locked");
    } finally {
      // This gives the lock back.
      await file.close();
    }
    if (!waits) onWait();
    waits = true;
    await setTimeout(POLL_MS);
  }
}

type Flock = (fd: number) => "locked" | "busy" | "unsupported";

/** Loaded when it is needed: most commands download nothing. */
async function loadFlock(): Promise<Flock> {
  const { default: koffi } = await import("koffi");
  const flock = koffi.load(null).func("int flock(int, int)");
  return (fd) => {
    if (flock(fd, LOCK_EX_NB) === 0) return "locked";
    return [EWOULDBLOCK, EINTR].includes(koffi.errno()) ? "busy" : "unsupported";
  };
}

/** False if another process has removed the file that was locked: whoever comes next would lock a new one. */
async function isStill(path: string, file: FileHandle): Promise<boolean> {
  const [named, locked] = [await stat(path).catch(() => undefined), await file.stat()];
  return named?.ino === locked.ino && named.dev === locked.dev;
}
