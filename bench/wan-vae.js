#!/usr/bin/env node
// Times Wan's VAE with random weights of the published shape: a decode (or encode) over one worker or several.
//   npm run build && node bench/wan-vae.js --nproc 1 --device cuda [--frames 21 --height 60 --width 104] [--dtype bf16] [--encode]
// Sizes are those of the latent: 21 × 60 × 104 is a video of 81 frames of 832 × 480. Prints each iteration's wall time, the
// frames' way to the host included (rank 0's), their median, and the peak memory of a rank.
import { parseArgs } from "node:util";
import { runJob } from "../dist/launcher/agent.js";
import { openLog } from "../dist/launcher/logs.js";
import { builtKernels } from "../dist/launcher/paths.js";
import { planSchema } from "../dist/protocol/plan.js";
import { wanVaeRankSchema } from "../dist/protocol/results.js";

const { values } = parseArgs({
  options: {
    nproc: { type: "string", default: "1" },
    device: { type: "string", default: "cuda" },
    dtype: { type: "string", default: "bf16" },
    frames: { type: "string", default: "21" },
    height: { type: "string", default: "60" },
    width: { type: "string", default: "104" },
    iterations: { type: "string", default: "5" },
    encode: { type: "boolean", default: false },
  },
});
const nproc = Number(values.nproc);
const results = await runJob({
  job: {
    id: "bench-wan-vae",
    device: values.device,
    kernels: process.env.DITRUN_KERNELS || builtKernels(values.device),
    timeoutSeconds: 300,
    task: {
      kind: "wan-vae",
      model: { name: "wan-vae", weights: { from: "random", seed: 1 } },
      plan: planSchema.parse({ dtype: values.dtype, mesh: { cp: nproc } }),
      direction: values.encode ? "encode" : "decode",
      input: {
        from: "size",
        frames: Number(values.frames),
        height: Number(values.height),
        width: Number(values.width),
      },
      clamp: true,
      iterations: Number(values.iterations),
    },
  },
  nproc,
  port: 0,
  log: openLog("warn"),
});
const ranks = results.map((result) => wanVaeRankSchema.parse(result));
const milliseconds = ranks[0].milliseconds;
// The first iteration loads kernels and picks GEMM algorithms.
const warm = milliseconds.slice(1).sort((a, b) => a - b);
console.log(
  JSON.stringify({
    device: ranks[0].device,
    worldSize: nproc,
    milliseconds,
    medianMs: warm[Math.floor(warm.length / 2)] ?? milliseconds[0],
    peakMemoryBytes: Math.max(...ranks.map((rank) => rank.peakMemoryBytes)),
  }),
);
