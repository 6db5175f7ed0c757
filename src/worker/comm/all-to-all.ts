import { matrixShape, type Tensor, tensorBytes } from "../runtime/tensor.js";
import type { Group } from "./group.js";

/** A part that goes to a rank, and the place for what comes from it. */
export interface Exchange {
  readonly rank: number;
  readonly part: Tensor;
  readonly out: Tensor;
}

/** The parts and outs of Group.allToAll, this rank's own and the others', in rank order. @throws RangeError as said there. */
export function exchangesOf(
  { rank: own, size }: Pick<Group, "rank" | "size">,
  parts: readonly Tensor[],
  outs: readonly Tensor[],
): { readonly own: Exchange; readonly others: readonly Exchange[] } {
  if (parts.length !== size || outs.length !== size) {
    throw new RangeError(
      `allToAll: a group of ${size} takes ${size} parts and as many outs, not ${parts.length} and ${outs.length}.`,
    );
  }
  const all = parts.flatMap((part, rank) => {
    const out = outs[rank];
    return out ? [{ rank, part, out }] : [];
  });
  const kept = all.find(({ rank }) => rank === own);
  if (!kept) throw new RangeError(`allToAll: the group of ${size} has no rank ${own}.`);
  const [part, out] = [describe(kept.part), describe(kept.out)];
  if (part !== out) {
    throw new RangeError(`allToAll: rank ${own}'s own part is ${part}, its out ${out}: they must be alike.`);
  }
  return { own: kept, others: all.filter(({ rank }) => rank !== own) };
}

function describe(x: Tensor): string {
  const { rows, columns } = matrixShape(x);
  return `${x.dtype} [${rows}, ${columns}]`;
}

/** Bytes of a part as it travels, without gaps between its rows. */
export function partBytes({ dtype, shape }: Tensor): number {
  return tensorBytes(dtype, shape);
}

/** A matrix of this shape and dtype that lies there without gaps. */
export function packedAt(address: number, { dtype, shape }: Tensor): Tensor {
  return { address, dtype, shape, rowStride: shape.at(-1) ?? 1 };
}
