/**
 * A scheduler warns all processes of a job with these, and the launcher tells of it. Unheard, the first opens Node's debugger to
 * every user of the host, and the second ends the process.
 */
export function ignoreWarnings(): void {
  for (const signal of ["SIGUSR1", "SIGUSR2"] as const) process.on(signal, () => undefined);
}
