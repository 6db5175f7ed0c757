import { DitrunError } from "../../../failure.js";
import { isAdapterName } from "../../../formats/lora-names.js";
import { openTensors } from "../../../formats/open-tensors.js";
import type { TensorFile } from "../../../formats/tensor-file.js";
import { counted } from "../../../text.js";
import { CanonicalTensors, type Stored } from "./canonical-tensors.js";
import { readScales } from "./scales.js";
import { type Part, type Spelling, spellings, vaceModule } from "./spellings.js";
import { refuseCausal, refuseStrangers } from "./strangers.js";

/** A part of a model that a file holds, and what stands before the names of its tensors. */
export interface FoundPart {
  readonly spelling: Spelling;
  readonly prefix: string;
}

/** Whether a file's tensors change another model's. */
export function isLora(file: TensorFile): boolean {
  return file.names().some(isAdapterName);
}

/** The parts that a file holds, by the names of its tensors. */
export function partsOf(file: TensorFile): FoundPart[] {
  const names = file.names();
  const found = spellings.flatMap((spelling) => foundBy(spelling, names));
  const module = found.some(({ spelling }) => spelling.part === "transformer") ? [] : foundBy(vaceModule, names);
  return [...found, ...module];
}

function foundBy(spelling: Spelling, names: readonly string[]): FoundPart[] {
  const ends = names.filter((name) => name === spelling.anchor || name.endsWith(`.${spelling.anchor}`));
  return ends.map((name) => ({ spelling, prefix: name.slice(0, -spelling.anchor.length) }));
}

/**
 * Opens a file and finds one part of a Wan model in it, under the names of the published code and with the scales of its weights. The
 * file may have other parts beside it. Each of its tensors is used, or ignored by a rule that the result names.
 * @throws DitrunError when the part is not there, or is of a kind that ditrun does not run; when a tensor is unknown or a scale is missing.
 */
export async function openPart(path: string, part: Part): Promise<CanonicalTensors> {
  const file = await openTensors(path);
  try {
    return await partOf(file, part);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The same of a file that is open; closing the result closes it. */
export async function partOf(file: TensorFile, part: Part): Promise<CanonicalTensors> {
  const all = partsOf(file);
  const found = all.filter(({ spelling }) => spelling.part === part);
  const [own, second] = found;
  if (own === undefined) throw notThere(file, part, all);
  if (second !== undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_AMBIGUOUS",
      `${file.path} has two of it: a ${part} below "${own.prefix}" and one below "${second.prefix}"; save the one that you mean alone.`,
    );
  const { spelling, prefix } = own;
  const ignored = new Map<string, string[]>();
  const ignore = (rule: string, name: string) => ignored.set(rule, [...(ignored.get(rule) ?? []), name]);
  const below = new Set<string>();
  for (const name of file.names()) {
    const owner = longestPrefix(all, name);
    const rule = outsideRule(name);
    if (owner === own) below.add(name.slice(prefix.length));
    else if (owner === undefined && rule === undefined) throw unknown(file, part, name);
    else if (owner === undefined && rule !== undefined) ignore(rule, name);
  }
  refuseStrangers(file.path, [...below]);
  if (part === "transformer") refuseCausal(file.path, prefix);
  const scales = await readScales(file, prefix, below);
  const tensors = new Map<string, Stored>();
  for (const name of below) {
    const rule = scales.accounted.get(name) ?? outsideRule(name) ?? ruleOf(part, name, below);
    if (rule !== undefined) ignore(rule, prefix + name);
    if (rule !== undefined || scales.accounted.has(name)) continue;
    const canonical = spelling.canonical(aliasOf(name, below));
    if (canonical === undefined) throw unknown(file, part, prefix + name);
    const before = tensors.get(canonical);
    if (before !== undefined)
      throw new DitrunError(
        "ERR_TENSOR_UNKNOWN",
        `${file.path}: ${before.name} and ${prefix}${name} are the same tensor, ${canonical}; take a file that has it once.`,
      );
    const quantised = { scale: scales.of.get(name), squares: scales.squares.get(name) };
    tensors.set(canonical, { ...storedAs(file, prefix + name, canonical), ...quantised });
  }
  return new CanonicalTensors(file, tensors, { ...own, part, dialect: scales.dialect, ignored });
}

/** A part's prefix may be the beginning of another's; the empty one is that of all names. */
function longestPrefix(parts: readonly FoundPart[], name: string): FoundPart | undefined {
  const owners = parts.filter(({ prefix }) => name.startsWith(prefix));
  return owners.sort((a, b) => b.prefix.length - a.prefix.length)[0];
}

/** rCM stores the patch embedding as the matrix that it is. */
function storedAs(file: TensorFile, name: string, canonical: string): Stored {
  const { shape } = file.info(name);
  const [rows = 1, columns = 1] = shape;
  const flat = canonical === "patch_embedding.weight" && shape.length === 2 && columns % 4 === 0;
  return { name, ...(flat && { shape: [rows, columns / 4, 1, 2, 2] }) };
}

function unknown(file: TensorFile, part: Part, name: string): DitrunError {
  return new DitrunError(
    "ERR_TENSOR_UNKNOWN",
    `${file.path}: no ${part} that ditrun knows has a tensor ${name}; take a file of the model as it was published.`,
  );
}

/** Tensors that are no part of any model, and what they are. */
function outsideRule(name: string): string | undefined {
  if (/^(?:optimizer|optimizer_states|lr_schedulers?|ema_optimizer)\./.test(name)) return "the state of a training run";
  return name === "scaled_fp8" ? "the mark of scaled fp8" : undefined;
}

/** Tensors that Wan does not need, and why not. */
function ruleOf(part: Part, name: string, all: ReadonlySet<string>): string | undefined {
  if (part === "text encoder") {
    if (name === "spiece_model") return "the tokenizer";
    if (name === "encoder.embed_tokens.weight" && all.has("shared.weight"))
      return "the table of tokens, which is there twice";
    if (/^(?:decoder\.|lm_head\.)/.test(name)) return "the decoder of umT5";
  }
  if (part === "image encoder") {
    if (/^(?:textual\.|text_model\.|text_projection\.|log_scale$|logit_scale$)/.test(name))
      return "CLIP's text encoder";
    if (name.endsWith(".position_ids")) return "positions, which are counted";
  }
  return undefined;
}

/** The table of tokens may go by its other name alone. */
function aliasOf(name: string, all: ReadonlySet<string>): string {
  return name === "encoder.embed_tokens.weight" && !all.has("shared.weight") ? "shared.weight" : name;
}

/** Options that take each part, for messages. */
export const optionOf: Readonly<Record<Part, string | undefined>> = {
  transformer: "--transformer",
  "text encoder": "--text-encoder",
  VAE: "--vae",
  "image encoder": undefined,
};

function notThere(file: TensorFile, part: Part, all: readonly FoundPart[]): DitrunError {
  const [other] = all;
  const names = file.names();
  if (isLora(file))
    return new DitrunError("ERR_CHECKPOINT_UNSUPPORTED", `${file.path} is a LoRA, not a ${part}: give it with --lora.`);
  // Before anything is said of its names: a quantised file may lack all that tells a model.
  refuseStrangers(file.path, names);
  if (other) {
    const option = optionOf[other.spelling.part];
    return new DitrunError(
      "ERR_CHECKPOINT_UNSUPPORTED",
      `${file.path} is a ${other.spelling.part}, not a ${part}${option === undefined ? "" : `: give it with ${option}`}.`,
    );
  }
  const examples = names.slice(0, 2).join(" and ");
  return new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `${file.path} is no ${part} of a Wan model: it has ${counted(names.length, "tensor")}${examples === "" ? "" : `, such as ${examples}`}.`,
  );
}
