import { readFileSync } from "node:fs";

/** What proc_pid_stat(5) tells of a process. */
export interface ProcessStat {
  readonly pid: number;
  /** The program's name, of at most 15 characters. */
  readonly name: string;
  /** One letter: R runs, S and D wait, T and t are stopped, Z and X have ended. */
  readonly state: string;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  /** Clock ticks since the host started: tells a process from a later one with the same id. */
  readonly started: number;
}

/** @returns undefined where there is no such process, or nobody says. */
export function processStat(pid: number): ProcessStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The name may hold anything, also blanks and parentheses.
  const end = text.lastIndexOf(") ");
  const fields = text.slice(end + 2).split(" ");
  const [state = "X", parent, group, session] = fields;
  return {
    pid,
    name: text.slice(text.indexOf("(") + 1, end),
    state,
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
    started: Number(fields[19]),
  };
}

/** True of a process that a signal or a debugger has stopped. */
export function isStopped(pid: number): boolean {
  return /^[Tt]$/.test(processStat(pid)?.state ?? "");
}
