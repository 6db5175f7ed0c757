import { constants, hostname } from "node:os";
import type { Failure } from "./first-cause.js";
import { outOfMemoryKills } from "./out-of-memory.js";
import type { RankProcess, WorkerExit } from "./worker-process.js";

/** An end that somebody saw. */
export type KnownExit = Exclude<WorkerExit, { kind: "lost" }>;

/** What libzmq, libuv and OpenMP say before they abort where a thread cannot be had. */
const NO_THREAD = /Resource temporarily unavailable|uv_thread_create|[Tt]hread creation failed/;

/** How a rank ended, after its name: `exited with code 1 before it had reported a result`. @param when the end of that sentence. */
export function describeExit(exit: KnownExit, when: (code: number) => string | undefined): string {
  if (exit.kind === "signal") return `was killed by ${exit.signal}`;
  if (exit.kind === "not started") return `could not be started: ${exit.reason}`;
  const told = when(exit.code);
  return `exited with code ${exit.code}${told === undefined ? "" : ` ${told}`}`;
}

/**
 * What a code or signal alone does not say, as the end of a sentence.
 * @param killsBefore of the kernel for want of memory, when the launch began. @param told what the rank said of its end.
 */
export function reasonOfExit(
  { stderrTail, host, exception }: RankProcess,
  exit: KnownExit,
  killsBefore: number,
  told = exception,
): string {
  if (exit.kind === "signal") {
    // Nobody says whom the kernel killed for want of memory, but it counts them.
    if (exit.signal === "SIGKILL" && host === hostname() && (outOfMemoryKills() ?? 0) > killsBefore) {
      return ", probably because memory ran out: the kernel has just killed a process for that";
    }
    if (exit.signal === "SIGABRT" && stderrTail.some((line) => NO_THREAD.test(line))) {
      return ", since no more threads can be made: raise ulimit -u, or the pids limit of the container";
    }
  }
  return told === undefined || exit.kind === "not started" ? "" : `: ${told.replace(/[.!\s]+$/, "")}`;
}

/** The failure that an exit is. */
export function failureOfExit(exit: KnownExit): Pick<Failure, "code" | "exitCode" | "signal"> {
  if (exit.kind === "not started") return { code: "ERR_RANK_NOT_STARTED" };
  if (exit.kind === "code") return { code: "ERR_RANK_FAILED", ...(exit.code === 0 ? {} : { exitCode: exit.code }) };
  return { code: "ERR_RANK_SIGNAL", exitCode: 128 + constants.signals[exit.signal], signal: exit.signal };
}
