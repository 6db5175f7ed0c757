import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTensors } from "../../../src/formats/open-tensors.js";
import { checkPartial, partialName } from "../../../src/formats/partial-safetensors.js";
import { loadWanModel } from "../../../src/models/load.js";
import type { WanModel } from "../../../src/models/schema.js";
import { findFileModel } from "../../../src/models/wan/find-model.js";
import { parameterShapes } from "../../../src/models/wan/lora/modules.js";
import { openPart } from "../../../src/models/wan/tensors/open-part.js";
import { builtKernels } from "../../../src/paths.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { Task, WanConvertTask, WanGenerateTask, WanWeights } from "../../../src/protocol/job.js";
import { type Progress, progressSchema } from "../../../src/protocol/results.js";
import { Device } from "../../../src/worker/runtime/device.js";
import type { Store } from "../../../src/worker/store.js";
import { runTask } from "../../../src/worker/tasks/index.js";
import { CheckpointWeights } from "../../../src/worker/weights/checkpoint.js";
import { Converter, conversionOf } from "../../../src/worker/weights/conversion.js";
import { type GgufTensor, ggmlTypes, gguf } from "../../gguf-files.js";
import { writeRandomLora } from "../../lora.js";
import { checkpointOf, readIds, soloStore, weightsOf } from "./wan/golden.js";

let folder: string;
let model: WanModel;
let weights: Extract<WanWeights, { from: "checkpoint" }>;
let ids: WanGenerateTask["ids"];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  model = await loadWanModel(await checkpointOf("original"));
  const found = await weightsOf("original");
  if (found.from !== "checkpoint") throw new Error("The golden weights are files.");
  weights = found;
  ids = { prompt: [...(await readIds("prompt"))].slice(0, 6), negative: [...(await readIds("negative"))].slice(0, 6) };
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const bf16 = planSchema.parse({ dtype: "bf16" });
const e4m3 = planSchema.parse({ dtype: "bf16", linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } });

const settings = { id: "convert", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60 } as const;
const run = (task: Task, store: Store = soloStore()) => runTask({ ...settings, task }, store);

function conversion(out: string, to: WanConvertTask["to"], more: Partial<WanConvertTask> = {}): WanConvertTask {
  return {
    ...{ kind: "wan-convert", model: { name: "golden", transformer: model }, to, plan: to === "e4m3" ? e4m3 : bf16 },
    ...{ file: weights.transformer, out: join(folder, out), overwrite: false, by: "ditrun", ...more },
  };
}

/** A hash of a video's frames. */
async function video(plan: WanGenerateTask["plan"], more: Partial<WanGenerateTask>): Promise<string> {
  const hash = createHash("sha256");
  const store: Store = {
    ...soloStore(),
    emit: async (name, value) => void (name === "frame" && hash.update(value)),
  };
  await run(
    {
      ...{ kind: "wan-generate", model, plan, weights, ids, size: { frames: 2, height: 4, width: 4 }, seed: 3 },
      ...{ sampling: { solver: "euler", steps: 2, shift: 5, guideScale: 5 }, ...more },
    },
    store,
  );
  return hash.digest("hex");
}

test.each([
  { to: "bf16", plan: bf16, withLora: false },
  { to: "e4m3", plan: e4m3, withLora: false },
  { to: "e4m3", plan: e4m3, withLora: true },
] as const)("a file converted to $to makes the same video, with a LoRA: $withLora", async ({ to, plan, withLora }) => {
  const lora = { file: join(folder, "lora.safetensors"), strength: 0.5 };
  await writeRandomLora(lora.file, model);
  const loras = withLora ? { loras: [lora] } : {};
  const task = conversion(`${to}-${withLora}.safetensors`, to, loras);
  await run(task);
  const converted = { ...weights, transformer: task.out };
  expect(await video(plan, { weights: converted })).toBe(await video(plan, loras));
  // Nothing else tells a small model's heads.
  expect((await findFileModel(task.out)).model).toEqual({ ...model, name: "checkpoint" });
  const file = await openPart(task.out, "transformer");
  const linear = file.info("blocks.0.ffn.0.weight");
  expect(linear.dtype).toBe(to === "e4m3" ? "F8_E4M3" : "BF16");
  expect(file.about.metadata.get("converted_from")).toBe("diffusion_pytorch_model.safetensors");
  expect(file.about.metadata.get("loras")).toBe(
    withLora ? JSON.stringify([{ file: "lora.safetensors", strength: 0.5 }]) : undefined,
  );
  await file.close();
});

test("what is e4m3 with scales keeps its bytes, and what is computed in float32 stays as fine as it was", async () => {
  const first = conversion("first.safetensors", "e4m3");
  await run(first);
  const again = conversion("again.safetensors", "e4m3", { file: first.out });
  await run(again);
  const [one, two] = [await openTensors(first.out), await openTensors(again.out)];
  expect(two.names().sort()).toEqual(one.names().sort());
  for (const name of one.names())
    expect(Buffer.from(await two.read(name)).equals(Buffer.from(await one.read(name))), name).toBe(true);
  const source = await openTensors(weights.transformer);
  const modulation = "blocks.0.modulation";
  expect(one.info(modulation).dtype).toBe(source.info(modulation).dtype);
  expect(await one.read(modulation)).toEqual(await source.read(modulation));
  for (const file of [one, two, source]) await file.close();
});

test("the shapes that LoRAs are checked by are those of the model's parameters", async () => {
  const file = await openPart(weights.transformer, "transformer");
  const shapes = parameterShapes({ ...model, textEncoder: undefined });
  expect([...shapes.keys()].sort()).toEqual(file.names().sort());
  for (const [name, shape] of shapes)
    for (const [axis, length] of shape.entries())
      if (length !== undefined) expect(file.info(name).shape[axis], name).toBe(length);
  await file.close();
});

/** A worker that is gone once it has converted so many bytes; what it told before. */
function dying(after: number): { store: Store; told: Progress[] } {
  const told: Progress[] = [];
  const emit: Store["emit"] = async (_, value) => {
    const progress = progressSchema.parse(JSON.parse(new TextDecoder().decode(value)));
    told.push(progress);
    if (progress.done >= after) throw new Error("The worker was ended.");
  };
  return { store: { ...soloStore(), emit }, told };
}

test("a conversion that ended goes on where it was, unless its files have changed", async () => {
  const source = join(folder, "source.safetensors");
  await copyFile(weights.transformer, source);
  const whole = conversion("whole.safetensors", "e4m3", { file: source });
  await run(whole);
  const task = conversion("piecewise.safetensors", "e4m3", { file: source });
  const ended = dying(200_000);
  await expect(run(task, ended.store)).rejects.toThrow("The worker was ended.");
  expect(existsSync(task.out)).toBe(false);

  const second = dying(300_000);
  await expect(run(task, second.store)).rejects.toThrow("The worker was ended.");
  expect(second.told[0]?.done).toBeGreaterThan(0);
  expect(second.told[0]?.done).toBeLessThan(300_000);
  utimesSync(source, 1, 2);
  const third = dying(300_000);
  await expect(run(task, third.store)).rejects.toThrow("The worker was ended.");
  expect(third.told[0]?.done).toBe(0);

  const last = dying(Number.POSITIVE_INFINITY);
  await run(task, last.store);
  expect(last.told[0]?.done).toBeGreaterThan(0);
  expect(last.told.at(-1)?.done).toBe(last.told.at(-1)?.total);
  expect(readFileSync(task.out).equals(readFileSync(whole.out))).toBe(true);
  expect(existsSync(`${task.out}.partial`)).toBe(false);
});

test("a source that changes meanwhile is told of", async () => {
  const source = join(folder, "moving.safetensors");
  await copyFile(weights.transformer, source);
  const task = conversion("moved.safetensors", "bf16", { file: source });
  const emit: Store["emit"] = async () => utimesSync(source, 1, 2);
  await expect(run(task, { ...soloStore(), emit })).rejects.toThrow(
    `${source} changed while it was converted: run the same command again.`,
  );
  expect(existsSync(task.out)).toBe(false);
});

test("what has come to have the name is replaced only with overwrite", async () => {
  const task = conversion("taken.safetensors", "bf16");
  writeFileSync(task.out, "mine");
  await expect(run(task)).rejects.toMatchObject({ code: "ERR_FILE_EXISTS" });
  expect(readFileSync(task.out, "utf8")).toBe("mine");
  await run({ ...task, overwrite: true });
  expect(readFileSync(task.out).byteLength).toBeGreaterThan(100_000);
});

test.each([
  ["something else", (name: string) => writeFileSync(name, "mine".repeat(100))],
  ["a link to it", (name: string) => symlinkSync(join(folder, "mine"), name)],
  ["a folder", (name: string) => mkdirSync(name)],
])("%s under the name of what grows is kept", async (what, make) => {
  const task = conversion(`${what}.safetensors`, "bf16", { overwrite: true });
  writeFileSync(join(folder, "mine"), "mine");
  make(partialName(task.out));
  await expect(run(task)).rejects.toMatchObject({
    code: "ERR_FILE_EXISTS",
    message: expect.stringContaining(`${partialName(task.out)} is there, and is no unfinished file of ditrun`),
  });
  expect(readFileSync(join(folder, "mine"), "utf8")).toBe("mine");
  expect([existsSync(partialName(task.out)), existsSync(task.out)]).toEqual([true, false]);
});

test("a name too long for what grows is told", async () => {
  await expect(checkPartial(join(folder, "a".repeat(250)))).rejects.toMatchObject({ code: "ERR_FILE_WRITE" });
});

test("a text encoder of GGUF is converted too", async () => {
  const file = await openPart(weights.textEncoder, "text encoder");
  const tensors: Record<string, GgufTensor> = {};
  for (const name of file.names()) {
    const { shape, dtype } = file.info(name);
    tensors[name] = { type: dtype === "BF16" ? ggmlTypes.BF16 : ggmlTypes.F32, shape, data: await file.read(name) };
  }
  const path = join(folder, "umt5.gguf");
  writeFileSync(path, gguf(tensors));
  const task = conversion("umt5.safetensors", "e4m3", { file: path, model: { name: "umT5" } });
  await run(task);
  expect(await video(e4m3, { weights: { ...weights, textEncoder: task.out } })).toBe(await video(e4m3, {}));
  await file.close();
});

test("pieces of a few rows are what the whole is", async () => {
  const device = Device.open(builtKernels("cpu"), 0);
  const file = await openPart(weights.transformer, "transformer");
  const name = "blocks.0.ffn.0.weight";
  const { shape } = file.info(name);
  const parameter = { name, shape, init: { kind: "constant", value: 0 } } as const;
  const converted = conversionOf({ parameter, dtype: "e4m3", squares: true }, file.info(name), false);
  const bytesWith = async (pieceElements: number) => {
    const made = new Map(converted.tensors.map((each) => [each.name, new Uint8Array(2 ** 20)]));
    const converter = new Converter(device, file, new CheckpointWeights(device, file), [converted], pieceElements);
    let puts = 0;
    await converter.convert(converted, async (tensor, offset, bytes) => {
      puts++;
      made.get(tensor)?.set(bytes, offset);
    });
    return { puts, made };
  };
  const whole = await bytesWith(2 ** 20);
  const pieces = await bytesWith(5 * (shape[1] ?? 1) + 1);
  expect([whole.puts, pieces.puts]).toEqual([3, 3 * Math.ceil((shape[0] ?? 1) / 5)]);
  expect([...pieces.made.keys()]).toEqual([name, "blocks.0.ffn.0.weight_scale", "blocks.0.ffn.0.row_squares"]);
  for (const [tensor, bytes] of whole.made)
    expect(Buffer.from(pieces.made.get(tensor) ?? []).equals(Buffer.from(bytes)), tensor).toBe(true);
  await file.close();
  device.close();
});
