import { counted } from "../../text.js";
import { threeDigits } from "../figures.js";
import { difference } from "../statistics.js";

/** How one tensor of two dumps differs. */
export interface TensorDifference {
  readonly name: string;
  /** Where it stands: `step 3`, `block.4.ffn at step 1`, or its name. */
  readonly where: string;
  readonly shape: readonly number[];
  readonly relL2: number | null;
  readonly maxAbs: number | null;
  /** dB, of the first dump's range of values; null where they are equal or not finite. */
  readonly psnr: number | null;
  readonly equal: boolean;
}

export interface DumpComparison {
  readonly kind: "dumps";
  /** In the order in which they were computed. */
  readonly tensors: readonly TensorDifference[];
  /** Of only one of both. */
  readonly onlyA: readonly string[];
  readonly onlyB: readonly string[];
  /** The largest relative difference, in per cent; null where some are not finite. */
  readonly differencePercent: number | null;
  readonly firstApart: string | null;
  readonly verdict: string;
}

/** Texts, then layers and steps, then the video: as ditrun's dumps are computed. */
function placeOf(name: string): readonly [number, number, string] {
  const number = Number(/\d+/.exec(name)?.[0] ?? 0);
  if (name === "text" || name.startsWith("context")) return [0, 0, name];
  if (name === "t" || name === "latent" || name === "img" || name === "y") return [1, 0, name];
  if (name.startsWith("layer.")) return [2, number, name];
  if (name.startsWith("latent.")) return [3, number, name];
  return [4, number, name];
}

/** Names in the order in which what they hold was computed. */
export function inOrder(names: readonly string[]): string[] {
  return names.toSorted((x, y) => {
    const [a, b] = [placeOf(x), placeOf(y)];
    return a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2]);
  });
}

/** What a tensor of a dump is, for people. */
export function whereOf(name: string): string {
  const [, step] = /^latent\.(\d+)$/.exec(name) ?? [];
  if (step !== undefined) return `step ${Number(step) + 1}`;
  const [, slot, layer] = /^layer\.\d+\.(\w+)\.(.+)$/.exec(name) ?? [];
  return slot === undefined || layer === undefined ? name : `${layer}, ${slot}`;
}

/** One tensor of both. */
export function tensorDifference(
  name: string,
  shape: readonly number[],
  a: Float32Array,
  b: Float32Array,
): TensorDifference {
  const { relL2, maxAbs } = difference(b, a);
  const equal = a.every((value, i) => Object.is(value, b[i]));
  let [least, most, squares] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
  a.forEach((value, i) => {
    [least, most] = [Math.min(least, value), Math.max(most, value)];
    squares += ((b[i] ?? Number.NaN) - value) ** 2;
  });
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  const psnr = finite(10 * Math.log10((most - least) ** 2 / (squares / a.length)));
  return { name, where: whereOf(name), shape, relL2: finite(relL2), maxAbs: finite(maxAbs), psnr, equal };
}

export function dumpComparison(
  tensors: readonly TensorDifference[],
  onlyA: readonly string[],
  onlyB: readonly string[],
): DumpComparison {
  const first = tensors.find(({ equal }) => !equal);
  const values = tensors.map(({ relL2 }) => relL2);
  const known = values.filter((value) => value !== null);
  const differencePercent = known.length === values.length ? 100 * Math.max(0, ...known) : null;
  const last = tensors.at(-1);
  const missing = onlyA.length + onlyB.length;
  const rest =
    missing === 0 ? "" : `; ${counted(missing, "tensor")} ${missing === 1 ? "is" : "are"} in one of them only`;
  const verdict =
    tensors.length === 0
      ? "the dumps have no tensor in common."
      : first === undefined
        ? `the dumps are equal in ${tensors.length === 1 ? "their one tensor" : `all ${tensors.length} tensors`}${rest}.`
        : `they part at ${first.where}${first.relL2 === null ? ", where values are not finite" : `, by ${threeDigits(100 * first.relL2)} %`}${
            last && last !== first && last.relL2 !== null
              ? `; ${last.where} differs by ${threeDigits(100 * last.relL2)} %`
              : ""
          }${rest}.`;
  return { ...{ kind: "dumps", tensors, onlyA, onlyB, differencePercent }, firstApart: first?.where ?? null, verdict };
}
