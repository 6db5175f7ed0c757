import { DitrunError } from "../../failure.js";
import { RequestFault, type Store } from "../store.js";

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
  if ((await store.largest(name, failed ? 1 : 0)) === 0 && "value" in outcome) return outcome.value;
  if ("error" in outcome) throw new RequestFault(outcome.error.code, outcome.error.message, { cause: outcome.error });
  throw new RequestFault("ERR_RANK_FAILED", "Another rank cannot do its part of this request.");
}
