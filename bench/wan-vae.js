#!/usr/bin/env node
// Times Wan's VAE with random weights of the published shape, a decode (or encode) over one worker or several, in each dtype, and
// measures how far its pictures are from those in float32.
//   npm run build && node bench/wan-vae.js --nproc 1 --device cuda [--frames 21 --height 60 --width 104] [--vae-dtype bf16,fp16] [--encode]
// Sizes are those of the latent: 21 × 60 × 104 is a video of 81 frames of 832 × 480. Dtypes take turns, `--rounds` times. For each it prints the
// wall times of warm iterations, the frames' way to the host included (bytes, as for a video), their median, that as a ratio to the first
// dtype's, the peak memory of a rank, and PSNR and relative L2 error against float32 of what it decodes (or encodes: relative L2 alone). With
// several workers float32 is that of one, and so is what each dtype's `beside one worker` compares with.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runJob } from "../dist/engine/workers.js";
import { toFloat32 } from "../dist/formats/numbers.js";
import { openSafetensors } from "../dist/formats/safetensors.js";
import { openLog } from "../dist/launcher/logs.js";
import { builtKernels } from "../dist/paths.js";
import { planSchema, vaeDtypeSchema } from "../dist/plan/schema.js";
import { wanVaeRankSchema } from "../dist/protocol/results.js";

const { values } = parseArgs({
  options: {
    nproc: { type: "string", default: "1" },
    device: { type: "string", default: "cuda" },
    "vae-dtype": { type: "string", default: "bf16,fp16" },
    frames: { type: "string", default: "21" },
    height: { type: "string", default: "60" },
    width: { type: "string", default: "104" },
    iterations: { type: "string", default: "5" },
    rounds: { type: "string", default: "2" },
    encode: { type: "boolean", default: false },
  },
});
const workers = Number(values.nproc);

/** One job: its results by rank. */
async function run(dtype, nproc, change) {
  const results = await runJob({
    job: {
      id: "bench-wan-vae",
      device: values.device,
      kernels: process.env.DITRUN_KERNELS || builtKernels(values.device),
      timeoutSeconds: 600,
      task: {
        kind: "wan-vae",
        model: { name: "wan-vae", weights: { from: "random", seed: 1 } },
        plan: planSchema.parse({ vae: { dtype }, mesh: { cp: nproc } }),
        direction: values.encode ? "encode" : "decode",
        input: {
          from: "size",
          frames: Number(values.frames),
          height: Number(values.height),
          width: Number(values.width),
        },
        clamp: true,
        ...change,
      },
    },
    nproc,
    port: 0,
    log: openLog("warn"),
  });
  return results.map((result) => wanVaeRankSchema.parse(result));
}

/** What a dtype gives, as float32. */
async function resultOf(dtype, nproc, folder) {
  const output = join(folder, `${dtype}.safetensors`);
  await run(dtype, nproc, { iterations: 1, output });
  const file = await openSafetensors(output);
  try {
    return toFloat32("F32", await file.read("output"));
  } finally {
    await file.close();
    rmSync(output);
  }
}

/** PSNR of pixels in [-1, 1] in dB, and the relative L2 error. */
function distance(result, exact) {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < exact.length; i++) {
    difference += (result[i] - exact[i]) ** 2;
    norm += exact[i] ** 2;
  }
  const relativeL2 = Math.sqrt(difference / norm);
  return values.encode ? { relativeL2 } : { psnr: 10 * Math.log10((4 * exact.length) / difference), relativeL2 };
}

const median = (times) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];

const dtypes = vaeDtypeSchema.array().min(1).parse(values["vae-dtype"].split(","));
const timed = new Map(dtypes.map((dtype) => [dtype, { milliseconds: [], peakMemoryBytes: 0, device: "" }]));
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [dtype, of] of timed) {
    const ranks = await run(dtype, workers, { iterations: 1 + Number(values.iterations), pixels: "u8" });
    // The first iteration loads kernels and picks GEMM algorithms.
    of.milliseconds.push(...ranks[0].milliseconds.slice(1));
    of.peakMemoryBytes = Math.max(...ranks.map((rank) => rank.peakMemoryBytes));
    of.device = ranks[0].device;
  }
}
const folder = mkdtempSync(join(tmpdir(), "ditrun-bench-"));
try {
  const exact = await resultOf("fp32", 1, folder);
  const first = median(timed.get(dtypes[0]).milliseconds);
  for (const [vaeDtype, of] of timed) {
    const medianMs = median(of.milliseconds);
    const line = { vaeDtype, worldSize: workers, ...of, medianMs, ratio: medianMs / first };
    const result = vaeDtype === "fp32" && workers === 1 ? exact : await resultOf(vaeDtype, workers, folder);
    if (vaeDtype !== "fp32") Object.assign(line, distance(result, exact));
    if (workers > 1) line["beside one worker"] = distance(result, await resultOf(vaeDtype, 1, folder));
    console.log(JSON.stringify(line));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
