#!/usr/bin/env node
// How fast weights come from files to one device: ditrun's reader beside safetensors.torch.load_file and beside reading threads alone,
// from the page cache and from the disk, in one run. Writes a checkpoint of the sizes of the published 1.3B (17 GB) into a folder.
//   npx tsx bench/load.ts --folder FOLDER [--device cuda|cpu] [--layers N] [--rounds 3] [--cold 1] [--out FILE.json]
// or, where there is no tsx:  npx tsc -p tsconfig.bench.json && node dist-bench/load.js --folder FOLDER
// Needs `npm run build`, and python3; PyTorch only for its row. --layers takes fewer of each model, for a small machine.
import { mkdir, open, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { z } from "zod";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    ...{ folder: { type: "string" }, device: { type: "string", default: "cuda" }, layers: { type: "string" } },
    ...{ rounds: { type: "string", default: "3" }, cold: { type: "string", default: "1" }, out: { type: "string" } },
  },
});
const { folder, device } = values;
if (folder === undefined) {
  process.stderr.write("load: give --folder FOLDER, where a checkpoint of 17 GB can be written.\n");
  process.exit(2);
}
const rounds = Number(values.rounds);
const coldRounds = Number(values.cold);
const mostLayers = Number(values.layers ?? 30);

type Shapes = Record<string, readonly number[]>;

/** As umT5-xxl in bf16 and Wan 2.1's 1.3B in float32 are published. */
function shapesOf(model: "t5" | "dit"): Shapes {
  const shapes: Record<string, readonly number[]> = {};
  if (model === "t5") {
    const layers = Math.min(24, mostLayers);
    shapes["token_embedding.weight"] = [Math.ceil((256384 * layers) / 24), 4096];
    for (let i = 0; i < layers; i++) {
      for (const name of ["q", "k", "v", "o"]) shapes[`blocks.${i}.attn.${name}.weight`] = [4096, 4096];
      for (const name of ["gate.0", "fc1"]) shapes[`blocks.${i}.ffn.${name}.weight`] = [10240, 4096];
      shapes[`blocks.${i}.ffn.fc2.weight`] = [4096, 10240];
      for (const name of ["norm1", "norm2"]) shapes[`blocks.${i}.${name}.weight`] = [4096];
    }
    return shapes;
  }
  for (let i = 0; i < mostLayers; i++) {
    for (const attention of ["self_attn", "cross_attn"]) {
      for (const name of ["q", "k", "v", "o"]) {
        shapes[`blocks.${i}.${attention}.${name}.weight`] = [1536, 1536];
        shapes[`blocks.${i}.${attention}.${name}.bias`] = [1536];
      }
      for (const name of ["norm_q", "norm_k"]) shapes[`blocks.${i}.${attention}.${name}.weight`] = [1536];
    }
    shapes[`blocks.${i}.ffn.0.weight`] = [8960, 1536];
    shapes[`blocks.${i}.ffn.0.bias`] = [8960];
    shapes[`blocks.${i}.ffn.2.weight`] = [1536, 8960];
    shapes[`blocks.${i}.ffn.2.bias`] = [1536];
  }
  return shapes;
}

/** Writes a file of numbers near 1, unless one of that size is there. */
async function writeCheckpoint(path: string, dtype: "F32" | "BF16", shapes: Shapes): Promise<void> {
  const width = dtype === "F32" ? 4 : 2;
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += shape.reduce((product, size) => product * size, width);
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const total = 8 + header.length + end;
  if ((await stat(path).catch(() => undefined))?.size === total) return;
  const block = Buffer.alloc(64 * 2 ** 20);
  for (let i = 0; i < block.length; i += 2) block.writeUInt16LE(0x3c00 + ((i * 40503) & 0x3ff), i);
  const file = await open(path, "w");
  await file.write(Buffer.concat([length, header]));
  for (let left = end; left > 0; left -= block.length) await file.write(block, 0, Math.min(left, block.length));
  await file.sync();
  await file.close();
}

const measured = z.object({
  seconds: z.number(),
  bytes: z.number(),
  hostBytes: z.number().optional(),
  device: z.string().optional(),
});
type Measured = z.infer<typeof measured>;

async function measure(program: string, words: readonly string[]): Promise<Measured | undefined> {
  const { stdout, stderr, failed } = await execa(program, words, { reject: false });
  if (!failed) return measured.parse(JSON.parse(stdout));
  process.stderr.write(`${program} ${words.slice(0, 3).join(" ")}: ${stderr.trim().split("\n").at(-1)}\n`);
  return undefined;
}

await mkdir(folder, { recursive: true });
const files = [join(folder, "t5.safetensors"), join(folder, "dit.safetensors")];
await writeCheckpoint(files[0] ?? "", "BF16", shapesOf("t5"));
await writeCheckpoint(files[1] ?? "", "F32", shapesOf("dit"));

const here = (name: string) => join(root, "bench", "load", name);
const module = join(root, "build", `libditrun_${device}.so`);
const threads = (...more: string[]) => measure("python3", [here("threads.py"), ...more, ...files]);
const contenders: Readonly<Record<string, () => Promise<Measured | undefined>>> = {
  "8 reading threads alone": () => threads(),
  "16 reading threads alone": () => threads("--threads", "16"),
  "ditrun to bf16": () => measure("node", [here("worker.js"), module, "bf16", ...files]),
  "ditrun to e4m3": () => measure("node", [here("worker.js"), module, "e4m3", ...files]),
  ...(device === "cuda" && {
    "safetensors.torch.load_file": () => measure("python3", [here("torch_load.py"), ...files]),
  }),
};
const coldOnes = ["8 reading threads alone", "ditrun to e4m3"];

const results: { name: string; cold: boolean; round: number; result: Measured }[] = [];
async function run(name: string, cold: boolean, round: number): Promise<void> {
  if (cold) await execa("python3", [here("threads.py"), "--drop", ...files]);
  const result = await contenders[name]?.();
  if (!result) return;
  results.push({ name, cold, round, result });
  const gigabytes = (result.bytes / result.seconds / 1e9).toFixed(2);
  const host = result.hostBytes === undefined ? "" : `, ${(result.hostBytes / 2 ** 30).toFixed(2)} GiB of host memory`;
  console.log(`${cold ? "disk" : "page cache"}: ${name}: ${result.seconds.toFixed(3)} s, ${gigabytes} GB/s${host}`);
}
await threads("--threads", "16");
for (let round = 0; round < rounds; round++) for (const name of Object.keys(contenders)) await run(name, false, round);
for (let round = 0; round < coldRounds; round++) for (const name of coldOnes) await run(name, true, round);

/** The median rate of a row, in bytes a second. */
function rate(name: string, cold: boolean): number {
  const rates = results.flatMap((each) =>
    each.name === name && each.cold === cold ? [each.result.bytes / each.result.seconds] : [],
  );
  return rates.toSorted((a, b) => a - b)[Math.floor(rates.length / 2)] ?? Number.NaN;
}
const ratio = (a: number, b: number) => (a / b).toFixed(2);
const e4m3 = "ditrun to e4m3";
console.log(`page cache: ditrun / load_file ${ratio(rate(e4m3, false), rate("safetensors.torch.load_file", false))}`);
console.log(`disk: ditrun / 8 threads ${ratio(rate(e4m3, true), rate("8 reading threads alone", true))}`);
if (values.out !== undefined) await writeFile(values.out, `${JSON.stringify(results, undefined, 2)}\n`);
