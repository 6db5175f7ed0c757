/** A half-open range of indices. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

/** How many of `total` each of `ranks` ranks holds: in order, blocks that differ by one at most. */
export function shares(total: number, ranks: number): number[] {
  return Array.from(
    { length: ranks },
    (_, rank) => Math.floor(((rank + 1) * total) / ranks) - Math.floor((rank * total) / ranks),
  );
}

/** The range of rank `rank` among `shares`. */
export function rangeOf(sharesOfRank: readonly number[], rank: number): Range {
  const start = sharesOfRank.slice(0, rank).reduce((sum, count) => sum + count, 0);
  return { start, count: sharesOfRank[rank] ?? 0 };
}
