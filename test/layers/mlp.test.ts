import { expect, it } from "vitest";
import { toFloat32 } from "../../src/formats/numbers.js";
import { builtKernels } from "../../src/paths.js";
import { planSchema } from "../../src/plan/schema.js";
import { Context } from "../../src/worker/comm/context.js";
import { Mlp } from "../../src/worker/layers/mlp.js";
import { cast } from "../../src/worker/ops/elementwise.js";
import { layerNorm } from "../../src/worker/ops/norm.js";
import { Device } from "../../src/worker/runtime/device.js";
import type { Tensor } from "../../src/worker/runtime/tensor.js";
import { RandomWeights, wholeOf } from "../../src/worker/weights/source.js";
import { relativeL2 } from "../compare.js";
import { sequence } from "../kernels/module.js";
import { soloStore } from "../unit/worker/wan/golden.js";
import { draw, loaderOf, onRanks, run } from "./ranks.js";

const F32 = 0;
const [rows, width, hidden] = [37, 96, 320];
const weight = (path: string, shape: readonly [number, number]) =>
  ({ name: `${path}.weight`, shape, init: { kind: "uniform", bound: shape[1] ** -0.5 } }) as const;

it.each([false, true])(
  "passes e4m3 between its products (bias: %s): nothing saturates, errors are those of single roundings",
  async (bias) => {
    const device = Device.open(builtKernels("cpu"), 0);
    const plan = planSchema.parse({ dtype: "bf16", linear: { dtype: "e4m3" } });
    const context = await Context.create(device, soloStore(), plan);
    try {
      const source = new RandomWeights(device, 7);
      const mlp = await Mlp.load({ context, source, splitOf: () => "replicated" }, "gelu", {
        up: { path: "up", inFeatures: width, outFeatures: hidden, bias },
        down: { path: "down", inFeatures: hidden, outFeatures: width, bias: false },
      });
      const x = device.allocatePersistent("fp32", [rows, width]);
      // A row of one large number becomes, normalised, one number near √width: the bound is then as tight as it gets.
      const values = Float32Array.from(sequence(rows * width, F32, 1));
      values.fill(0, 0, 2 * width);
      values[width + 5] = 1e4;
      await device.upload(x, new Uint8Array(values.buffer));
      const normalised = device.allocatePersistent("fp32", x.shape);
      const result = device.allocatePersistent("fp32", x.shape);
      const kept = device.allocatePersistent("fp32", [rows, hidden]);
      await device.upload(result, new Uint8Array(4 * rows * width));
      let insideDtype = "";
      const forward = () =>
        device.arena.scope(() => {
          layerNorm(device, normalised, x, { epsilon: 1e-6 });
          const bound = mlp.boundOf(rows);
          const h = device.allocateMatrix(mlp.inputDtype, [rows, width]);
          layerNorm(device, h, x, { bound, epsilon: 1e-6 });
          const inside = mlp.inside(h, bound);
          insideDtype = inside.dtype;
          cast(device, kept, inside);
          mlp.down.addTo(result, inside);
        });
      await context.prepare(forward);
      forward();
      const read = async (tensor: Tensor) => toFloat32("F32", await device.download(tensor));

      expect([mlp.inputDtype, insideDtype]).toEqual(["e4m3", "e4m3"]);
      const stored = await read(kept);
      const largest = Array.from({ length: rows }, (_, row) =>
        Math.max(...stored.subarray(row * hidden, (row + 1) * hidden).map(Math.abs)),
      );
      // A row of zeros holds the bias alone.
      expect((largest[0] ?? 0) > 0).toBe(bias);
      expect(Math.max(...largest)).toBeLessThan(448);
      expect(Math.min(...largest.slice(1))).toBeGreaterThan(448 / 50);

      const offset = { name: "up.bias", shape: [hidden], init: { kind: "uniform", bound: width ** -0.5 } } as const;
      const parameters = [weight("up", [hidden, width]), weight("down", [width, hidden]), offset] as const;
      const [up, down, biases] = await Promise.all(
        parameters.map(async (parameter) => {
          const out = device.allocatePersistent("fp32", parameter.shape);
          await source.load(parameter, wholeOf(parameter), out);
          return read(out);
        }),
      );
      if (!up || !down || !biases) throw new Error("There are two weights and a bias.");
      const product = (a: Float64Array | Float32Array, w: Float32Array, n: number, k: number) =>
        Float64Array.from({ length: rows * n }, (_, index) => {
          let sum = 0;
          for (let i = 0; i < k; i++) sum += (a[Math.floor(index / n) * k + i] ?? 0) * (w[(index % n) * k + i] ?? 0);
          return sum;
        });
      // The tanh form of GELU is within 5e-4 of the exact one.
      const gelu = (v: number) => v / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
      const inside = product(await read(normalised), up, hidden, width);
      if (bias) for (const [i, value] of inside.entries()) inside[i] = value + (biases[i % hidden] ?? 0);
      const want = product(inside.map(gelu), down, width, hidden);
      expect(relativeL2(await read(result), want)).toBeLessThan(0.06);
    } finally {
      await context.close();
      device.close();
    }
  },
);

it("gives two ranks what one gives: its inside is divided by columns, its output summed", async () => {
  const forward = async (context: Context) => {
    const mlp = await Mlp.load(loaderOf(context), "gelu", {
      up: { path: "in", inFeatures: width, outFeatures: hidden },
      down: { path: "out", inFeatures: hidden, outFeatures: width },
    });
    const x = draw(context.device, "x", { count: rows, columns: width });
    return run(context, () => mlp.down.forward(mlp.inside(x)));
  };
  const [alone = []] = await onRanks({ dtype: "fp32" }, forward);
  const ranks = await onRanks({ dtype: "fp32", mesh: { tp: 2 } }, forward);
  for (const result of ranks) expect(relativeL2(result, alone)).toBeLessThan(1e-6);
});
