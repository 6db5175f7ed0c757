import { z } from "zod";
import { DitrunError } from "../../failure.js";
import { RequestFault, type Store } from "../store.js";

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const decode = (value: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(value));

/** The largest of the ranks' numbers: what one rank needs, all do. @param name of this question, asked once in a request. */
export async function largestOf(store: Store, name: string, value: number): Promise<number> {
  await store.put(`${name}/${store.rank}`, encode(value));
  let largest = value;
  for (let rank = 0; rank < store.size; rank++) {
    if (rank !== store.rank) largest = Math.max(largest, z.number().parse(decode(await store.get(`${name}/${rank}`))));
  }
  return largest;
}

/**
 * Runs what needs no other rank, and goes on only where it succeeded on every rank.
 * @throws RequestFault, on every rank, where it failed on one: with its own reason, else with that of the first that failed.
 */
export async function agreed<T>(store: Store, name: string, body: () => Promise<T>): Promise<T> {
  let outcome: { readonly value: T } | { readonly error: DitrunError };
  try {
    outcome = { value: await body() };
  } catch (error) {
    if (!(error instanceof DitrunError)) throw error;
    outcome = { error };
  }
  const failed = "error" in outcome;
  if ((await largestOf(store, name, failed ? 1 : 0)) === 0 && "value" in outcome) return outcome.value;
  if ("error" in outcome) throw new RequestFault(outcome.error.code, outcome.error.message, { cause: outcome.error });
  throw new RequestFault("ERR_RANK_FAILED", "Another rank cannot do its part of this request.");
}
