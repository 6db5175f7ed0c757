import { cpSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { vi } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels, packageRoot } from "../../src/paths.js";
import { meshSize } from "../../src/plan/schema.js";
import type { ForwardTask, WanAccuracyTask } from "../../src/protocol/job.js";

/** Code of the built worker that stands in its file once, and what a copy of the worker has in its place: there fault(name) asks whether a fault is on. */
const edits: readonly { readonly file: string; readonly code: string; readonly instead: string }[] = [
  {
    file: "layers/attention/ring.js",
    code: "payload.q, blocks, {",
    instead:
      // Its own block in place of each other one, which gives the same as that block alone; the others are waited for as ever.
      'payload.q, fault("dead ring") || (fault("dead ring on one rank") && messages[0].rank === 1) ? blocks.map(({ flag }) => ({ ...blocks[0], flag })) : blocks, {',
  },
  {
    file: "layers/linear.js",
    code: "bias: this.weights.bias };",
    instead: 'bias: fault("dropped bias") ? undefined : this.weights.bias };',
  },
  {
    file: "layers/linear.js",
    code: "bias: this.weights.bias, gate };",
    instead: 'bias: fault("dropped bias") ? undefined : this.weights.bias, gate };',
  },
  {
    file: "layers/linear.js",
    code: "multiply(this.context, x, out, this.weights, {\n            bias,",
    instead:
      'multiply(this.context, x, out, this.weights, {\n            bias: fault("dropped bias") && options.residual && this.context.cp.rank === 1 ? undefined : bias,',
  },
  {
    file: "layers/linear-weights.js",
    code: 'const w = await loadAs("e4m3", squares);',
    instead: `const w = await loadAs("e4m3", squares);
        if (fault("wrong scale of weights") && part.columns.count < spec.inFeatures) {
            const { address } = w.rowScale;
            const work = () => ({ flops: 0, bytes: 4 * rows, shape: "" });
            device.launch("copy", { phase: "elementwise", work, args: () => [address, address + 2 * rows, 2 * rows] });
        }`,
  },
  {
    file: "layers/attention/payload.js",
    code: "{ statistics, totalRows, heads }",
    instead:
      '{ statistics: fault("own statistics") ? own : statistics, totalRows: fault("own statistics") ? tokens : fault("wrong smoothing mean") && ring.rank === 1 ? 1e9 : totalRows, heads }',
  },
  {
    file: "ops/attention.js",
    code: "scale: options.scale ?? headDim ** -0.5,",
    instead: 'scale: fault("wrong scale of scores") ? (2 * headDim) ** -0.5 : (options.scale ?? headDim ** -0.5),',
  },
];

/** Mistakes that a parallel layout could have, each in one line of the worker. */
export type Fault =
  | "none"
  | "dead ring"
  | "dead ring on one rank"
  | "dropped bias"
  | "wrong smoothing mean"
  | "own statistics"
  | "wrong scale of scores"
  | "wrong scale of weights";

/** Copies the built worker to a folder, with the faults in it. @returns the program of a worker that runs a series of tasks. */
export function breakBuild(folder: string): string {
  const shared = readdirSync(join(packageRoot, "dist")).filter((name) => name.endsWith(".js"));
  for (const part of ["worker", "protocol", "formats", "files", "models", "plan", "sampling", ...shared]) {
    cpSync(join(packageRoot, "dist", part), join(folder, part), { recursive: true });
  }
  symlinkSync(join(packageRoot, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  for (const { file, code, instead } of edits) {
    const path = join(folder, "worker", file);
    const pieces = readFileSync(path, "utf8").split(code);
    if (pieces.length !== 2) throw new Error(`${file} holds ${pieces.length - 1} times: ${code}`);
    writeFileSync(path, pieces.join(instead));
  }
  for (const file of new Set(edits.map(({ file }) => file))) {
    const path = join(folder, "worker", file);
    writeFileSync(path, `${readFileSync(path, "utf8")}\nconst fault = (name) => globalThis.ditrunFault === name;\n`);
  }
  const entry = join(folder, "series.js");
  cpSync(fileURLToPath(new URL("fixtures/series.js", import.meta.url)), entry);
  return entry;
}

export type SeriesTask = ForwardTask | WanAccuracyTask;

/** Runs tasks with meshes of one size one after the other in the same workers, each with its fault. */
export async function runSeries(
  entry: string,
  folder: string,
  items: readonly { readonly fault: Fault; readonly task: SeriesTask }[],
): Promise<void> {
  const [first] = items;
  if (!first) throw new Error("A series has at least one task.");
  const series = join(folder, "series.json");
  writeFileSync(series, JSON.stringify(items));
  vi.stubEnv("DITRUN_TEST_SERIES", series);
  try {
    const job = { id: "series", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60 } as const;
    const nproc = meshSize(first.task.plan.mesh);
    await runJob({ job: { ...job, task: first.task }, nproc, log: openLog("warn"), port: 0, entry });
  } finally {
    vi.unstubAllEnvs();
  }
}
