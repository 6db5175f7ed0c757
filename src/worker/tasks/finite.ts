import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";

/** How many values are NaN or infinite and where the first of them is, as words; undefined if none is. */
function describeNonfinite(values: Float32Array): string | undefined {
  const first = values.findIndex((value) => !Number.isFinite(value));
  if (first < 0) return undefined;
  const count = values.reduce((sum, value) => sum + (Number.isFinite(value) ? 0 : 1), 0);
  return `${count === 1 ? "1 value that is" : `${count} values that are`} not finite, the first at index ${first}`;
}

/**
 * What a stage gave, as float32.
 * @param what it is, to begin a sentence with. @throws DitrunError when it holds a NaN or an infinity: how many, and where the first one is.
 */
export function requireFinite(what: string, output: Uint8Array): Float32Array {
  const values = toFloat32("F32", output);
  const found = describeNonfinite(values);
  if (found === undefined) return values;
  throw new DitrunError("ERR_NOT_FINITE", `${what} has ${found}: check the weights and inputs, or try --dtype fp32.`);
}

/** Refuses a tensor of an input file that holds a NaN or an infinity. @throws DitrunError with the file, the tensor and the place. */
export function requireFiniteInput(file: string, tensor: string, values: Float32Array): void {
  const found = describeNonfinite(values);
  if (found !== undefined)
    throw new DitrunError("ERR_TENSOR_VALUE", `${file}: tensor ${tensor} has ${found}: give it finite numbers.`);
}
