import { DitrunError } from "../../failure.js";
import { openTensors } from "../../formats/open-tensors.js";
import { elementsOf, type TensorFile } from "../../formats/tensor-file.js";
import type { WanModel } from "../schema.js";
import { configBeside, modelOfFile } from "./find-config.js";
import { isLora, partOf, partsOf } from "./tensors/open-part.js";
import { textEncoderFacts, vaeFacts } from "./tensors/other-facts.js";
import type { Part } from "./tensors/spellings.js";
import { headsOf, sizeName, transformerFacts, wanTasks } from "./tensors/transformer-facts.js";
import { hasTokenizer } from "./text/tokenizer-source.js";

/** A part of a model as a file holds it. */
export interface InspectedPart {
  readonly part: Part;
  /** What it is, in words: `14B, text-to-video`. */
  readonly what: string;
  /** Whose names its tensors have. */
  readonly layout: string;
  readonly prefix: string;
  /** How its weights are scaled, in words; null where they are not. */
  readonly dialect: string | null;
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
  /** Tensors by dtype. */
  readonly dtypes: Readonly<Record<string, number>>;
  /** Names of tensors that are not used, by the rule that ignores them. */
  readonly ignored: Readonly<Record<string, readonly string[]>>;
  /** A text encoder with its tokenizer inside. */
  readonly tokenizer: boolean;
  /** Of a text-to-video transformer, for what depends on its sizes. */
  readonly model: WanModel | undefined;
}

export interface InspectedFile {
  readonly file: string;
  readonly format: string | null;
  readonly parts: readonly InspectedPart[];
  /** Why the file, or a part of it, cannot be used; undefined where it can. */
  readonly problem: DitrunError | undefined;
}

/** What a file is, from its header alone. Never throws a DitrunError: the result has it. */
export async function inspectFile(path: string): Promise<InspectedFile> {
  let format: string | null = null;
  const parts: InspectedPart[] = [];
  try {
    const file = await openTensors(path);
    try {
      format = file.about.format;
      const found = [...new Set(partsOf(file).map(({ spelling }) => spelling.part))];
      // With the sentence for what it is instead.
      if (found.length === 0 && !isLora(file)) await partOf(file, "transformer");
      if (found.length === 0)
        throw new DitrunError(
          "ERR_CHECKPOINT_UNSUPPORTED",
          `${path} is a LoRA of ${file.names().length} tensors, and no model: give it with --lora.`,
        );
      for (const part of found) parts.push(await inspectPart(path, file, part));
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof DitrunError) return { file: path, format, parts, problem: error };
    throw error;
  }
  return { file: path, format, parts, problem: undefined };
}

async function inspectPart(path: string, file: TensorFile, part: Part): Promise<InspectedPart> {
  const tensors = await partOf(file, part);
  const { spelling, prefix, dialect, ignored } = tensors.recognised;
  const dtypes: Record<string, number> = {};
  let parameters = 0;
  let bytes = 0;
  for (const name of tensors.names()) {
    const info = tensors.info(name);
    dtypes[info.dtype] = (dtypes[info.dtype] ?? 0) + 1;
    parameters += elementsOf(info.shape);
    bytes += info.byteLength;
  }
  return {
    ...{ part, layout: spelling.layout, prefix, dialect: dialect ?? null },
    ...{ tensors: tensors.names().length, parameters, bytes, dtypes, ignored: Object.fromEntries(ignored) },
    ...(await about(path, tensors, part)),
    tokenizer: part === "text encoder" && hasTokenizer(file),
  };
}

async function about(path: string, file: TensorFile, part: Part): Promise<Pick<InspectedPart, "what" | "model">> {
  if (part === "transformer") {
    const facts = transformerFacts(file);
    const what = `${sizeName(facts)}, ${wanTasks[facts.task]}`;
    // Of other sizes somebody must say how many heads there are, with --model.
    const known = facts.config ?? (await configBeside(path)) ?? Number.isInteger(headsOf(facts.width));
    return { what, model: facts.task === "t2v" && known ? (await modelOfFile(path)).model : undefined };
  }
  if (part === "text encoder") {
    const { layers, width, vocabulary } = textEncoderFacts(file);
    return { what: `umT5, ${layers} layers of width ${width}, ${vocabulary} tokens`, model: undefined };
  }
  if (part === "VAE") {
    const { latentChannels } = vaeFacts(file);
    return {
      what: `the VAE of Wan ${latentChannels === 48 ? "2.2 TI2V-5B" : "2.1"}, ${latentChannels} channels`,
      model: undefined,
    };
  }
  return { what: "CLIP, of Wan 2.1's image-to-video models", model: undefined };
}
