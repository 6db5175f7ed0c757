import { expect, it } from "vitest";
import type { Context } from "../../src/worker/comm/context.js";
import { rangeOf, shares } from "../../src/worker/comm/shares.js";
import { loadColumnLinear, loadRowLinear } from "../../src/worker/layers/linear.js";
import { gatherColumnsTp } from "../../src/worker/layers/split.js";
import { copy } from "../../src/worker/ops/copy.js";
import { tensorBytes } from "../../src/worker/runtime/tensor.js";
import { relativeL2 } from "../compare.js";
import { columnsOf, draw, loaderOf, onRanks, run, stacked } from "./ranks.js";

const [rows, width, hidden] = [7, 24, 40];

const one = { dtype: "fp32" } as const;
const two = { dtype: "fp32", mesh: { tp: 2 } } as const;

/** Expects the same, to rounding, on every rank as on one that is alone. */
async function expectAlike(body: (context: Context) => Promise<Float32Array>): Promise<void> {
  const [alone] = await onRanks(one, body);
  const ranks = await onRanks(two, body);
  expect(alone?.some((value) => value !== 0)).toBe(true);
  for (const result of ranks) expect(relativeL2(result, alone ?? [])).toBeLessThan(1e-6);
}

it("each rank of a column-parallel layer has its own columns, with their bias", async () => {
  await expectAlike(async (context) => {
    const { device, tp } = context;
    const layer = await loadColumnLinear(loaderOf(context), { path: "in", inFeatures: width, outFeatures: hidden });
    const x = draw(device, "x", { count: rows, columns: width });
    return run(context, () => {
      const out = device.allocate("fp32", [rows, hidden]);
      const part = tp.gatherPart(Array<number>(tp.size).fill(rows), hidden / tp.size, "fp32");
      layer.forward(x, { out: part });
      gatherColumnsTp(context, part, out);
      return out;
    });
  });
});

/** A row-parallel layer, and this rank's columns of its input. */
async function rowParallel(context: Context) {
  const { device, tp } = context;
  const layer = await loadRowLinear(loaderOf(context), { path: "out", inFeatures: hidden, outFeatures: width });
  const own = rangeOf(shares(hidden, tp.size), tp.rank);
  return { layer, x: columnsOf(device, draw(device, "y", { count: rows, columns: hidden }), own) };
}

it("a row-parallel layer adds up its ranks' shares, its bias once", async () => {
  await expectAlike(async (context) => {
    const { layer, x } = await rowParallel(context);
    return run(context, () => layer.forward(x));
  });
});

it("it adds its sum, and a gate times it, to a residual once", async () => {
  await expectAlike(async (context) => {
    const { device } = context;
    const { layer, x } = await rowParallel(context);
    const residual = draw(device, "residual", { count: rows, columns: width });
    const gate = draw(device, "gate", { count: 1, columns: width });
    return run(context, () => {
      layer.addTo(residual, x);
      layer.addGatedTo(residual, x, gate);
      return residual;
    });
  });
});

it("with sequence-parallel norms each rank keeps its own rows of the sum, in uneven shares", async () => {
  const body = async (context: Context) => {
    const { device, tp } = context;
    const { layer, x } = await rowParallel(context);
    const rowsOfRank = shares(rows, tp.size);
    const { start, count } = rangeOf(rowsOfRank, tp.rank);
    const residual = draw(device, "residual", { start, count, columns: width });
    return run(context, () => {
      const out = device.allocate("fp32", residual.shape);
      copy(device, out, residual, tensorBytes("fp32", out.shape));
      layer.addTo(out, x, tp.size > 1 ? rowsOfRank : undefined);
      return out;
    });
  };
  const [alone = []] = await onRanks(one, body);
  const parts = await onRanks(two, body);
  expect(parts.map(({ length }) => length)).toEqual([3 * width, 4 * width]);
  expect(relativeL2(stacked(parts), alone)).toBeLessThan(1e-6);
});
