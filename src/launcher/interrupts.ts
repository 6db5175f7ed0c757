const handled = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
export type Interrupt = (typeof handled)[number];

/** Listens for the signals by which a user or a scheduler ends the launcher. Returns how to stop listening. */
export function listenForInterrupts(onInterrupt: (signal: Interrupt, count: number) => void): () => void {
  let count = 0;
  const listeners = handled.map((signal) => ({ signal, listener: () => onInterrupt(signal, ++count) }));
  for (const { signal, listener } of listeners) process.on(signal, listener);
  return () => {
    for (const { signal, listener } of listeners) process.off(signal, listener);
  };
}
