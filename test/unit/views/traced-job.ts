import { loadDitModel } from "../../../src/models/load.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { ProfileTask } from "../../../src/protocol/job.js";
import type { ProfileRank } from "../../../src/protocol/results.js";
import type { Made } from "../../../src/views/html/facts.js";
import { profilePage } from "../../../src/views/html/profile-page.js";
import { summarizeProfile } from "../../../src/views/profile-report.js";
import { gemm, read, send, tracedRank } from "./traced-rank.js";

/** A profile of `count` ranks, each with `rounds` times what tracedRank has. */
export function profiledRank(rank: number, count = 2, rounds = 1): ProfileRank {
  const next = (rank + 1) % count;
  const before = (rank + count - 1) % count;
  const shifted = Array.from({ length: rounds }, (_, round) =>
    [gemm, send(next), read(before)].map((event) => ({
      ...event,
      startMicroseconds: event.startMicroseconds + 40 * round,
      layer: `blocks.${round}.mlp`,
    })),
  );
  const total = { launches: rounds, roofMs: 2 };
  return {
    ...tracedRank(rank, shifted.flat()),
    latenciesMs: [20, 22, 30],
    recordedMs: 25,
    phases: { attention: 10, gemm: 6 + rank, elementwise: 1, communication: 5 },
    ringWaitsMs: [0, 3],
    kernels: [
      { ...{ name: "gemm", shape: "2×3×4 bf16", phase: "gemm", milliseconds: 6 }, ...total, flops: 3e12, bytes: 2e9 },
      { ...{ name: "peerSum", shape: "8×8", phase: "communication", milliseconds: 2 }, ...total, flops: 0, bytes: 1e9 },
    ],
    peakMemoryBytes: 3 * 2 ** 30,
    modelFlops: 4e12,
    peakTflops: 1000,
    peakGBs: 4000,
    memory: [
      { after: "loading", bytes: 2 ** 30 },
      { after: "the first forward", bytes: 2 * 2 ** 30 + rank },
    ],
  };
}

export const made: Made = {
  ditrun: { version: "0.2.0", commit: "0123456789abcdef" },
  commandLine: ["ditrun", "profile", "--model", "<script>alert('x')</script>"],
  startedAt: "2026-11-29T11:00:00.000Z",
  host: "node-a",
  environment: { node: "v22", kernels: "libditrun_cuda.so", kernelsHash: "0123456789ab", driver: "580.95" },
};

/** The page of such a profile. */
export async function tracedPage(count: number, rounds: number): Promise<string> {
  const model = await loadDitModel("dit");
  const plan = { ...planSchema.parse({ mesh: { cp: count } }), name: `cp${count}` };
  const task: ProfileTask = {
    ...{ kind: "profile", model, plan, weights: { from: "random", seed: 0 }, seed: 0 },
    ...{ warmup: 1, iterations: 3, trace: true },
  };
  const ranks = Array.from({ length: count }, (_, rank) => profiledRank(rank, count, rounds));
  const summary = summarizeProfile(task, ranks, { device: "cuda", kernels: "k.so", count });
  const predicted = { milliseconds: 20, memoryBytes: 2 ** 30 };
  return profilePage({ summary, ranks, verdict: "compute-bound: <b>gemm</b>.", made, predicted });
}
