import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../../../failure.js";
import type { LoraRole } from "../../../formats/lora-names.js";
import { toFloat32 } from "../../../formats/numbers.js";
import { describe, type TensorFile } from "../../../formats/tensor-file.js";

/** What PEFT writes of an adapter. Its patterns give single modules another alpha. */
const configSchema = z.looseObject({
  lora_alpha: z.number().optional(),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
});
type Config = z.infer<typeof configSchema>;

type Modules = ReadonlyMap<string, Partial<Record<LoraRole, string>>>;

/**
 * What each module's product is multiplied with: alpha / rank, where the rank is the module's own. Its alpha is a tensor beside it, else
 * what PEFT's configuration says: in the header, or in adapter_config.json beside a file of PEFT's name. Without any it is the rank.
 * With use_rslora it is alpha / √rank (arXiv 2312.03732).
 * @throws DitrunError for an alpha that is no number, and for DoRA.
 */
export async function readAlphas(file: TensorFile, modules: Modules): Promise<(module: string) => number> {
  const config = await configOf(file);
  if (config.use_dora === true)
    throw new DitrunError(
      "ERR_LORA",
      `${file.path} is a DoRA by its configuration, and ditrun applies plain LoRA, LoHa and LoKr: merge it with the program that made it, and give the result to --transformer.`,
    );
  const scales = new Map<string, number>();
  for (const [module, parts] of modules) {
    // LyCORIS takes the rank of the second factor, and without any no alpha counts.
    const down = parts.down ?? parts.hada1Down ?? parts.kron2Down ?? parts.kron1Down;
    if (down === undefined) continue;
    const { alpha: tensor } = parts;
    const rank = file.info(down).shape[0] ?? 1;
    const alpha = tensor === undefined ? alphaBy(config, module) : await readAlpha(file, tensor);
    const root = tensor === undefined && config.use_rslora === true;
    scales.set(module, alpha === undefined ? 1 : alpha / (root ? Math.sqrt(rank) : rank));
  }
  return (module) => scales.get(module) ?? 1;
}

function alphaBy({ lora_alpha: alpha, alpha_pattern: patterns }: Config, module: string): number | undefined {
  // PEFT takes the first key that is the end of a module's path, as a regular expression.
  for (const [pattern, own] of Object.entries(patterns ?? {})) {
    if (module === pattern || module.endsWith(`.${pattern}`)) return own;
  }
  return alpha;
}

/** One number of any dtype: trainers write float32, bfloat16 and int64. @throws DitrunError */
async function readAlpha(file: TensorFile, name: string): Promise<number> {
  const info = file.info(name);
  const refuse = (why: string): never => {
    throw new DitrunError("ERR_LORA", `${file.path}: ${name} is ${describe(info)}, ${why}.`);
  };
  if (info.shape.some((length) => length !== 1)) refuse("but an alpha is one number");
  const bytes = await file.read(name);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const value = numberIn(view, info.dtype) ?? toFloat32(info.dtype, bytes)[0] ?? Number.NaN;
  return Number.isFinite(value) ? value : refuse(`whose value is ${value}`);
}

function numberIn(view: DataView, dtype: string): number | undefined {
  if (dtype === "I64") return Number(view.getBigInt64(0, true));
  if (dtype === "U64") return Number(view.getBigUint64(0, true));
  if (dtype === "I32") return view.getInt32(0, true);
  if (dtype === "U32") return view.getUint32(0, true);
  if (dtype === "I16") return view.getInt16(0, true);
  if (dtype === "U16") return view.getUint16(0, true);
  if (dtype === "I8") return view.getInt8(0);
  return dtype === "U8" ? view.getUint8(0) : undefined;
}

async function configOf(file: TensorFile): Promise<Config> {
  const text = file.about.metadata.get("lora_adapter_metadata");
  if (typeof text === "string") return diffusersConfig(parse(file.path, "lora_adapter_metadata", text));
  if (!/^adapter_model\./.test(basename(file.path))) return {};
  const path = join(dirname(file.path), "adapter_config.json");
  const beside = await readFile(path, "utf8").catch(() => undefined);
  return beside === undefined ? {} : read(path, parse(path, "it", beside));
}

/** diffusers prefixes each key with the model's name: `transformer.lora_alpha`. */
function diffusersConfig(value: unknown): Config {
  const all = z.looseObject({}).safeParse(value).data ?? {};
  const entries = Object.entries(all).map(([key, each]) => [key.replace(/^transformer(?:_2)?\./, ""), each]);
  return read("lora_adapter_metadata", Object.fromEntries(entries));
}

function parse(path: string, what: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new DitrunError("ERR_LORA", `${path}: ${what} is no JSON, so the LoRA's alpha is unknown.`);
  }
}

function read(path: string, value: unknown): Config {
  const parsed = configSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new DitrunError(
    "ERR_LORA",
    `${path}: ${issue?.path.join(".")} is not what PEFT writes, so the LoRA's alpha is unknown: ${issue?.message}.`,
  );
}
