import { DitrunError } from "../../../failure.js";
import type { TensorFile } from "../../../formats/tensor-file.js";
import { configIn, type WanConfig } from "./config-metadata.js";
import { openPart } from "./open-part.js";
import { refuseChannels } from "./strangers.js";

/** What a transformer's tensors tell of it. Its heads they do not tell: see headsOf. */
export interface TransformerFacts {
  readonly width: number;
  readonly ffn: number;
  readonly layers: number;
  /** Channels of the latent that go in, with those of an image and its mask, and that come out. */
  readonly inputs: number;
  readonly outputs: number;
  readonly textWidth: number;
  readonly freqDim: number;
  /** Blocks of VACE's control branch; 0 for all other models. */
  readonly vaceLayers: number;
  readonly task: WanTask;
  /** What the file's metadata say of it, as in the published config.json. */
  readonly config?: WanConfig | undefined;
}

export const wanTasks = {
  t2v: "text-to-video (Wan 2.1, or half of Wan 2.2 A14B)",
  i2v: "image-to-video (Wan 2.1)",
  flf2v: "first-and-last-frame-to-video (Wan 2.1)",
  vace: "video editing (Wan 2.1 VACE)",
  "vace-module": "the control branch of Wan 2.1 VACE alone",
  "i2v-a14b": "image-to-video (half of Wan 2.2 A14B)",
  ti2v: "text- and image-to-video (Wan 2.2 TI2V-5B)",
} as const;
export type WanTask = keyof typeof wanTasks;

/** Published models by width and blocks. */
const published: readonly (readonly [width: number, layers: number, name: string])[] = [
  [1536, 30, "1.3B"],
  [5120, 40, "14B"],
  [3072, 30, "5B"],
];

/** Whether published models have these sizes. */
export function isPublished({ width, layers }: Pick<TransformerFacts, "width" | "layers">): boolean {
  return published.some(([w, l]) => w === width && l === layers);
}

/** `14B`, or the sizes in words. */
export function sizeName({ width, layers }: Pick<TransformerFacts, "width" | "layers">): string {
  const found = published.find(([w, l]) => w === width && l === layers);
  return found?.[2] ?? `${layers} blocks of width ${width}`;
}

/** Of all published models; where a configuration is beside the weights, it says. */
export function headsOf(width: number): number {
  return width / 128;
}

/**
 * Sizes and task of a transformer with the names of the published code.
 * @throws DitrunError when tensors are missing, or it is of a kind that ditrun does not know.
 */
export function transformerFacts(file: TensorFile): TransformerFacts {
  const has = (name: string) => file.has(name);
  const blocks = countBlocks(file, "blocks");
  const vaceLayers = countBlocks(file, "vace_blocks");
  if (!has("head.modulation") && vaceLayers > 0) {
    const [width = 0] = file.info("vace_patch_embedding.weight").shape;
    const [ffn = 0] = file.info("vace_blocks.0.ffn.0.weight").shape;
    const rest = { inputs: 16, outputs: 16, textWidth: 4096, freqDim: 256 };
    return { width, ffn, layers: 0, ...rest, vaceLayers, task: "vace-module" };
  }
  for (const name of needed) file.info(name);
  const [width = 0, inputs = 0] = file.info("patch_embedding.weight").shape;
  const [ffn = 0] = file.info("blocks.0.ffn.0.weight").shape;
  const [head = 0] = file.info("head.head.weight").shape;
  const [, textWidth = 0] = file.info("text_embedding.0.weight").shape;
  const [, freqDim = 0] = file.info("time_embedding.0.weight").shape;
  const outputs = head / 4;
  const image = has("img_emb.proj.0.bias");
  refuseChannels(file.path, { inputs, outputs, width, image });
  const task = vaceLayers > 0 ? "vace" : image ? (has("img_emb.emb_pos") ? "flf2v" : "i2v") : taskBy(inputs);
  const config = configIn(file);
  return { width, ffn, layers: blocks, inputs, outputs, textWidth, freqDim, vaceLayers, task, config };
}

/** The same of a file. @throws DitrunError also when the transformer is of another task than text-to-video. */
export async function textToVideoFacts(path: string): Promise<TransformerFacts> {
  const file = await openPart(path, "transformer");
  try {
    const facts = transformerFacts(file);
    if (facts.task === "t2v") return facts;
    if (facts.task === "vace-module")
      throw new DitrunError(
        "ERR_CHECKPOINT_UNSUPPORTED",
        `${path} is the control branch of Wan 2.1 VACE alone, an overlay on a ${facts.width === 1536 ? "1.3B" : "14B"} text-to-video transformer; ditrun does not edit videos: give the transformer itself with --transformer.`,
      );
    throw new DitrunError(
      "ERR_CHECKPOINT_UNSUPPORTED",
      `${path} is a transformer for ${wanTasks[facts.task]}, and ditrun runs Wan 2.1 text-to-video: take Wan-AI/Wan2.1-T2V-1.3B or -14B.`,
    );
  } finally {
    await file.close();
  }
}

function taskBy(inputs: number): WanTask {
  if (inputs === 48) return "ti2v";
  return inputs === 36 ? "i2v-a14b" : "t2v";
}

/** Outside the blocks. */
const needed = [
  ...["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"],
  ...["time_projection.1", "head.head"],
].flatMap((path) => [`${path}.weight`, `${path}.bias`]);

/** Blocks are numbered from 0 on, and each has what block 0 has. @throws DitrunError naming the first tensor that is missing. */
function countBlocks(file: TensorFile, stem: "blocks" | "vace_blocks"): number {
  const blocks = new Map<number, Set<string>>();
  for (const name of file.names()) {
    const [, index, own] = new RegExp(`^${stem}\\.(\\d+)\\.(.*)$`).exec(name) ?? [];
    if (own === undefined) continue;
    const block = blocks.get(Number(index)) ?? new Set();
    blocks.set(Number(index), block.add(own));
  }
  const count = Math.max(-1, ...blocks.keys()) + 1;
  // Only the first of VACE's blocks has the layer that takes the tokens in.
  const all = [...(blocks.get(0) ?? [])].filter((own) => !own.startsWith("before_proj."));
  for (let index = 0; index < count; index++) {
    const missing = all.find((own) => !blocks.get(index)?.has(own));
    if (missing !== undefined || all.length === 0)
      throw new DitrunError(
        "ERR_TENSOR_MISSING",
        `${file.path} lacks the tensor ${stem}.${index}.${missing ?? "…"}, although it has ${stem}.${count - 1}: it is part of a model, or damaged; download it again.`,
      );
  }
  return count;
}
