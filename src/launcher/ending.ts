import type { Happenings } from "./happenings.js";

/** What can be ended. */
export interface Endable {
  readonly running: boolean;
  signal(signal: NodeJS.Signals): void;
}

/** After echoes only, how long their cause may take to show: a crash with a core dump is slower than its victims. */
export const SETTLE_MILLISECONDS = 400;
/** Between SIGTERM and SIGKILL, and after SIGKILL before a process is given up. With the above well under the 5 s promised. */
export const GRACE_MILLISECONDS = 1500;

/** How processes are asked to end. */
export interface Asking {
  /** SIGTERM, unless it was another signal that ended the launcher. */
  readonly signal?: NodeJS.Signals | undefined;
  /** How long they may take. */
  readonly milliseconds?: number | undefined;
}

/** How the ranks of a launch are asked to end. */
export interface AskingRule extends Pick<Asking, "milliseconds"> {
  /** A signal that ends the launcher is sent on as it is; SIGTERM otherwise. */
  readonly forwards?: boolean;
}

/**
 * Ends processes: SIGTERM, and SIGKILL to those that run on. Resolves when all are gone, or the last is given up.
 * @param urgent tells that somebody will not wait for SIGTERM to be followed.
 * @returns those that could not be ended.
 */
export async function endAll<P extends Endable>(
  processes: readonly P[],
  happenings: Happenings,
  urgent: () => boolean,
  { signal = "SIGTERM", milliseconds = GRACE_MILLISECONDS }: Asking = {},
): Promise<P[]> {
  const running = () => processes.filter((each) => each.running);
  for (const each of running()) each.signal(signal);
  await happenings.until(() => urgent() || running().length === 0, milliseconds);
  for (const each of running()) each.signal("SIGKILL");
  await happenings.until(() => running().length === 0, GRACE_MILLISECONDS);
  return running();
}
