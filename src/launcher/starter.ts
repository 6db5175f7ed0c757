import { readFileSync } from "node:fs";
import { type ProcessStat, processStat } from "../protocol/process-stat.js";

/** A process that started this one and waits for it to end. */
export interface Starter {
  readonly pid: number;
  readonly name: string;
  /** As ProcessStat has it. */
  readonly started: number;
}

const shells = new Set(["sh", "dash", "bash", "ash", "ksh", "mksh", "zsh", "busybox"]);
const packageManagers = /^(npm|npx|pnpm|yarn|bunx?)(?=[ \0]|$)|\/(npm|npx|pnpm|pnpx|yarn|yarnpkg)(-cli)?\.(c|m)?js\0/;
const MOST_SHELLS = 4;
const POLL_MILLISECONDS = 250;

/**
 * Who started this process to wait for it: shells that have it in their foreground without job control, and npm behind them.
 * If one of them is ended, nobody tells this process. A shell with job control is none of them: it gives its jobs groups of
 * their own, and may end before they do; so may one whose job has left its session.
 * @returns from the nearest on; empty where nobody waits.
 */
export function findStarters(pid = process.pid): Starter[] {
  const own = processStat(pid);
  const starters: Starter[] = [];
  let next = own?.parent;
  while (own !== undefined && next !== undefined && starters.length <= MOST_SHELLS) {
    const stat = processStat(next);
    if (stat === undefined || stat.session !== own.session) break;
    const manager = packageManagerOf(next);
    if (manager === undefined && !(shells.has(stat.name) && stat.group === own.group)) break;
    starters.push({ pid: next, name: manager ?? stat.name, started: stat.started });
    if (manager !== undefined) break;
    next = stat.parent;
  }
  return starters;
}

/** True where npm had started this process, as its variables say, and was ended before anybody looked: init has taken its place. */
export function isAbandoned(starters: readonly Starter[], environment: NodeJS.ProcessEnv = process.env): boolean {
  if (environment.npm_command === undefined) return false;
  const outermost = processStat(starters.at(-1)?.pid ?? process.pid);
  return (
    outermost?.parent === 1 &&
    outermost.session !== process.pid &&
    packageManagerOf(outermost.pid) === undefined &&
    packageManagerOf(1) === undefined
  );
}

/** Whether the process is still the one that was found. */
export function isAlive(
  { pid, started }: Starter,
  look: (pid: number) => ProcessStat | undefined = processStat,
): boolean {
  const stat = look(pid);
  return stat !== undefined && stat.started === started && !/^[ZX]$/.test(stat.state);
}

/**
 * Calls `onGone` once with the first starter that has ended.
 * @returns how to stop watching.
 */
export function watchStarters(starters: readonly Starter[], onGone: (starter: Starter) => void): () => void {
  const timer = setInterval(() => {
    const gone = starters.find((starter) => !isAlive(starter));
    if (gone === undefined) return;
    clearInterval(timer);
    onGone(gone);
  }, POLL_MILLISECONDS).unref();
  return () => clearInterval(timer);
}

/** npm names itself `npm exec …`; others are Node.js with a script of their name. */
function packageManagerOf(pid: number): string | undefined {
  try {
    const [, byTitle, byScript] = packageManagers.exec(readFileSync(`/proc/${pid}/cmdline`, "latin1")) ?? [];
    return byTitle ?? byScript;
  } catch {
    return undefined;
  }
}
