import type { TensorInfo } from "../../../../src/formats/tensor-file.js";
import { decoded, kinds } from "../../../kernels/stored.js";

/** A tensor's values in float32: stored values times the scale, each product rounded once. */
export function decode({ dtype, shape, scale }: TensorInfo, bytes: Uint8Array): Float32Array {
  const kind = kinds.find((each) => each === dtype);
  if (!kind) throw new Error(`${dtype} is no kind of number that weights have.`);
  const values = Float32Array.from(decoded(kind, bytes));
  if (!scale) return values;
  const columns = values.length / (shape[0] ?? 1);
  return values.map(
    (value, i) => value * (scale.values[scale.rows === "one" ? 0 : Math.floor(i / columns)] ?? Number.NaN),
  );
}
