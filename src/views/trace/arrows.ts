import type { TraceEvent } from "../../protocol/results.js";

/** A message: from the launch that sends it to the launch that waits for it, as indices into the events of two ranks. */
export interface Arrow {
  readonly from: { readonly rank: number; readonly event: number };
  readonly to: { readonly rank: number; readonly event: number };
}

/**
 * The messages between ranks. All ranks of a group make the same exchanges in the same order, so the n-th message of a kind that a
 * rank sends to another is the n-th that the other waits for from it.
 */
export function arrowsOf(
  ranks: readonly { readonly rank: number; readonly trace: readonly Pick<TraceEvent, "exchange">[] }[],
): Arrow[] {
  const sent = new Map<string, number[]>();
  const awaited = new Map<string, number[]>();
  const note = (all: Map<string, number[]>, key: string, event: number) =>
    all.set(key, [...(all.get(key) ?? []), event]);
  for (const { rank, trace } of ranks) {
    trace.forEach(({ exchange }, event) => {
      if (!exchange) return;
      const { group, what, to, from } = exchange;
      for (const other of to) note(sent, JSON.stringify([group, what, rank, other]), event);
      for (const other of from) note(awaited, JSON.stringify([group, what, other, rank]), event);
    });
  }
  return [...sent].flatMap(([key, events]) => {
    const [, , from, to] = JSON.parse(key) as [string, string, number, number];
    const ends = awaited.get(key) ?? [];
    return events.flatMap((event, index) => {
      const end = ends[index];
      return end === undefined ? [] : [{ from: { rank: from, event }, to: { rank: to, event: end } }];
    });
  });
}
