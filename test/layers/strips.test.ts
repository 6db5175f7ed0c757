import { expect, it } from "vitest";
import type { PlanDocument } from "../../src/plan/schema.js";
import { CausalConv3d, type ConvSpec } from "../../src/worker/models/wan/vae/conv.js";
import { Strip } from "../../src/worker/models/wan/vae/strip.js";
import { copy } from "../../src/worker/ops/copy.js";
import { relativeL2 } from "../compare.js";
import { draw, loaderOf, onRanks, run } from "./ranks.js";

const [frames, rows, width, channels] = [3, 5, 6, 4];

/** Each rank's rows of a convolution over a video's rows: exactly those of the whole, in rank order. */
async function convolve(document: PlanDocument, spec: Pick<ConvSpec, "kernel" | "upsample">): Promise<Float32Array[]> {
  return onRanks({ dtype: "fp32", ...document }, async (context) => {
    const { device, world } = context;
    const loader = { ...loaderOf(context), dtype: "fp32" as const };
    const side = "outside" as const;
    const layer = { path: "conv", inChannels: channels, outChannels: 3, side, ...spec };
    const conv = await CausalConv3d.load(loader, layer);
    const strip = new Strip(rows, world, world.halo());
    const { start, count } = strip.own;
    const parts = Array.from({ length: frames }, (_, frame) =>
      draw(device, `frame ${frame}`, { start: start * width, count: count * width, columns: channels }),
    );
    return run(context, () => {
      // Twice: a rank may be one exchange ahead of its neighbour.
      const outs = [0, 1].map(() => {
        const x = strip.allocate(device, "fp32", [frames, count, width, channels]);
        for (const [frame, part] of parts.entries()) {
          const to = strip.frame(x, frame);
          copy(device, to, part, 4 * count * width * channels);
        }
        const out = device.allocate("fp32", conv.outShape([frames, count, width]));
        conv.forward(x, strip, out);
        conv.reset();
        return out;
      });
      return outs[1] ?? parts[0] ?? device.allocate("fp32", [1]);
    });
  });
}

/** Rows of strips [frames, rows of each rank, …] put together. */
function together(parts: readonly Float32Array[]): Float32Array {
  const frame = (part: Float32Array, index: number) =>
    part.subarray((index * part.length) / frames, ((index + 1) * part.length) / frames);
  const values = Array.from({ length: frames }, (_, index) => parts.flatMap((part) => [...frame(part, index)]));
  return Float32Array.from(values.flat());
}

const specs = [{ kernel: [3, 3, 3] }, { kernel: [1, 3, 3], upsample: 2 }] as const satisfies readonly Pick<
  ConvSpec,
  "kernel" | "upsample"
>[];

it.for([
  [2, "peer"],
  [3, "peer"],
  [2, "nccl"],
] as const)("a convolution over the rows of %i ranks over %s is that of the whole", async ([ranks, transport]) => {
  for (const spec of specs) {
    const [alone = new Float32Array()] = await convolve({}, spec);
    const strips = await convolve({ mesh: { cp: ranks }, ring: { transport } }, spec);
    expect(relativeL2(together(strips), alone)).toBeLessThan(1e-6);
  }
});
