import { describe, expect, it } from "vitest";
import type { PlanDocument } from "../../src/plan/schema.js";
import { rangeOf } from "../../src/worker/comm/shares.js";
import { makeAttention } from "../../src/worker/layers/attention/choose.js";
import { cast } from "../../src/worker/ops/elementwise.js";
import { partOf } from "../../src/worker/runtime/tensor.js";
import { relativeL2 } from "../compare.js";
import { draw, onRanks, run, stacked } from "./ranks.js";

const heads = 3;
const columns = heads * 32;
const tokensOfRank = [150, 33, 129];
const tokens = tokensOfRank.reduce((sum, count) => sum + count, 0);

/** Attention of every rank's queries to all keys, rank after rank, as float32. */
async function attend(document: PlanDocument, shares: readonly number[]): Promise<Float32Array> {
  const parts = await onRanks(document, async (context) => {
    const { device, cp } = context;
    const attention = makeAttention(context, heads);
    const own = { ...rangeOf(shares, cp.rank), columns, size: 2 };
    const dtype = attention.queryDtype === "fp16" ? "fp16" : "fp32";
    const q = device.allocatePersistent(dtype, [own.count, columns]);
    const kv = device.allocatePersistent(dtype, [2, own.count, columns]);
    cast(device, q, draw(device, "q", own));
    for (const [index, name] of ["k", "v"].entries()) cast(device, partOf(kv, index), draw(device, name, own));
    return run(context, () => {
      const out = device.allocate("fp32", [own.count, columns]);
      cast(device, out, attention.attend(q, kv, shares));
      return out;
    });
  });
  return stacked(parts);
}

const dtypes = [
  // Merging adds a few float32 roundings.
  ["fp32", 1e-6, { dtype: "fp32" }],
  // Rounded to bf16 at the end; probabilities have 11 bits.
  ["fp16", 4e-3, { dtype: "bf16", attention: { dtype: "fp16" } }],
  // Each step rounds its probabilities against its own largest score: the errors of two such runs, 2 % each at most, differ.
  ["e4m3", 0.04, { dtype: "fp32", attention: { dtype: "e4m3" } }],
] as const;

describe.for(["peer", "nccl"] as const)("ring attention over %s", (transport) => {
  it.for(dtypes)("gives three ranks of uneven shares what one rank gives in %s", async ([, tolerance, plan]) => {
    const alone = await attend(plan, [tokens]);
    const ring = await attend({ ...plan, mesh: { cp: 3 }, ring: { transport } }, tokensOfRank);
    expect(ring).toHaveLength(tokens * columns);
    expect(relativeL2(ring, alone)).toBeLessThan(tolerance);
  });
});
