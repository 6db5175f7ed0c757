import { basename } from "node:path";
import { DitrunError } from "../../failure.js";
import { marksOf, requireMarks } from "../../files/file-mark.js";
import { openTensors } from "../../formats/open-tensors.js";
import { PartialSafetensors } from "../../formats/partial-safetensors.js";
import { layOut } from "../../formats/safetensors-layout.js";
import type { TensorFile } from "../../formats/tensor-file.js";
import { splitOf, textEncoderLayerRules, wanLayerRules } from "../../models/layer-rules.js";
import { openLora } from "../../models/wan/lora/open-lora.js";
import { writtenConfig } from "../../models/wan/tensors/config-metadata.js";
import { partOf } from "../../models/wan/tensors/open-part.js";
import { textEncoderFacts } from "../../models/wan/tensors/other-facts.js";
import type { WanConvertTask } from "../../protocol/job.js";
import type { WanConvertRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import { TextEncoder } from "../models/wan/text-encoder.js";
import { WanTransformer } from "../models/wan/transformer.js";
import type { Store } from "../store.js";
import { CheckpointWeights } from "../weights/checkpoint.js";
import { type Conversion, Converter, conversionOf } from "../weights/conversion.js";
import { type LaidLora, LoraWeights } from "../weights/lora-weights.js";
import { type Asked, NotedSource } from "../weights/noted-source.js";
import { whileOpen } from "../weights/while-open.js";
import type { Frame } from "./frame.js";
import { tell } from "./stage-clock.js";

/** A tensor that ComfyUI keeps a text encoder's tokenizer in. */
const tokenizer = "spiece_model";
/** Tokens of a prompt: no weight depends on them. */
const TEXT_LENGTH = 512;

/** Writes one part of a model as it is loaded under the task's plan, so that the new file is loaded without any conversion. */
export function runWanConvert(frame: Frame, task: WanConvertTask, store: Store): Promise<WanConvertRank> {
  return frame.alone(task.plan, store, async (context) => {
    const began = performance.now();
    const { transformer: model } = task.model;
    const { name } = context.device.info;
    const file = await openTensors(task.file);
    const laid: LaidLora[] = [];
    try {
      const part = await partOf(file, model ? "transformer" : "text encoder");
      if (model)
        for (const { file: path, strength } of task.loras ?? [])
          laid.push({ ...(await openLora(path, model)), strength });
      const asked = await askedOf(context, task, part);
      requireAll(part, asked);
      const changed = (name: string) => laid.some(({ changes }) => changes.has(name));
      const conversions = asked.map((each) => {
        const { name: parameter } = each.parameter;
        return conversionOf(each, part.info(parameter), changed(parameter));
      });
      const base = new CheckpointWeights(context.device, part);
      const source = laid.length === 0 ? base : new LoraWeights(context.device, base, laid);
      const converter = new Converter(context.device, part, source, conversions);
      const bytes = await whileOpen(context.device, { close: async () => {} }, () =>
        writeFile(file, [part, ...laid.map((lora) => lora.file)], conversions, converter, task, name, store),
      );
      return { rank: store.rank, device: name, bytes, milliseconds: performance.now() - began };
    } finally {
      await file.close();
      for (const { file: lora } of laid) await lora.close();
    }
  });
}

/** What the model loads, in its order. */
async function askedOf(context: Context, { model, file }: WanConvertTask, part: TensorFile): Promise<Asked[]> {
  const source = new NotedSource();
  const rules = model.transformer ? wanLayerRules : textEncoderLayerRules;
  const loader = { context, source, splitOf: (path: string) => splitOf(context.plan, rules, path) };
  await context.device.rehearse(async () => {
    const { transformer } = model;
    if (!transformer) await TextEncoder.load(loader, textEncoderFacts(part), TEXT_LENGTH);
    else {
      const [, textWidth] = part.info("text_embedding.0.weight").shape;
      if (textWidth === undefined) throw new DitrunError("ERR_TENSOR_SHAPE", `${file}: text_embedding.0 is no matrix.`);
      const { patch } = transformer;
      await WanTransformer.load(loader, transformer, textWidth, { frames: 1, height: patch, width: patch });
    }
  });
  return [...source.asked.values()];
}

/** @throws DitrunError for a tensor that the model does not have, which the new file would lack. */
function requireAll(part: TensorFile, asked: readonly Asked[]): void {
  const known = new Set(asked.map(({ parameter }) => parameter.name));
  const other = part.names().find((name) => !known.has(name));
  if (other === undefined) return;
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `${part.path} has ${other}, which ditrun does not compute with, so nothing is converted: take a file of the model as it was published.`,
  );
}

/** Writes the new file. @returns its bytes. @throws DitrunError where it cannot be written, or a file has changed meanwhile. */
async function writeFile(
  file: TensorFile,
  sources: readonly TensorFile[],
  conversions: readonly Conversion[],
  converter: Converter,
  task: WanConvertTask,
  device: string,
  store: Store,
): Promise<number> {
  const tensors = new Map(conversions.flatMap((each) => each.tensors.map((made) => [made.name, made] as const)));
  const own = task.model.transformer === undefined && file.has(tokenizer) ? file.info(tokenizer) : undefined;
  if (own) tensors.set(tokenizer, { name: tokenizer, dtype: own.dtype, shape: own.shape });
  const layout = layOut(task.out, tensors, metadataOf(task));
  const paths = [...new Set(sources.flatMap((each) => each.names().map((name) => each.place(name).path)))];
  const marks = await marksOf(paths);
  const total = conversions.reduce((sum, { bytes }) => sum + bytes, 0);
  // Sums of a GPU and of a CPU differ in their last bits.
  const madeOf = JSON.stringify([device, task.plan, task.loras ?? [], [...marks]]);
  const began = performance.now();
  await PartialSafetensors.write(task.out, layout, { madeOf, overwrite: task.overwrite }, async (out) => {
    let done = conversions.slice(0, out.done).reduce((sum, { bytes }) => sum + bytes, 0);
    const report = () => tell(store, { stage: "convert", done, total, milliseconds: performance.now() - began });
    await report();
    for (const conversion of conversions.slice(out.done)) {
      await converter.convert(conversion, (name, offset, bytes) => out.add(name, offset, bytes));
      await out.count();
      done += conversion.bytes;
      await report();
    }
    if (own) await out.add(tokenizer, 0, await file.read(tokenizer));
    await requireMarks(marks, "changed while it was converted: run the same command again");
  });
  return layout.bytes;
}

/** What the new file says of itself: of what it was made, and what its tensors do not tell. */
function metadataOf({ file, loras = [], to, model, by }: WanConvertTask): Record<string, string> {
  const { transformer } = model;
  return {
    format: "pt",
    converted_by: by,
    converted_to: to,
    converted_from: basename(file),
    ...(loras.length > 0 && {
      loras: JSON.stringify(loras.map((lora) => ({ file: basename(lora.file), strength: lora.strength }))),
    }),
    ...(transformer && { config: writtenConfig(transformer) }),
  };
}
