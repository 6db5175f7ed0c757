import type { Failure } from "./first-cause.js";
import { rankList } from "./whereabouts.js";

/** How a rank ended. */
export interface RankEnd {
  readonly rank: number;
  /** `exited with code 1`. */
  readonly how: string;
  /** By performance.now(). */
  readonly at: number;
  /** After the launcher had begun to end the ranks. */
  readonly ended: boolean;
}

const MOST_GROUPS = 4;

/**
 * What became of the ranks that did not cause the end: a sentence for whoever looks for the cause among them.
 * @returns undefined where there is none to tell of.
 */
export function victimsOf(cause: Failure, ends: readonly RankEnd[]): string | undefined {
  if (cause.rank === undefined) return undefined;
  const others = ends.filter(({ rank }) => rank !== cause.rank).sort((a, b) => a.rank - b.rank);
  const groups = new Map<string, number[]>();
  for (const { rank, how } of others.filter((end) => !end.ended && end.how !== "exited with code 0")) {
    groups.set(how, [...(groups.get(how) ?? []), rank]);
  }
  const parts = [...groups].slice(0, MOST_GROUPS).map(([how, ranks]) => `${lower(ranks)} ${of(ranks, how)}`);
  const rest = others.filter(({ ended }) => ended).map(({ rank }) => rank);
  if (rest.length > 0) parts.push(`${lower(rest)} ${of(rest, "was ended")}`);
  return parts.length === 0 ? undefined : `Victims, not the cause: ${parts.join("; ")}.`;
}

/** `were killed by SIGUSR1` of several. */
const of = (ranks: readonly number[], how: string) => (ranks.length === 1 ? how : how.replace(/^was /, "were "));

function lower(ranks: readonly number[]): string {
  return shortList(ranks).replace("R", "r");
}

/** `Ranks 1 to 7` of many that follow each other. */
function shortList(ranks: readonly number[]): string {
  const [first = 0, last = 0] = [ranks[0], ranks.at(-1)];
  return ranks.length > 3 && last - first === ranks.length - 1 ? `Ranks ${first} to ${last}` : rankList(ranks);
}
