import { builtKernels } from "../../src/paths.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { Context } from "../../src/worker/comm/context.js";
import type { Range } from "../../src/worker/comm/shares.js";
import type { Loader } from "../../src/worker/layers/linear.js";
import { copyRows } from "../../src/worker/ops/copy.js";
import { Device } from "../../src/worker/runtime/device.js";
import { matrixShape, type Tensor } from "../../src/worker/runtime/tensor.js";
import { fillRandom, RandomWeights } from "../../src/worker/weights/source.js";
import { makeStores } from "../unit/worker/in-process-ranks.js";

// Layers and groups on all ranks of a plan at once, in this process, on the CPU module.

/** Runs the body on every rank of a plan's mesh. @param hosts the number of the host where each rank is said to be. @returns what each gives, in rank order. */
export async function onRanks<T>(
  document: PlanDocument,
  body: (context: Context) => Promise<T>,
  hosts?: readonly number[],
): Promise<T[]> {
  const plan = planSchema.parse(document);
  const stores = makeStores(meshSize(plan.mesh));
  const ranks = await Promise.all(
    stores.map(async (store, rank) => {
      const device = Device.open(builtKernels("cpu"), rank);
      const context = await Context.create(device, store, plan, hosts);
      return { context, device, result: await body(context) };
    }),
  );
  // Only after success: ranks that failed leave streams that wait for ever.
  await Promise.all(ranks.map(({ context }) => context.close()));
  for (const { device } of ranks) device.close();
  return ranks.map(({ result }) => result);
}

/** Measures a forward, runs it, and returns what its result (float32) holds. */
export async function run(context: Context, forward: () => Tensor): Promise<Float32Array> {
  await context.prepare(() => {
    forward();
  });
  return floats(context.device, forward());
}

export async function floats(device: Device, x: Tensor): Promise<Float32Array> {
  return new Float32Array((await device.download(x)).buffer);
}

/** Rows start … start + count of a random float32 matrix of this name with so many columns: the same matrix on every rank. */
export function draw(
  device: Device,
  name: string,
  { start = 0, count, columns, size = 1 }: { start?: number; count: number; columns: number; size?: number },
): Tensor {
  const out = device.allocatePersistent("fp32", [count, columns]);
  const init = { kind: "uniform", bound: size } as const;
  if (count > 0) fillRandom(device, { out, seed: 5, name, fullColumns: columns, row0: start, init });
  return out;
}

/** Random weights, and the splits of a pair of layers: `in` by column, `out` by row. */
export function loaderOf(context: Context): Loader {
  const source = new RandomWeights(context.device, 3);
  return { context, source, splitOf: (path) => (path === "in" ? "column" : path === "out" ? "row" : "replicated") };
}

/** Rows of several ranks, one below the other. */
export function stacked(parts: readonly Float32Array[]): Float32Array {
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

/** Some columns of a float32 matrix, without gaps. */
export function columnsOf(device: Device, x: Tensor, { start, count }: Range): Tensor {
  const { rows, columns } = matrixShape(x);
  const out = device.allocatePersistent("fp32", [rows, count]);
  const [from, bytes] = [x.address + 4 * start, 4 * count];
  copyRows(
    device,
    { address: out.address, pitch: bytes },
    { address: from, pitch: 4 * columns },
    { rows, rowBytes: bytes },
  );
  return out;
}

/** Columns of several ranks side by side. */
export function stackedColumns(parts: readonly Float32Array[], rows: number): Float32Array {
  return stacked(
    Array.from({ length: rows }, (_, row) => row).flatMap((row) =>
      parts.map((part) => part.subarray((row * part.length) / rows, ((row + 1) * part.length) / rows)),
    ),
  );
}
