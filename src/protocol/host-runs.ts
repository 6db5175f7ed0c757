import { z } from "zod";

/** So many hosts in a row with so many ranks each. */
const hostRunSchema = z.strictObject({ hosts: z.int().min(1).max(65_536), ranks: z.int().min(0).max(65_536) });

/**
 * The ranks of each host, host by host. Every rank is told, so hosts that have the same number are told of together: else what
 * node 0 sends would grow with the square of the ranks.
 */
export const hostRunsSchema = z.array(hostRunSchema).min(1).max(65_536);
export type HostRuns = z.infer<typeof hostRunsSchema>;

/** @param perNode ranks of each host, node 0 first. */
export function hostRunsOf(perNode: readonly number[]): HostRuns {
  const runs: HostRuns = [];
  for (const ranks of perNode) {
    const last = runs.at(-1);
    if (last?.ranks === ranks) last.hosts++;
    else runs.push({ hosts: 1, ranks });
  }
  return runs;
}

/** The number of each rank's host, by rank. */
export function hostOfRanks(runs: HostRuns): number[] {
  const perNode = runs.flatMap(({ hosts, ranks }) => Array<number>(hosts).fill(ranks));
  return perNode.flatMap((count, node) => Array<number>(count).fill(node));
}
