import { z } from "zod";

/** A seed of 64 bits: a number, or decimal text where it is beyond 2^53, which numbers (and JSON's readers) do not hold exactly. */
export const seedSchema = z.union([
  z.int().min(0),
  z
    .string()
    .regex(/^\d{1,20}$/)
    .refine((digits) => BigInt(digits) < 2n ** 64n),
]);
export type Seed = z.infer<typeof seedSchema>;

/** @param value 0 … 2^64 - 1. */
export function seedOf(value: bigint): Seed {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value);
}

/** The next seed after one; after the last comes 0. */
export function seedAfter(seed: Seed): Seed {
  return seedOf(BigInt.asUintN(64, BigInt(seed) + 1n));
}
