import { rankList } from "./whereabouts.js";

/** More places than these are not read by anybody. */
const MOST_PLACES = 6;

/** `; rank 1 in step (train.py:31); ranks 0 and 2 in reduce (train.py:30)`, of those of whom it is known. */
export function placesOf(ranks: readonly { readonly rank: number; readonly place?: string | undefined }[]): string {
  const places = new Map<string, number[]>();
  for (const { rank, place } of ranks) {
    if (place !== undefined) places.set(place, [...(places.get(place) ?? []), rank]);
  }
  // Whoever waits alone is more interesting than those who wait for it.
  const told = [...places].sort(([, a], [, b]) => a.length - b.length).slice(0, MOST_PLACES);
  return told.map(([place, those]) => `; ${rankList(those).replace("R", "r")} in ${place}`).join("");
}
