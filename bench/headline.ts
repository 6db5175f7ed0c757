#!/usr/bin/env node
// The headline numbers on 1, 2, 4 or 8 GPUs in one run of at most ten minutes: the DiT benchmark, Wan 2.1 1.3B and 14B with
// random weights, and the links between the GPUs. Tables on stdout, progress on stderr, one JSON document in --out FILE.
//   npx tsx bench/headline.ts --gpus 8 [--only dit,wan-1.3b,wan-14b,links] [--budget SECONDS] [--out FILE.json] [--device cpu]
// or, where there is no tsx:  npx tsc -p tsconfig.bench.json && node dist-bench/headline.js --gpus 8
// Needs `npm run build`. Each piece is one `ditrun … --json`; one that fails is named and the others go on, with exit code 1
// at the end. --device cpu takes tiny models and short messages: it checks this script and measures nothing of interest.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { z } from "zod";
import {
  accuracyDocument,
  type DitResult,
  generateDocument,
  type Headline,
  linksDocument,
  type Precision,
  profileDocument,
  type WanResult,
} from "./headline/results.js";
import { headlineTables } from "./headline/tables.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const sections = ["dit", "wan-1.3b", "wan-14b", "links"] as const;

interface Mesh {
  readonly cfg: number;
  readonly cp: number;
  readonly tp: number;
}

/** What is measured on a GPU, and its small stand-in for a CPU; targets are the numbers to beat, and those that are wanted. */
const settings = {
  cuda: {
    dit: { model: "dit", precisions: ["bf16", "fp16", "fp8"], warmup: 3, iterations: 10 },
    ditTargets: {
      fp16: "as bf16",
      bf16: "168.31 ms, 6.8× on 8×H100 (cp4×tp2); wanted on 8: ≤ 75 ms, ≥ 7.5×",
      fp8: "160.48 ms, 7.1× on 8×H100; wanted on 8: ≤ 75 ms, ≥ 7.5×",
    },
    small: { model: "1.3B", size: "832*480", frames: 81, steps: 4, target: "37 s on 8×H100; wanted on 8: ≤ 8 s" },
    fullSteps: 50,
    large: [
      { model: "14B", size: "832*480", frames: 81, steps: 2, target: "0.75 s/step on 8×H100 (best peer)" },
      { model: "14B", size: "1280*720", frames: 81, steps: 2, target: "287.9 s for 50 steps on 8 (official code)" },
    ],
    links: { sizes: "64K,256K,1M,4M,16M,64M,256M", transports: ["peer", "nccl"] },
    pieceSeconds: 240,
  },
  cpu: {
    dit: { model: "dit-tiny", precisions: ["fp8"], warmup: 0, iterations: 1 },
    ditTargets: { bf16: "", fp16: "", fp8: "" },
    small: { model: "tiny", size: "64*48", frames: 5, steps: 2, target: "" },
    fullSteps: 3,
    large: [{ model: "tiny", size: "48*64", frames: 5, steps: 1, target: "" }],
    links: { sizes: "1K,64K", transports: ["peer"] },
    pieceSeconds: 60,
  },
} as const;

const single: Mesh = { cfg: 1, cp: 1, tp: 1 };
const { gpus, device, only, budget, out } = readArguments();
const chosen = settings[device];
const began = performance.now();
const elapsed = () => (performance.now() - began) / 1e3;
const document: Headline = {
  date: new Date().toISOString(),
  ...{ gpus, device, budgetSeconds: budget, seconds: 0 },
  commit: await answer("git", ["-C", root, "describe", "--always", "--dirty", "--abbrev=40"]),
  nvidiaSmi: await answer("nvidia-smi", [
    "--query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm",
    "--format=csv,noheader",
  ]),
  fullSteps: chosen.fullSteps,
  ...{ dit: [], wan: [], links: [], failures: [] },
};
const found = document.nvidiaSmi?.trim().split("\n").length ?? gpus;
if (device === "cuda" && found < gpus) {
  // ditrun would let workers share a GPU, and the numbers would not be what the table calls them.
  process.stderr.write(`headline: --gpus is ${gpus}, but nvidia-smi lists ${found}: give --gpus ${found} or fewer.\n`);
  process.exit(2);
}
const folder = await mkdtemp(join(tmpdir(), "ditrun-headline-"));
try {
  if (only.includes("dit")) await measureDit();
  if (only.includes("wan-1.3b")) await measureSmallWan();
  if (only.includes("wan-14b")) await measureLargeWan();
  if (only.includes("links")) await measureLinks();
} finally {
  await rm(folder, { recursive: true, force: true });
}
await save();
process.stdout.write(`${headlineTables(document)}\n`);
process.exitCode = document.failures.length > 0 ? 1 : 0;

function readArguments() {
  const { values } = parseArgs({
    options: {
      gpus: { type: "string" },
      device: { type: "string", default: "cuda" },
      only: { type: "string", default: sections.join(",") },
      budget: { type: "string", default: "570" },
      out: { type: "string" },
    },
  });
  const parsed = z
    .object({
      gpus: z.coerce.number().pipe(z.literal([1, 2, 4, 8], "--gpus must be 1, 2, 4 or 8.")),
      device: z.enum(["cuda", "cpu"], "--device must be cuda or cpu."),
      only: z.array(z.enum(sections, `--only takes ${sections.join(", ")}, separated by commas.`)),
      budget: z.coerce.number().positive("--budget must be a number of seconds above 0."),
      out: z.string().optional(),
    })
    .safeParse({ ...values, only: values.only.split(",") });
  if (parsed.success) return parsed.data;
  process.stderr.write(`headline: ${parsed.error.issues.map(({ message }) => message).join(" ")}\n`);
  process.exit(2);
}

/** What a program prints, or null where it does not run. */
async function answer(program: string, args: readonly string[]): Promise<string | null> {
  const { failed, stdout, shortMessage } = await execa(program, args, { reject: false, timeout: 10_000 });
  if (!failed) return stdout;
  process.stderr.write(`headline: ${program} has no answer: ${shortMessage?.split("\n")[0]}\n`);
  return null;
}

/** Runs `ditrun … --json`. @returns its document, or undefined after noting why there is none; exit code 1 has both. */
async function ditrun<T>(piece: string, schema: z.ZodType<T>, args: readonly (string | number)[]) {
  const seconds = Math.min(chosen.pieceSeconds, budget - elapsed());
  const fail = (reason: string) => {
    document.failures.push({ piece, reason });
    process.stderr.write(`headline: ${piece} failed: ${reason}\n`);
  };
  if (seconds < 1) {
    fail(`not run, the budget of ${budget} s was spent: give more with --budget, or name fewer parts with --only.`);
    return undefined;
  }
  // What is known so far outlives whatever ends this script.
  await save();
  const started = performance.now();
  const words = [join(root, "bin", "ditrun.js"), "--device", device, ...args.map(String), "--json"];
  // SIGTERM lets the launcher end its workers, which takes it at most 5 seconds.
  const limits = { timeout: seconds * 1e3, forceKillAfterDelay: 10_000 };
  const child = await execa(process.execPath, words, { reject: false, stdin: "ignore", ...limits });
  let value: T | undefined;
  try {
    if (child.stdout !== "") value = schema.parse(JSON.parse(child.stdout));
  } catch (error) {
    if (!child.failed) fail(`its document could not be read: ${error instanceof Error ? error.message : error}`);
  }
  if (child.timedOut) fail(`it took longer than its limit of ${seconds.toFixed(0)} s.`);
  else if (child.failed)
    fail(child.stderr.trim().split("\n").at(-1) || child.shortMessage || `exit code ${child.exitCode}.`);
  const took = (performance.now() - started) / 1e3;
  process.stderr.write(`headline: ${elapsed().toFixed(0)} s: ${piece} took ${took.toFixed(1)} s\n`);
  return value;
}

async function save(): Promise<void> {
  document.seconds = elapsed();
  if (out !== undefined) await writeFile(out, `${JSON.stringify(document, null, 2)}\n`);
}

function nameOf(mesh: Mesh): string {
  const parts = (["cfg", "cp", "tp"] as const).flatMap((axis) => (mesh[axis] > 1 ? [`${axis}${mesh[axis]}`] : []));
  return parts.join("×") || "1 GPU";
}

function meshFlags({ cfg, cp, tp }: Mesh): (string | number)[] {
  return ["--cfg", cfg, "--cp", cp, "--tp", tp];
}

function precisionFlags(precision: Precision): string[] {
  return { bf16: [], fp16: ["--attention", "fp16"], fp8: ["--fp8"] }[precision];
}

async function measureDit(): Promise<void> {
  const { model, precisions, warmup, iterations } = chosen.dit;
  const layouts = gpus === 1 ? [] : [1, 2, 4].filter((tp) => tp <= gpus).map((tp) => ({ cfg: 1, cp: gpus / tp, tp }));
  for (const precision of precisions) {
    const flags = ["--model", model, ...precisionFlags(precision)];
    const results: DitResult[] = [];
    for (const mesh of [single, ...layouts]) {
      const args = [...flags, ...meshFlags(mesh), "profile", "--warmup", warmup, "--iterations", iterations];
      const profile = await ditrun(`DiT ${nameOf(mesh)} ${precision}`, profileDocument, args);
      const alone = mesh === single ? profile?.latencyMs : results[0]?.latencyMs;
      const waits = profile?.ranks.map(({ ringWaitsMs }) => ringWaitsMs.reduce((sum, wait) => sum + wait, 0));
      const result: DitResult = {
        plan: nameOf(mesh),
        precision,
        latencyMs: profile?.latencyMs ?? null,
        speedup: profile && alone ? alone.median / profile.latencyMs.median : null,
        communicationMs: profile?.phases.communication ?? null,
        ringWaitMs: waits ? Math.max(...waits) : null,
        meanAbs: null,
        relL2: null,
        target: chosen.ditTargets[precision],
      };
      results.push(result);
      document.dit.push(result);
    }
    if (layouts.length > 0) await addAccuracy(flags, precision, layouts, results.slice(1));
  }
}

/** All layouts in one command, so that the run on one GPU that they are compared with is made once. */
async function addAccuracy(
  flags: readonly string[],
  precision: Precision,
  layouts: readonly Mesh[],
  results: DitResult[],
): Promise<void> {
  const plans: string[] = [];
  for (const mesh of layouts) {
    const file = join(folder, `cp${mesh.cp}-tp${mesh.tp}.yaml`);
    await writeFile(file, JSON.stringify({ mesh }));
    plans.push(file);
  }
  const args = [...flags, "accuracy", "--plans", plans.join(",")];
  const accuracy = await ditrun(`DiT accuracy ${precision}`, accuracyDocument, args);
  results.forEach((result, index) => {
    result.meanAbs = accuracy?.results[index]?.meanAbs ?? null;
    result.relL2 = accuracy?.results[index]?.relL2 ?? null;
  });
}

/** Both halves of guidance at once, and the heads in pairs; on one GPU neither. */
function wanLayouts(): readonly [Mesh, ...Mesh[]] {
  if (gpus === 1) return [single];
  return [
    { cfg: 2, cp: gpus / 2, tp: 1 },
    { cfg: 1, cp: gpus / 2, tp: 2 },
  ];
}

async function measureSmallWan(): Promise<void> {
  const video = chosen.small;
  const layouts = wanLayouts();
  const runs: [Mesh, Precision][] = gpus === 1 ? [] : [[single, "bf16"]];
  runs.push(...layouts.map((mesh): [Mesh, Precision] => [mesh, "bf16"]), [layouts[0], "fp8"]);
  const measured: { mesh: Mesh; precision: Precision; secondsPerStep: number }[] = [];
  for (const [mesh, precision] of runs) {
    const { secondsPerStep } = await generate({ ...video, mesh, precision });
    if (secondsPerStep !== null) measured.push({ mesh, precision, secondsPerStep });
  }
  const [best] = measured.toSorted((a, b) => a.secondsPerStep - b.secondsPerStep);
  if (best) await generate({ ...video, ...best, steps: chosen.fullSteps });
}

async function measureLargeWan(): Promise<void> {
  const [mesh] = wanLayouts();
  for (const video of chosen.large) await generate({ ...video, mesh, precision: "bf16" });
}

interface Video {
  readonly model: string;
  readonly size: string;
  readonly frames: number;
  readonly mesh: Mesh;
  readonly precision: Precision;
  readonly steps: number;
  readonly target: string;
}

/** A video with random weights and guidance, from the texts to the finished file. */
async function generate({ model, size, frames, mesh, precision, steps, target }: Video): Promise<WanResult> {
  const piece = `Wan ${model} ${size} ${nameOf(mesh)} ${precision}, ${steps} steps`;
  const video = ["--size", size, "--frames", frames, "--steps", steps, "--out", join(folder, "video.mp4")];
  const wan = ["wan", "generate", "--weights", "random", "--prompt", "Two cats box on a stage", ...video];
  const args = ["--model", model, ...precisionFlags(precision), ...meshFlags(mesh), ...wan];
  const found = await ditrun(piece, generateDocument, args);
  const secondsPerStep = found ? stepSeconds(found.ranks.map(({ stepsMs }) => stepsMs)) : null;
  const { encodeMs, sampleMs, decodeMs, videoMs } = found?.stages ?? {};
  const seconds = (...parts: (number | undefined)[]) =>
    parts.reduce<number | null>((sum, ms) => (sum === null || ms === undefined ? null : sum + ms / 1e3), 0);
  const aside = seconds(encodeMs, decodeMs);
  const result: WanResult = {
    ...{ model, size, frames, plan: nameOf(mesh), precision, steps, secondsPerStep },
    forwardMs: found?.forwardMs.median ?? null,
    forwardTflops: found?.forwardTflops ?? null,
    decodeSeconds: seconds(decodeMs),
    totalSeconds: seconds(encodeMs, sampleMs, decodeMs),
    computedTotalSeconds:
      aside === null || secondsPerStep === null || steps === chosen.fullSteps
        ? null
        : aside + chosen.fullSteps * secondsPerStep,
    fileSeconds: seconds(videoMs),
    peakMemoryBytes: found?.peakMemoryBytes ?? null,
    target,
  };
  document.wan.push(result);
  return result;
}

/** Median step in seconds, the slowest rank of each. The first, if it is not the only one, also warms the device up. */
function stepSeconds(ranks: readonly (readonly number[])[]): number {
  const slowest = (ranks[0] ?? []).map((_, step) => Math.max(...ranks.map((stepsMs) => stepsMs[step] ?? 0)));
  const sorted = slowest.slice(slowest.length > 1 ? 1 : 0).sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2e3;
}

async function measureLinks(): Promise<void> {
  if (gpus === 1) return;
  const { sizes, transports } = chosen.links;
  // One by one: where NCCL is missing, the peer copies are still measured.
  for (const transport of transports) {
    const args = ["--nproc", gpus, "links", "--sizes", sizes, "--transports", transport];
    document.links.push(...((await ditrun(`links ${transport}`, linksDocument, args))?.results ?? []));
  }
}
