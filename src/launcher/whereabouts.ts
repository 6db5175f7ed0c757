/** More groups of ranks than this make a sentence that nobody reads. */
const MOST_GROUPS = 6;

/** `Rank 3`, or `Ranks 1, 2 and 5`. */
export function rankList(ranks: readonly number[]): string {
  if (ranks.length === 1) return `Rank ${ranks[0]}`;
  return `Ranks ${ranks.slice(0, -1).join(", ")} and ${ranks.at(-1)}`;
}

/** The ranks of a job that are not among these, in order. */
export function missingFrom(size: number, present: Iterable<number>): number[] {
  const there = new Set(present);
  return Array.from({ length: size }, (_, rank) => rank).filter((rank) => !there.has(rank));
}

/** What each rank was last seen doing, as far as the rendezvous is told: the difference between stuck, slow and never there. */
export class Whereabouts {
  readonly #seen = new Map<number, { what: string; at: number }>();

  /** @param what follows the rank's name: `passed barrier "heap"`. */
  saw(rank: number, what: string): void {
    this.#seen.set(rank, { what, at: performance.now() });
  }

  /** Milliseconds since any rank was seen doing something. */
  get quiet(): number {
    return performance.now() - Math.max(...[...this.#seen.values()].map(({ at }) => at));
  }

  /** The end of a sentence: `; rank 1 passed barrier "heap" 118 s ago, ranks 2 and 3 have not joined`; empty for no ranks. */
  of(ranks: readonly number[]): string {
    const groups = new Map<string, number[]>();
    for (const rank of ranks) {
      const text = this.#textOf(rank);
      groups.set(text, [...(groups.get(text) ?? []), rank]);
    }
    const said = [...groups].slice(0, MOST_GROUPS).map(([text, those]) => {
      const subject = rankList(those).replace("R", "r");
      return text === "" ? `${subject} ${those.length === 1 ? "has" : "have"} not joined` : `${subject} ${text}`;
    });
    const untold =
      groups.size > MOST_GROUPS ? [`and ${groups.size - MOST_GROUPS} more groups of ranks did other things`] : [];
    return [...said, ...untold].map((part, index) => `${index === 0 ? "; " : ", "}${part}`).join("");
  }

  #textOf(rank: number): string {
    const seen = this.#seen.get(rank);
    if (seen === undefined) return "";
    return `${seen.what} ${Math.round((performance.now() - seen.at) / 1000)} s ago`;
  }
}
