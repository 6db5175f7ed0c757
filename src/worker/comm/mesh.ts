import type { Plan } from "../../plan/schema.js";

/**
 * The axes of the mesh, fastest first, so that the ranks of tp sit closest: rank = ((cfg · ring + r) · ulysses + u) · tp + t.
 * Context parallelism (a plan's cp) is ring × ulysses.
 */
export const axes = ["tp", "ulysses", "ring", "cfg"] as const;
export type Axis = (typeof axes)[number];

/** The ranks along each axis, fastest axis first. */
export type Mesh = readonly { readonly axis: Axis; readonly size: number }[];

/** The groups that a rank belongs to, each by the axes along which its ranks lie. NCCL makes them in this order. */
export const groupAxes = {
  world: axes,
  cfg: ["cfg"],
  cp: ["ulysses", "ring"],
  ring: ["ring"],
  ulysses: ["ulysses"],
  tp: ["tp"],
} as const satisfies Record<string, readonly Axis[]>;
export type GroupName = keyof typeof groupAxes;
export const groupNames = ["world", "cfg", "cp", "ring", "ulysses", "tp"] as const satisfies readonly GroupName[];

/** The mesh of a plan. All of cp is a ring. */
export function meshOf({ cfg, cp, tp }: Plan["mesh"]): Mesh {
  const sizes: Record<Axis, number> = { tp, ulysses: 1, ring: cp, cfg };
  return axes.map((axis) => ({ axis, size: sizes[axis] }));
}

/** How many ranks a mesh has. */
export function ranksOf(mesh: Mesh): number {
  return mesh.reduce((product, { size }) => product * size, 1);
}

/** World ranks, in ascending order, of the group along these axes that `rank` belongs to. */
export function ranksAlong(along: readonly Axis[], mesh: Mesh, rank: number): number[] {
  let ranks = [rank];
  let stride = 1;
  for (const { axis, size } of mesh) {
    if (along.includes(axis)) {
      const [step, coordinate] = [stride, Math.floor(rank / stride) % size];
      const along = Array.from({ length: size }, (_, index) => (index - coordinate) * step);
      ranks = along.flatMap((offset) => ranks.map((each) => each + offset));
    }
    stride *= size;
  }
  return ranks;
}
