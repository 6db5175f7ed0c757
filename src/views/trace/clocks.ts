import type { TraceRank } from "../../protocol/results.js";

/** Where a rank's times begin on the clock of all ranks. */
export interface RankStart {
  /** Microseconds after the first of all ranks began. */
  readonly startMicroseconds: number;
  /** What was added to the rank's own clock. */
  readonly offsetMicroseconds: number;
  /** At most so far from right, beside ranks of other machines; beside those of its own it is right. */
  readonly residualMicroseconds: number;
}

/** One clock for all ranks: the launcher's. */
export interface CommonClock {
  /** By rank, in the order given. */
  readonly starts: readonly RankStart[];
  /** When the first of them began, in microseconds of the launcher's CLOCK_MONOTONIC. */
  readonly beganMicroseconds: number;
}

/**
 * Puts all ranks on the launcher's clock. Ranks of one machine share a clock, so the best measurement of any of them holds for all:
 * between them nothing is estimated. @throws Error for a rank whose clock was not measured.
 */
export function commonClock(
  ranks: readonly Pick<TraceRank, "rank" | "clock" | "recordedAtMicroseconds">[],
): CommonClock {
  const measured = ranks.map(({ rank, clock, recordedAtMicroseconds }) => {
    if (!clock) throw new Error(`The clock of rank ${rank} was not measured.`);
    return { clock, recordedAtMicroseconds };
  });
  const placed = measured.map(({ clock, recordedAtMicroseconds }) => {
    const best = measured
      .map((other) => other.clock)
      .filter(({ id }) => id === clock.id)
      .reduce((a, b) => (b.residualMicroseconds < a.residualMicroseconds ? b : a));
    return { ...best, at: recordedAtMicroseconds + best.offsetMicroseconds };
  });
  const beganMicroseconds = Math.min(...placed.map(({ at }) => at));
  const machines = new Set(placed.map(({ id }) => id)).size;
  return {
    beganMicroseconds,
    starts: placed.map(({ at, offsetMicroseconds, residualMicroseconds }) => ({
      startMicroseconds: at - beganMicroseconds,
      offsetMicroseconds,
      residualMicroseconds: machines === 1 ? 0 : residualMicroseconds,
    })),
  };
}
