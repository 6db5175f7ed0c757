import { constants } from "node:os";
import { DitrunError } from "../failure.js";
import { findStarters, isAbandoned, watchStarters } from "../launcher/starter.js";
import { inheritedIgnored } from "./inherited-signals.js";
import { endingWarnings, warningNames } from "./surroundings.js";
import { terminal } from "./terminal.js";

/** Those that whoever started the launcher may have had it ignore are listened to once that is known. */
const atOnce = ["SIGINT", "SIGTERM"] as const;
const onceKnown = ["SIGHUP", "SIGQUIT"] as const;
export type Interrupt = (typeof atOnce)[number] | (typeof onceKnown)[number] | (typeof warningNames)[number];
type Listener = (signal: Interrupt, count: number) => void;

/** Who is told of a signal: only the last, which knows best what is going on. */
const listeners: { listener: Listener; count: number }[] = [];
let ignored: ReadonlySet<string> | undefined;
/** Whether it is certain that nothing else was ignored; else a shell that ends may have left its job behind on purpose. */
let certain = false;
let stopWatching = () => {};

function dispatch(signal: Interrupt): void {
  if (ignored?.has(signal)) return;
  const last = listeners.at(-1);
  if (last) last.listener(signal, ++last.count);
}

/**
 * Listens for the signals by which a user or a scheduler ends the launcher, until another listens or this one stops.
 * @param onInterrupt gets the number of signals that it was told of, this one included.
 * @returns how to stop listening.
 */
export function listenForInterrupts(onInterrupt: Listener): () => void {
  const entry = { listener: onInterrupt, count: 0 };
  if (listeners.push(entry) === 1) {
    for (const signal of atOnce) process.on(signal, dispatch);
    // Not now, but when the launcher first waits for something: finding out takes some 20 ms.
    if (ignored === undefined) setTimeout(learnSurroundings, 0).unref();
    else listenToOthers();
  }
  return () => {
    const index = listeners.indexOf(entry);
    if (index >= 0) listeners.splice(index, 1);
    if (listeners.length > 0) return;
    for (const signal of [...atOnce, ...onceKnown]) process.off(signal, dispatch);
    stopWatching();
  };
}

/**
 * Finds out who started the launcher and what it must ignore, if that is not known yet: a signal that was ignored from the start
 * (nohup) stays ignored, and where somebody waits for the launcher and is ended (npx), it ends as by SIGTERM.
 */
export function learnSurroundings(): void {
  if (ignored !== undefined) return;
  const inherited = inheritedIgnored();
  certain = inherited !== undefined;
  ignored = inherited ?? new Set();
  if (listeners.length > 0) listenToOthers();
}

function listenToOthers(): void {
  for (const signal of onceKnown) process.on(signal, dispatch);
  if (ignored?.size !== 0) return;
  const starters = findStarters();
  if (certain && isAbandoned(starters)) {
    endWithout("npm");
    return;
  }
  stopWatching = watchStarters(starters, (gone) => {
    if (certain || gone === starters.at(-1)) endWithout(`${gone.name} (process ${gone.pid})`);
  });
}

function endWithout(starter: string): void {
  terminal.write(`ditrun: ${starter}, which started this and waited for it, has ended.\n`);
  dispatch("SIGTERM");
}

/** True once a signal has been taken by endOnInterrupt: the process will exit. */
let isEnding = false;

/** To be awaited before more work is begun; never returns where a signal is about to end the launcher. */
export async function unlessEnding(): Promise<void> {
  if (isEnding) await new Promise<never>(() => {});
}

/** The signals as those of work that knows how to end: the first one aborts `signal`, a second one `urgent`. */
export interface InterruptSignals {
  readonly signal: AbortSignal;
  readonly urgent: AbortSignal;
  /** Stops listening. */
  close(): void;
}

/**
 * @param tell gets a sentence for the user. @param what is ended, `8 workers`.
 * @param more signals that end the work too, although they usually warn only.
 */
export function interruptSignals(
  tell: (sentence: string) => void,
  what: string,
  more: readonly NodeJS.Signals[] = [],
): InterruptSignals {
  const [first, second] = [new AbortController(), new AbortController()];
  const warnings = warningNames.filter((name) => more.includes(name));
  for (const signal of warnings) endingWarnings.add(signal);
  for (const signal of warnings) process.on(signal, dispatch);
  const stop = listenForInterrupts((signal, count) => {
    if (count === 1) {
      tell(`${signal}: ending ${what}; a second one ends them at once.`);
      first.abort(interruption(signal, `The job was ended by ${signal}.`));
    } else {
      tell(`${signal} again: killing ${what} now.`);
      second.abort();
    }
  });
  const close = () => {
    stop();
    for (const signal of warnings) process.off(signal, dispatch);
    for (const signal of warnings) endingWarnings.delete(signal);
  };
  return { signal: first.signal, urgent: second.signal, close };
}

type CleanUp = (signal: Interrupt) => Promise<void>;
const cleanUps: CleanUp[] = [];

/**
 * For work outside a job, which has no end of its own: a signal ends the launcher as soon as `cleanUp` and those of the work
 * around it have, from the inside out; a second one at once.
 * @returns how to stop listening.
 */
export function endOnInterrupt(cleanUp: CleanUp): () => void {
  cleanUps.push(cleanUp);
  const stopListening = listenForInterrupts((signal, count) => {
    isEnding = true;
    const exit = () => process.exit(interruptExitCode(signal));
    if (count > 1) exit();
    // No wait is shown any more: what is said now is the last.
    terminal.silence();
    terminal.write(`ditrun: ${interruption(signal).message}\n`);
    cleanUpAll(signal).then(exit, exit);
  });
  return () => {
    cleanUps.splice(cleanUps.indexOf(cleanUp), 1);
    stopListening();
  };
}

async function cleanUpAll(signal: Interrupt): Promise<void> {
  // One that fails must not keep the others from their work.
  for (const cleanUp of cleanUps.toReversed()) await cleanUp(signal).catch(() => undefined);
}

/** What a command that a signal ended fails with. */
export function interruption(signal: Interrupt, message = `Ended by ${signal}.`): DitrunError {
  return new DitrunError("ERR_INTERRUPTED", message, { exitCode: interruptExitCode(signal), signal });
}

/** What a shell reports of a process that a signal ended. */
export function interruptExitCode(signal: Interrupt): number {
  return 128 + constants.signals[signal];
}
