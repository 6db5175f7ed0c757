import { readdirSync, readFileSync } from "node:fs";
import { DitrunError } from "../failure.js";
import { counted } from "../text.js";
import { processLimit } from "./process-limit.js";

/** Threads of a worker that only starts, and what the launcher adds to its own; each worker takes more when it works. */
const LEAST_PER_WORKER = 12;
const LEAST_OF_LAUNCHER = 4;
/** Open files of the launcher itself, and for each worker: pipes, a connection and two logs. */
const FILES_OF_LAUNCHER = 64;
const FILES_PER_WORKER = 8;
/** A worker or launcher of another host is one connection. */
const FILES_PER_CONNECTION = 1;
/** With more than this allowed nobody needs to count what there is. */
const ENOUGH = 4096;

export interface Limit {
  readonly most: number;
  readonly used: number;
  /** How to raise it. */
  readonly raise: string;
}

/**
 * Looks whether so many workers can be started here, and others can be met: the libraries that find out later end their process
 * with words of their own, or let nobody in.
 * @param connections of other hosts: one for each of their launchers, and for each worker that joins here.
 * @throws DitrunError naming the limit that is too low.
 */
export function checkRoom(nproc: number, connections = 0): void {
  checkFiles(nproc, connections);
  const threads = threadsNeeded(nproc);
  for (const limit of [processesOfUser(), processesOfContainer()]) {
    if (limit === undefined || limit.most - limit.used >= threads) continue;
    throw new DitrunError(
      "ERR_LIMIT",
      `Only ${limit.most} threads and processes are allowed, of which ${limit.used} are there, and ${counted(nproc, "worker")} need ${threads} more at least: raise the limit (${limit.raise}).`,
    );
  }
}

/** Threads that so many workers have once they are started, and what the launcher adds to its own. */
export function threadsNeeded(nproc: number): number {
  return LEAST_OF_LAUNCHER + LEAST_PER_WORKER * nproc;
}

/** @throws DitrunError where too few files may be open for so many workers and connections. @param most that may be. */
export function checkFiles(
  nproc: number,
  connections: number,
  most = processLimit("Max open files") ?? Number.POSITIVE_INFINITY,
): void {
  const files = FILES_OF_LAUNCHER + FILES_PER_WORKER * nproc + FILES_PER_CONNECTION * connections;
  if (most >= files) return;
  const who = [
    ...(nproc > 0 ? [counted(nproc, "worker")] : []),
    ...(connections > 0 ? [`${counted(connections, "connection")} of other hosts`] : []),
  ];
  throw new DitrunError(
    "ERR_LIMIT",
    `Only ${most} files may be open at once, and ${who.join(" and ")} need ${files} in the launcher: raise the limit with ulimit -n ${Math.max(1024, files)}.`,
  );
}

/** RLIMIT_NPROC counts all threads of a user; root is exempt. */
export function processesOfUser(): Limit | undefined {
  const most = processLimit("Max processes");
  const uid = process.getuid?.();
  if (most === undefined || uid === undefined || uid === 0 || most > ENOUGH) return undefined;
  let used = 0;
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const status = textOf(`/proc/${name}/status`);
    if (status !== undefined && Number(/^Uid:\t(\d+)/m.exec(status)?.[1]) === uid) {
      used += Number(/^Threads:\t(\d+)/m.exec(status)?.[1] ?? 1);
    }
  }
  return { most, used, raise: "ulimit -u" };
}

/** The controller `pids` of this process's control group, of version 2 or 1. */
function processesOfContainer(): Limit | undefined {
  const groups = textOf("/proc/self/cgroup") ?? "";
  const two = /^0::(.*)$/m.exec(groups)?.[1];
  const one = /^\d+:pids:(.*)$/m.exec(groups)?.[1];
  const folders = [two && `/sys/fs/cgroup${two}`, one && `/sys/fs/cgroup/pids${one}`, "/sys/fs/cgroup"];
  for (const folder of folders) {
    if (folder === undefined) continue;
    const most = Number(textOf(`${folder}/pids.max`));
    const used = Number(textOf(`${folder}/pids.current`));
    if (most > 0 && used > 0)
      return { most, used, raise: "pids.max of the control group, --pids-limit of a container" };
  }
  return undefined;
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
