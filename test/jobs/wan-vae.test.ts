import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../src/formats/numbers.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { relativeL2 } from "../compare.js";
import { Crews } from "./crews.js";

const golden = "test/golden/data/wan/case.safetensors";
const layouts = {
  original: "test/golden/data/wan/original/Wan2.1_VAE.pth",
  diffusers: "test/golden/data/wan/diffusers/vae/diffusion_pytorch_model.safetensors",
};

const crews = Crews.ofFile();
let folder: string;
let outputs = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function read(path: string, tensor: string): Promise<{ values: Float32Array; shape: readonly number[] }> {
  const file = await openSafetensors(path);
  try {
    const { dtype, shape } = file.info(tensor);
    return { values: toFloat32(dtype, await file.read(tensor)), shape };
  } finally {
    await file.close();
  }
}

interface Run {
  layout: keyof typeof layouts;
  workers: number;
  direction: "decode" | "encode";
  input: string;
  clamp?: boolean;
  plan?: PlanDocument;
}

/** One task on real CPU workers; the result has the golden tensor's shape. */
async function run({ layout, workers, direction, input, clamp = false, plan }: Run, expectedShape: readonly number[]) {
  const output = join(folder, `output-${outputs++}.safetensors`);
  await crews.run(
    {
      kind: "wan-vae",
      model: { name: "golden", weights: { from: "file", file: layouts[layout] } },
      plan: planSchema.parse({ dtype: "fp32", mesh: { cp: workers }, ...plan }),
      direction,
      input: { from: "file", file: golden, tensor: input },
      clamp,
      // The second time, nothing may be left of the first, and its frames are a graph that the first captured.
      iterations: 2,
      output,
    },
    workers,
  );
  const { values, shape } = await read(output, "output");
  expect(shape).toEqual(expectedShape);
  return values;
}

describe("the golden Wan VAE on CPU workers, fp32", () => {
  const whole = new Map<string, Float32Array>();

  for (const layout of ["original", "diffusers"] as const) {
    it(`decodes from the ${layout} layout, one worker`, async () => {
      const { values, shape } = await read(golden, "vae.decode.noise");
      const result = await run({ layout, workers: 1, direction: "decode", input: "noise" }, shape);
      expect(relativeL2(result, values)).toBeLessThan(1e-4);
      whole.set(layout, result);
    });

    it(`encodes from the ${layout} layout`, async () => {
      const { values, shape } = await read(golden, "vae.encode.output");
      const result = await run({ layout, workers: 1, direction: "encode", input: "vae.encode.input" }, shape);
      expect(relativeL2(result, values)).toBeLessThan(1e-4);
    });
  }

  // 8 latent rows: three workers hold uneven strips, eight hold one row each.
  it.for([2, 3, 4, 8])("decodes over %i workers as over one", async (workers) => {
    const { shape } = await read(golden, "vae.decode.noise");
    const result = await run({ layout: "original", workers, direction: "decode", input: "noise" }, shape);
    const single = whole.get("original");
    if (!single) throw new Error("one worker's decode failed");
    expect(relativeL2(result, single)).toBeLessThan(1e-5);
  });

  it("leaves workers beyond the number of rows without work", async () => {
    const input = { layout: "diffusers", direction: "decode", input: "vae.encode.output" } as const;
    const shape = [3, 9, 32, 48];
    const single = await run({ ...input, workers: 1 }, shape);
    expect(relativeL2(await run({ ...input, workers: 6 }, shape), single)).toBeLessThan(1e-5);
  });

  it("clamps pixels to [-1, 1]", async () => {
    const { values, shape } = await read(golden, "vae.decode.noise");
    expect(values.some((value) => value > 1)).toBe(true);
    const input = { layout: "original", direction: "decode", input: "noise" } as const;
    const result = await run({ ...input, workers: 2, clamp: true }, shape);
    expect(
      relativeL2(
        result,
        values.map((value) => Math.min(1, Math.max(-1, value))),
      ),
    ).toBeLessThan(1e-4);
  });

  it("encodes the same whatever the number of workers", async () => {
    const { values, shape } = await read(golden, "vae.encode.output");
    const input = { layout: "original", direction: "encode", input: "vae.encode.input" } as const;
    expect(relativeL2(await run({ ...input, workers: 2 }, shape), values)).toBeLessThan(1e-4);
  });
});

describe("the golden Wan VAE on CPU workers in 16 bits", () => {
  const input = { layout: "original", direction: "decode", input: "noise" } as const;

  // Measured against float32: 1.22e-2 in bf16, 1.48e-3 in fp16. Between layouts no bit differs: on a CPU a pixel's sums have one order.
  it.for([
    ["bf16", 3.7e-2],
    ["fp16", 4.4e-3],
  ] as const)("%s: three workers as one, to the bit", async ([dtype, limit]) => {
    const { values, shape } = await read(golden, "vae.decode.noise");
    const plan: PlanDocument = { dtype: "bf16", vae: { dtype } };
    const alone = await run({ ...input, workers: 1, plan }, shape);
    const shared = await run({ ...input, workers: 3, plan: { ...plan, mesh: { cp: 3 } } }, shape);
    expect(relativeL2(alone, values)).toBeLessThan(limit);
    expect(relativeL2(alone, values)).toBeGreaterThan(limit / 9);
    expect(relativeL2(shared, alone)).toBe(0);
  });
});

describe("the Wan VAE and bad input", () => {
  it("names the tensor that is no latent", async () => {
    const task = { layout: "original", workers: 1, direction: "decode", input: "vae.encode.input" } as const;
    await expect(run(task, [])).rejects.toThrow(/vae\.encode\.input has the shape \[3, 9, 32, 48\]/);
  });
});
