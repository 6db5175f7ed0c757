import { expect, it } from "vitest";
import type { Context } from "../../src/worker/comm/context.js";
import { rangeOf, shares } from "../../src/worker/comm/shares.js";
import { LayerNorm } from "../../src/worker/layers/norm.js";
import { WideRmsNorm } from "../../src/worker/layers/rms-norm.js";
import { relativeL2 } from "../compare.js";
import { columnsOf, draw, floats, loaderOf, onRanks, stackedColumns } from "./ranks.js";

const [rows, width] = [7, 48];

/** The body on one rank, and on the two of tp. */
async function aloneAndTogether<T>(body: (context: Context) => Promise<T>) {
  const [alone] = await onRanks({ dtype: "fp32" }, body);
  if (alone === undefined) throw new Error("One rank gives one result.");
  return { alone, together: await onRanks({ dtype: "fp32", mesh: { tp: 2 } }, body) };
}

it.for(["fp32", "e4m3"] as const)(
  "a norm whose rows are divided over the ranks gives every rank all of them, bit by bit: %s",
  async (dtype) => {
    const { alone, together } = await aloneAndTogether(async (context) => {
      const { device, tp } = context;
      const norm = await LayerNorm.load(loaderOf(context), "norm", width);
      const rowsOfRank = shares(rows, tp.size);
      const x = draw(device, "x", { ...rangeOf(rowsOfRank, tp.rank), columns: width });
      const forward = () => norm.forward(x, dtype, tp.size > 1 ? rowsOfRank : undefined);
      await context.prepare(() => {
        forward();
      });
      const { rowScale, ...values } = forward();
      return [...(await device.download(values)), ...(rowScale ? await device.download(rowScale) : [])];
    });
    expect(alone).toHaveLength(dtype === "e4m3" ? rows * (width + 4) : rows * width * 4);
    for (const result of together) expect(result).toEqual(alone);
  },
);

it("a norm over the whole width of tensors whose columns are divided takes the squares of all columns", async () => {
  const { alone, together } = await aloneAndTogether(async (context) => {
    const { device, tp } = context;
    const spec = { paths: ["q", "k"], width, split: true, epsilon: 1e-6 };
    const norm = await WideRmsNorm.load(loaderOf(context), spec);
    const own = rangeOf(shares(width, tp.size), tp.rank);
    const [q, k] = spec.paths.map((name) =>
      columnsOf(device, draw(device, name, { count: rows, columns: width }), own),
    );
    if (!q || !k) throw new Error("There are two tensors.");
    await context.prepare(() => norm.forward([q, k]));
    norm.forward([q, k]);
    return [await floats(device, q), await floats(device, k)];
  });
  for (const [index, whole] of alone.entries()) {
    const parts = together.map((result) => result[index] ?? new Float32Array());
    expect(relativeL2(stackedColumns(parts, rows), whole)).toBeLessThan(1e-6);
  }
});
