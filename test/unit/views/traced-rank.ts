import type { TraceEvent, TraceRank } from "../../../src/protocol/results.js";

/** A product of 14 MFLOP in 7 µs, 5 µs after the forward began. */
export const gemm: TraceEvent = {
  ...{ name: "gemm", phase: "gemm", stream: "compute", shape: "2×3×4 bf16", dtype: "bf16", layer: "blocks.0.mlp.0" },
  ...{ startMicroseconds: 5, durationMicroseconds: 7, flops: 14e6, bytes: 7e3, arenaBytes: 4096 },
  queued: { startMicroseconds: 1, durationMicroseconds: 2 },
};

const exchange = { what: "ring", group: "cp", ranks: [0, 1], to: [], from: [] };

/** A copy to another rank, and an attention that waits for one of its. */
export const send = (to: number): TraceEvent => ({
  ...gemm,
  ...{ name: "copy", phase: "communication", stream: "copy", startMicroseconds: 6, durationMicroseconds: 4, flops: 0 },
  exchange: { ...exchange, to: [to] },
});
export const read = (from: number): TraceEvent => ({
  ...gemm,
  ...{ name: "attention", phase: "attention", startMicroseconds: 13, durationMicroseconds: 20, layer: "blocks.0.attn" },
  exchange: { ...exchange, from: [from] },
});

/** A rank that began 100 µs after the one before it. */
export function tracedRank(
  rank: number,
  trace: TraceEvent[] = [gemm],
): TraceRank & { clock: NonNullable<TraceRank["clock"]> } {
  return {
    ...{ rank, device: "NVIDIA H200", host: "node-a", trace },
    spans: [{ name: "blocks.0", kind: "block", startMicroseconds: 4, durationMicroseconds: 9 }],
    recordedAtMicroseconds: 1e9 + 100 * rank,
    clock: { id: "a", offsetMicroseconds: 3 * rank, residualMicroseconds: 10 + rank },
  };
}
