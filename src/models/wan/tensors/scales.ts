import { z } from "zod";
import { DitrunError } from "../../../failure.js";
import { isPlainDtype } from "../../../formats/dtypes.js";
import { toFloat32 } from "../../../formats/numbers.js";
import { shown } from "../../../formats/shown.js";
import { describe, elementsOf, type Scale, type TensorFile } from "../../../formats/tensor-file.js";
import { refuse } from "./strangers.js";

/** How a file's quantised weights are scaled, found from the tensors beside them. */
export interface Scales {
  /** By name of the weight, without prefix. */
  readonly of: ReadonlyMap<string, Scale>;
  /** Sums of squares of rows, of ditrun's own files. */
  readonly squares: ReadonlyMap<string, Float32Array>;
  /** Names of scales, and of what belongs to them and is not needed, with why not. */
  readonly accounted: ReadonlyMap<string, string | undefined>;
  /** In words; undefined where nothing is scaled. */
  readonly dialect: string | undefined;
}

const marker = "scaled_fp8";
/** What ComfyUI's formats are stored in, where a product with one scale gives the weight. */
const comfyFormats: Readonly<Record<string, string>> = {
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
  int8_tensorwise: "I8",
};
const comfyQuant = z.looseObject({ format: z.string(), full_precision_matrix_mult: z.boolean().optional() });
const headerLayers = z.object({ layers: z.record(z.string(), comfyQuant) });
const quantised: readonly string[] = ["F8_E4M3", "F8_E5M2", "I8"];

/**
 * Reads the scales of a file's weights, in each of their dialects:
 * `X.scale_weight` beside the marker `scaled_fp8` (ComfyUI until 2025, Kijai), `X.weight_scale` beside `X.comfy_quant` or the header's
 * `_quantization_metadata` (ComfyUI since), `X.weight_scale` alone (LightX2V: one for each row; ModelOpt: one).
 * Scales of activations are left out: ditrun finds them for each row.
 * @param names of the file's tensors below `prefix`, without it.
 * @throws DitrunError for a format that is not a product with scales, and for scales that are missing or left over.
 */
export async function readScales(file: TensorFile, prefix: string, names: ReadonlySet<string>): Promise<Scales> {
  const of = new Map<string, Scale>();
  const squares = new Map<string, Float32Array>();
  const accounted = new Map<string, string | undefined>();
  const seen = new Set<string>();
  const dtypeOf = (name: string) => file.info(prefix + name).dtype;
  const formats = headerFormats(file, prefix);

  for (const name of names) {
    const [, module, suffix] =
      /^(?:(.*)\.)?(scale_weight|weight_scale|scale_input|input_scale|comfy_quant|scaled_fp8|row_squares)$/.exec(
        name,
      ) ?? [];
    if (suffix === undefined) continue;
    if (name === marker) accounted.set(name, "the mark of scaled fp8");
    else if (module === undefined) continue;
    else if (suffix === "scale_input" || suffix === "input_scale")
      accounted.set(name, "scales of activations, which ditrun finds for each row");
    else if (suffix === "comfy_quant") {
      accounted.set(name, "the names of formats");
      formats.set(module, parseFormat(file, prefix + name, new TextDecoder().decode(await file.read(prefix + name))));
    } else {
      const weight = `${module}.weight`;
      if (!names.has(weight) || !quantised.includes(dtypeOf(weight)))
        throw new DitrunError(
          "ERR_TENSOR_UNKNOWN",
          `${file.path}: ${prefix}${name} is a scale, but ${names.has(weight) ? `its weight is ${dtypeOf(weight)}` : "there is no such weight"}; download the file again.`,
        );
      const scale = await readScale(file, prefix + name, prefix + weight);
      accounted.set(name, undefined);
      if (suffix === "row_squares") squares.set(weight, scale.values);
      else {
        of.set(weight, scale);
        seen.add(suffix);
      }
    }
  }
  for (const [module, format] of formats) {
    const weight = `${module}.weight`;
    const dtype = comfyFormats[format];
    if (!names.has(weight) || dtypeOf(weight) !== dtype || !of.has(weight))
      throw new DitrunError(
        "ERR_TENSOR_UNKNOWN",
        `${file.path}: ${prefix}${weight} should be ${dtype} with a weight_scale, as its format ${format} says; download the file again.`,
      );
  }
  // Without its scales such a model makes white videos.
  for (const name of names) {
    const dtype = dtypeOf(name);
    const needed = dtype === "I8" || (quantised.includes(dtype) && names.has(marker));
    if (needed && !of.has(name) && name !== marker)
      throw new DitrunError(
        "ERR_TENSOR_MISSING",
        `${file.path}: ${prefix}${name} is ${dtype} and should have a scale, but has none; download the file again.`,
      );
  }
  return { of, squares, accounted, dialect: dialectOf(seen, of, formats.size > 0) };
}

function dialectOf(seen: ReadonlySet<string>, of: Scales["of"], formats: boolean): string | undefined {
  if (seen.has("scale_weight")) return "ComfyUI's and Kijai's scaled fp8 (scale_weight)";
  if (formats) return "ComfyUI's formats by layer (comfy_quant)";
  if (!seen.has("weight_scale")) return undefined;
  return [...of.values()].some(({ rows }) => rows === "each")
    ? "LightX2V's scales for each row (weight_scale)"
    : "ModelOpt's scales (weight_scale)";
}

/** One number, or one for each row of the weight, float32. */
async function readScale(file: TensorFile, name: string, weight: string): Promise<Scale> {
  const { dtype, shape } = file.info(name);
  const rows = file.info(weight).shape[0] ?? 1;
  const count = elementsOf(shape);
  const each = count === rows && shape[0] === rows && file.info(weight).shape.length === 2;
  if (!isPlainDtype(dtype) || !["F32", "F16", "BF16", "F64"].includes(dtype) || !(count === 1 || each))
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${file.path}: ${name} is ${describe({ dtype, shape })}; a scale has one value, or one for each of ${rows} rows: take another file of the model.`,
    );
  const values = toFloat32(dtype, await file.read(name)).slice();
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong !== undefined)
    throw new DitrunError(
      "ERR_TENSOR_VALUE",
      `${file.path}: ${name} holds the scale ${wrong}; download the file again.`,
    );
  return { rows: count === 1 ? "one" : "each", values };
}

/** Formats by module, without prefix; the header names layers with the file's prefix, or with none. */
function headerFormats(file: TensorFile, prefix: string): Map<string, string> {
  const text = file.about.metadata.get("_quantization_metadata");
  const formats = new Map<string, string>();
  if (typeof text !== "string") return formats;
  const layers = headerLayers.safeParse(parseJson(text)).data?.layers;
  if (layers === undefined)
    throw new DitrunError("ERR_CHECKPOINT_UNSUPPORTED", `${file.path}: its _quantization_metadata cannot be read.`);
  for (const [layer, settings] of Object.entries(layers)) {
    const own = layer.startsWith(prefix) ? layer.slice(prefix.length) : layer;
    // Layers of the other parts of an all-in-one file have other prefixes.
    if (file.has(`${prefix}${own}.weight`)) formats.set(own, checkFormat(file, layer, settings));
  }
  return formats;
}

function parseFormat(file: TensorFile, name: string, text: string): string {
  const settings = comfyQuant.safeParse(parseJson(text));
  if (settings.success) return checkFormat(file, name, settings.data);
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `${file.path}: ${name} names no format (${shown(text)}): take another file of the model.`,
  );
}

function checkFormat(file: TensorFile, name: string, settings: z.infer<typeof comfyQuant>): string {
  const { format, full_precision_matrix_mult: _, ...more } = settings;
  const instead = "an fp8 or GGUF file of the same model";
  if (!Object.hasOwn(comfyFormats, format))
    refuse(file.path, `in the format ${shown(format)}`, `${name} says so`, instead);
  for (const [key, value] of Object.entries(more))
    if (value !== false && value !== null)
      refuse(file.path, `in the format ${format} with ${shown(key)}`, `${name} says so`, instead);
  return format;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
