import type { Happenings } from "./happenings.js";

/** What can be ended. */
export interface Endable {
  readonly running: boolean;
  signal(signal: "SIGTERM" | "SIGKILL"): void;
}

/** After echoes only, how long their cause may take to show: a crash with a core dump is slower than its victims. */
export const SETTLE_MILLISECONDS = 400;
/** Between SIGTERM and SIGKILL, and after SIGKILL before a process is given up. With the above well under the 5 s promised. */
export const GRACE_MILLISECONDS = 1500;

/**
 * Ends processes: SIGTERM, and SIGKILL to those that run on. Resolves when all are gone, or the last is given up.
 * @param urgent tells that somebody will not wait for SIGTERM to be followed.
 * @returns those that could not be ended.
 */
export async function endAll<P extends Endable>(
  processes: readonly P[],
  happenings: Happenings,
  urgent: () => boolean,
): Promise<P[]> {
  const running = () => processes.filter((each) => each.running);
  for (const each of running()) each.signal("SIGTERM");
  await happenings.until(() => urgent() || running().length === 0, GRACE_MILLISECONDS);
  for (const each of running()) each.signal("SIGKILL");
  await happenings.until(() => running().length === 0, GRACE_MILLISECONDS);
  return running();
}
