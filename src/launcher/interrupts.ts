import { constants } from "node:os";

const handled = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
export type Interrupt = (typeof handled)[number];
type Listener = (signal: Interrupt, count: number) => void;

/** Who is told of a signal: only the last, which knows best what is going on. */
const listeners: { listener: Listener; count: number }[] = [];

function dispatch(signal: Interrupt): void {
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
  if (listeners.push(entry) === 1) for (const signal of handled) process.on(signal, dispatch);
  return () => {
    const index = listeners.indexOf(entry);
    if (index >= 0) listeners.splice(index, 1);
    if (listeners.length === 0) for (const signal of handled) process.off(signal, dispatch);
  };
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
    const exit = () => process.exit(interruptExitCode(signal));
    if (count > 1) exit();
    process.stderr.write(`ditrun: ${interruptMessage(signal)}\n`);
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

export function interruptMessage(signal: Interrupt): string {
  return `Ended by ${signal}.`;
}

/** What a shell reports of a process that a signal ended. */
export function interruptExitCode(signal: Interrupt): number {
  return 128 + constants.signals[signal];
}
