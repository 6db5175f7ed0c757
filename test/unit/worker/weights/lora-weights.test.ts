import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bf16ToFloat32, float32ToBf16 } from "../../../../src/formats/numbers.js";
import { openSafetensors, type TensorData, writeSafetensors } from "../../../../src/formats/safetensors.js";
import type { WanModel } from "../../../../src/models/schema.js";
import { parameterShapes } from "../../../../src/models/wan/lora/modules.js";
import { describeLora, openLora } from "../../../../src/models/wan/lora/open-lora.js";
import { builtKernels } from "../../../../src/paths.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { CheckpointWeights } from "../../../../src/worker/weights/checkpoint.js";
import { type LaidLora, LoraWeights } from "../../../../src/worker/weights/lora-weights.js";
import { type Part, wholeOf } from "../../../../src/worker/weights/source.js";
import { dyadic, type Pair, pairOf, product, type Stored, stored, writeWithMetadata } from "../../../lora.js";

const model: WanModel = {
  ...{ kind: "wan", name: "small", width: 8, ffn: 12, heads: 2, layers: 2, channels: 2, patch: 2, freqDim: 4 },
  ...{ textLength: 4, epsilon: 1e-6 },
  textEncoder: { vocabulary: 8, width: 6, ffn: 8, heads: 1, headDim: 6, layers: 1 },
};
const shapes = parameterShapes(model);
const shapeOf = (name: string) => (shapes.get(name) ?? []).map((length) => length ?? 0);
const count = (shape: readonly number[]) => shape.reduce((all, each) => all * each, 1);
const linears = [...shapes.keys()].flatMap((name) => {
  const [, module] = /^(blocks\.\d+\..*(?:attn\.[qkvo]|ffn\.\d))\.weight$/.exec(name) ?? [];
  return module === undefined ? [] : [module];
});
const [rank, alpha] = [4, 2];
const pairs = new Map<string, Pair>(
  linears.map((module, index) => {
    const [rows = 0, columns = 0] = shapeOf(`${module}.weight`);
    return [module, pairOf(rows, columns, rank, 10 * index + 100)];
  }),
);
const base = new Map([...shapes.keys()].map((name, index) => [name, dyadic(count(shapeOf(name)), index)]));

let folder: string;
let device: Device;
let source: CheckpointWeights;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  device = Device.open(builtKernels("cpu"), 0);
  const tensors = [...base].map(([name, values]) => [name, stored("F32", shapeOf(name), values)] as const);
  await writeSafetensors(join(folder, "base.safetensors"), Object.fromEntries(tensors));
  source = new CheckpointWeights(device, await openSafetensors(join(folder, "base.safetensors")));
});
afterAll(async () => {
  await source.close();
  device.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A file with all pairs under some names. `scaled`: up is alpha / rank as large, where no alpha says so. */
function pairsNamed(
  name: (module: string) => string,
  [down, up]: readonly [string, string],
  { dtype = "F32", scaled = false, alphaAs }: { dtype?: Stored; scaled?: boolean; alphaAs?: TensorData } = {},
): Record<string, TensorData> {
  const tensors: Record<string, TensorData> = {};
  for (const [module, pair] of pairs) {
    const [rows = 0, columns = 0] = shapeOf(`${module}.weight`);
    tensors[name(module) + down] = stored(dtype, [rank, columns], pair.down);
    tensors[name(module) + up] = stored(
      dtype,
      [rows, rank],
      pair.up.map((x) => (scaled ? (x * alpha) / rank : x)),
    );
    if (alphaAs) tensors[`${name(module)}.alpha`] = alphaAs;
  }
  return tensors;
}

async function lay(file: string, strength = 1): Promise<LaidLora> {
  return { ...(await openLora(file, model)), strength };
}

/** A part of a parameter with LoRAs laid over it. */
async function load(loras: readonly LaidLora[], name: string, part?: Part, dtype: "fp32" | "bf16" = "fp32") {
  const parameter = { name, shape: shapeOf(name), init: { kind: "constant", value: 0 } as const };
  const wanted = part ?? wholeOf(parameter);
  const rows = wanted.rows.reduce((sum, range) => sum + range.count, 0);
  const out = device.allocatePersistent(dtype, [rows, wanted.columns.count]);
  await new LoraWeights(device, source, loras).load(parameter, wanted, out);
  await device.synchronize();
  const { buffer } = await device.download(out);
  return dtype === "fp32" ? new Float32Array(buffer) : bf16ToFloat32(new Uint16Array(buffer));
}

/** The float32 nearest to base + factor · up · down. */
function merged(module: string, factor: number): Float32Array {
  const pair = pairs.get(module);
  if (!pair) throw new Error(`There is no pair for ${module}.`);
  const own = base.get(`${module}.weight`);
  return Float32Array.from(product(pair), (x, i) => (own?.[i] ?? NaN) + factor * x);
}

async function expectAll(file: string, strength = 1, factor = (strength * alpha) / rank): Promise<void> {
  const lora = await lay(join(folder, file), strength);
  for (const module of linears) expect(await load([lora], `${module}.weight`), module).toEqual(merged(module, factor));
  await lora.file.close();
}

const write = (file: string, tensors: Record<string, TensorData>) => writeSafetensors(join(folder, file), tensors);

const diffusers = (module: string) =>
  module
    .replace(/self_attn/, "attn1")
    .replace(/cross_attn/, "attn2")
    .replace(/(attn\d)\.([qkv])$/, "$1.to_$2")
    .replace(/(attn\d)\.o$/, "$1.to_out.0")
    .replace(/ffn\.0$/, "ffn.net.0.proj")
    .replace(/ffn\.2$/, "ffn.net.2");
const under = (module: string) => module.replaceAll(".", "_");
const peft = [".lora_A.weight", ".lora_B.weight"] as const;
const kohya = [".lora_down.weight", ".lora_up.weight"] as const;
const alphaF32 = { alphaAs: stored("F32", [], [alpha]) };
const scaled = { scaled: true };

const spellings: Record<string, () => Record<string, TensorData>> = {
  "PEFT pairs of ComfyUI": () => pairsNamed((m) => `diffusion_model.${m}`, peft, scaled),
  "alpha in float32": () => pairsNamed((m) => `diffusion_model.${m}`, kohya, alphaF32),
  "alpha in float16, [1]": () =>
    pairsNamed((m) => `diffusion_model.${m}`, kohya, { alphaAs: stored("F16", [1], [alpha]) }),
  "alpha in bfloat16": () => pairsNamed((m) => `diffusion_model.${m}`, kohya, { alphaAs: stored("BF16", [], [alpha]) }),
  "alpha in int64": () => pairsNamed((m) => `diffusion_model.${m}`, kohya, { alphaAs: stored("I64", [], [alpha]) }),
  "factors in float16": () => pairsNamed((m) => `diffusion_model.${m}`, kohya, { dtype: "F16", ...alphaF32 }),
  "factors in bfloat16": () => pairsNamed((m) => `diffusion_model.${m}`, kohya, { dtype: "BF16", ...alphaF32 }),
  diffusers: () => pairsNamed((m) => `transformer.${diffusers(m)}`, peft, scaled),
  "diffusers' lora_linear_layer": () =>
    pairsNamed(
      (m) => `transformer.${diffusers(m)}`,
      [".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"],
      scaled,
    ),
  "kohya and musubi, all underscores": () => pairsNamed((m) => `lora_unet_${under(m)}`, kohya, alphaF32),
  "kohya, half dotted": () => pairsNamed((m) => `lora_unet_${m.replace(/^blocks\./, "blocks_")}`, kohya, alphaF32),
  "VideoX-Fun": () => pairsNamed((m) => `lora_unet__${under(m)}`, kohya, alphaF32),
  DiffSynth: () => pairsNamed((m) => `pipe.dit.${m}`, [".lora_A.default.weight", ".lora_B.default.weight"], scaled),
  "no prefix": () => pairsNamed((m) => m, peft, scaled),
  LyCORIS: () => pairsNamed((m) => `lycoris_${under(m)}`, kohya, alphaF32),
  "NAME_lora.down": () => pairsNamed((m) => `diffusion_model.${m}_lora`, [".down.weight", ".up.weight"], scaled),
  "NAME.lora.down": () => pairsNamed((m) => `diffusion_model.${m}`, [".lora.down.weight", ".lora.up.weight"], scaled),
  "no .weight": () => pairsNamed((m) => `diffusion_model.${m}`, [".lora_A", ".lora_B"], scaled),
};

describe("a LoRA laid over weights", () => {
  it.for(Object.entries(spellings))("is base + alpha / rank · up · down: %s", async ([name, tensors]) => {
    const file = `${name.replace(/\W+/g, "-")}.safetensors`;
    await write(file, tensors());
    await expectAll(file);
    expect(await describeLora({ file: join(folder, file), strength: 1 }, model)).toMatch(
      `at strength 1: ${linears.length} of ${linears.length} weights changed.`,
    );
  });

  it("takes its strength, also a negative one", async () => {
    await write(
      "strength.safetensors",
      pairsNamed((m) => m, kohya, alphaF32),
    );
    await expectAll("strength.safetensors", -0.5);
  });

  it("takes alpha from the header of diffusers' files and from PEFT's configuration, over the root of the rank too", async () => {
    const config = { "transformer.r": 4, "transformer.lora_alpha": alpha, "transformer.use_rslora": false };
    await writeWithMetadata(
      join(folder, "header.safetensors"),
      pairsNamed((m) => `transformer.${diffusers(m)}`, peft),
      { format: "pt", lora_adapter_metadata: JSON.stringify(config) },
    );
    await expectAll("header.safetensors");
    for (const [rslora, factor] of [
      [false, alpha / rank],
      [true, alpha / Math.sqrt(rank)],
    ] as const) {
      const file = `peft-${rslora}/adapter_model.safetensors`;
      mkdirSync(join(folder, dirname(file)));
      await write(
        file,
        pairsNamed((m) => `base_model.model.${m}`, peft),
      );
      const beside = { peft_type: "LORA", r: rank, lora_alpha: alpha, use_rslora: rslora };
      writeFileSync(join(folder, dirname(file), "adapter_config.json"), JSON.stringify(beside));
      await expectAll(file, 1, factor);
    }
  });

  it("divides alpha by the rank of each layer", async () => {
    const tensors: Record<string, TensorData> = {};
    const expected = new Map<string, Float32Array>();
    for (const [index, module] of linears.entries()) {
      const [rows = 0, columns = 0] = shapeOf(`${module}.weight`);
      const pair = pairOf(rows, columns, 2 ** (index % 4), index);
      tensors[`${module}.lora_A.weight`] = stored("F32", [pair.rank, columns], pair.down);
      tensors[`${module}.lora_B.weight`] = stored("F32", [rows, pair.rank], pair.up);
      tensors[`${module}.alpha`] = stored("F32", [], [alpha]);
      const own = base.get(`${module}.weight`);
      expected.set(
        module,
        Float32Array.from(product(pair), (x, i) => (own?.[i] ?? NaN) + (alpha / pair.rank) * x),
      );
    }
    await write("ranks.safetensors", tensors);
    const lora = await lay(join(folder, "ranks.safetensors"));
    for (const module of linears) expect(await load([lora], `${module}.weight`)).toEqual(expected.get(module));
    await lora.file.close();
  });

  it("adds and replaces whole tensors: weights, biases, norms, modulation; at half strength half way", async () => {
    const [q, table, norm] = ["blocks.1.self_attn.q.bias", "blocks.0.modulation", "blocks.0.norm3.weight"];
    const added = { q: dyadic(8, 1), table: dyadic(48, 2), norm: dyadic(8, 3), head: dyadic(64, 4) };
    const put = { text: dyadic(48, 5), bias: dyadic(8, 6) };
    await write("whole.safetensors", {
      "diffusion_model.blocks.1.self_attn.q.diff_b": stored("F32", [8], added.q),
      "diffusion_model.blocks.0.diff_m": stored("F32", [1, 6, 8], added.table),
      "diffusion_model.blocks.0.norm3.diff": stored("BF16", [8], added.norm),
      "diffusion_model.head.head.diff": stored("F32", [8, 8], added.head),
      "diffusion_model.text_embedding.0.set_weight": stored("F32", [8, 6], put.text),
      "diffusion_model.text_embedding.0.set_bias": stored("F32", [8], put.bias),
    });
    const path = join(folder, "whole.safetensors");
    for (const strength of [1, 0.5]) {
      const lora = await lay(path, strength);
      for (const [name, by] of [
        [q, added.q],
        [table, added.table],
        [norm, added.norm],
        ["head.head.weight", added.head],
      ] as const) {
        const sum = Float32Array.from(by, (x, i) => (base.get(name)?.[i] ?? NaN) + strength * x);
        expect(await load([lora], name), name).toEqual(sum);
      }
      for (const [name, by] of [
        ["text_embedding.0.weight", put.text],
        ["text_embedding.0.bias", put.bias],
      ] as const) {
        const mean = Float32Array.from(by, (x, i) => strength * x + (1 - strength) * (base.get(name)?.[i] ?? NaN));
        expect(await load([lora], name), name).toEqual(mean);
      }
      await lora.file.close();
    }
  });

  it("changes a convolution's kernel, with further dimensions or without", async () => {
    const pair = pairOf(8, 8, 3, 77);
    await write("conv.safetensors", {
      "lora_unet_patch_embedding.lora_down.weight": stored("F32", [3, 2, 1, 2, 2], pair.down),
      "lora_unet_patch_embedding.lora_up.weight": stored("F32", [8, 3, 1, 1, 1], pair.up),
    });
    const lora = await lay(join(folder, "conv.safetensors"));
    const own = base.get("patch_embedding.weight");
    const expected = Float32Array.from(product(pair), (x, i) => (own?.[i] ?? NaN) + x);
    expect(await load([lora], "patch_embedding.weight")).toEqual(expected);
    await lora.file.close();
  });

  /** What a part of a module's weight is with a file laid over it, beside base + factor · delta in float64. */
  async function expectDelta(file: string, module: string, delta: Float64Array, factor: number): Promise<void> {
    const lora = await lay(join(folder, file), 0.5);
    const [rows = 0, columns = 0] = shapeOf(`${module}.weight`);
    const own = base.get(`${module}.weight`);
    const exact = delta.map((x, i) => (own?.[i] ?? NaN) + 0.5 * factor * x);
    const near = (values: Float32Array, at: (i: number) => number) => {
      for (const [i, value] of values.entries())
        expect(Math.abs(value - (exact[at(i)] ?? NaN)), `${i}`).toBeLessThan(5e-7);
    };
    near(await load([lora], `${module}.weight`), (i) => i);
    // Runs that begin and end within LoKr's blocks.
    const part = {
      rows: [
        { start: 1, count: 2 },
        { start: rows - 3, count: 3 },
      ],
      columns: { start: 1, count: columns - 3 },
    };
    const taken = [1, 2, rows - 3, rows - 2, rows - 1];
    near(
      await load([lora], `${module}.weight`, part),
      (i) => (taken[Math.floor(i / (columns - 3))] ?? NaN) * columns + 1 + (i % (columns - 3)),
    );
    await lora.file.close();
  }

  it("of two products element by element is LoHa", async () => {
    const module = "blocks.1.ffn.0";
    const [one, other] = [pairOf(12, 8, 2, 5), pairOf(12, 8, 2, 9)];
    await write("loha.safetensors", {
      "lycoris_blocks_1_ffn_0.hada_w1_a": stored("F32", [12, 2], one.up),
      "lycoris_blocks_1_ffn_0.hada_w1_b": stored("F32", [2, 8], one.down),
      "lycoris_blocks_1_ffn_0.hada_w2_a": stored("BF16", [12, 2], other.up),
      "lycoris_blocks_1_ffn_0.hada_w2_b": stored("F32", [2, 8], other.down),
      "lycoris_blocks_1_ffn_0.alpha": stored("F32", [], [1]),
    });
    const second = product(other);
    await expectDelta(
      "loha.safetensors",
      module,
      product(one).map((x, i) => x * (second[i] ?? NaN)),
      1 / 2,
    );
    expect(await describeLora({ file: join(folder, "loha.safetensors"), strength: 1 }, model)).toContain(
      "1 of 1 weights changed",
    );
  });

  /** Block (a, b) is outer[a, b] · inner. */
  function kroneckerOf(outer: Float64Array, across: number, inner: Float64Array, columns: number): Float64Array {
    const width = across * columns;
    return Float64Array.from({ length: outer.length * inner.length }, (_, at) => {
      const [row, column] = [Math.floor(at / width), at % width];
      const rows = inner.length / columns;
      const left = outer[Math.floor(row / rows) * across + Math.floor(column / columns)] ?? NaN;
      return left * (inner[(row % rows) * columns + (column % columns)] ?? NaN);
    });
  }

  it("of a Kronecker product is LoKr; alpha counts where a factor is a pair", async () => {
    const module = "blocks.0.ffn.2";
    const [whole, pair, outer] = [dyadic(4 * 4, 3), pairOf(4, 4, 2, 21), dyadic(2 * 3, 8)];
    const name = "diffusion_model.blocks.0.ffn.2";
    await write("lokr.safetensors", {
      [`${name}.lokr_w1`]: stored("F32", [2, 3], outer),
      [`${name}.lokr_w2`]: stored("F16", [4, 4], whole),
      [`${name}.alpha`]: stored("F32", [], [9]),
    });
    await expectDelta("lokr.safetensors", module, kroneckerOf(outer, 3, whole, 4), 1);
    await write("lokr-pair.safetensors", {
      [`${name}.lokr_w1`]: stored("F32", [2, 3], outer),
      [`${name}.lokr_w2_a`]: stored("F32", [4, 2], pair.up),
      [`${name}.lokr_w2_b`]: stored("F32", [2, 4], pair.down),
      [`${name}.alpha`]: stored("F32", [], [1]),
    });
    await expectDelta("lokr-pair.safetensors", module, kroneckerOf(outer, 3, product(pair), 4), 1 / 2);
  });

  it.for([
    [{ hada_w1_a: [12, 2], hada_w1_b: [2, 8] }, "has no second pair beside it"],
    [{ hada_w1_a: [12, 2] }, "has no down projection beside it"],
    [{ lokr_w1: [2, 2] }, "has no other factor beside it"],
    [{ lokr_w1: [2, 2], lokr_w2: [5, 4] }, "but blocks.0.ffn.0.weight of small is [12, 8]"],
    [{ hada_w1_a: [12, 2], hada_w1_b: [2, 8], hada_t1: [2, 2] }, "is a LoHa in Tucker form"],
  ] as const)("a part of one, or one of other sizes, is refused: %o", async ([parts, message]) => {
    const tensors = Object.entries(parts).map(
      ([role, shape]) => [`blocks.0.ffn.0.${role}`, stored("F32", shape, dyadic(count(shape), 1))] as const,
    );
    await write("part.safetensors", Object.fromEntries(tensors));
    await expect(openLora(join(folder, "part.safetensors"), model)).rejects.toThrow(message);
  });

  it("sums several files before the weight rounds them, in either order, and rounds to bf16 once", async () => {
    await write(
      "a.safetensors",
      pairsNamed((m) => m, kohya, alphaF32),
    );
    const second = pairOf(8, 8, 2, 999);
    await write("b.safetensors", {
      "blocks.0.self_attn.q.lora_A.weight": stored("F32", [2, 8], second.down),
      "blocks.0.self_attn.q.lora_B.weight": stored("F32", [8, 2], second.up),
    });
    const [a, b] = [await lay(join(folder, "a.safetensors"), 0.3), await lay(join(folder, "b.safetensors"), -0.7)];
    const module = "blocks.0.self_attn.q";
    const first = product(pairs.get(module) ?? second);
    const exact = Float64Array.from(
      product(second),
      (x, i) => (base.get(`${module}.weight`)?.[i] ?? NaN) + 0.3 * 0.5 * (first[i] ?? NaN) - 0.7 * x,
    );
    for (const loras of [
      [a, b],
      [b, a],
    ]) {
      const sum = await load(loras, `${module}.weight`);
      for (const [i, value] of sum.entries()) expect(Math.abs(value - (exact[i] ?? NaN))).toBeLessThan(2e-7);
    }
    const rounded = bf16ToFloat32(float32ToBf16(await load([a, b], `${module}.weight`)));
    expect(await load([a, b], `${module}.weight`, undefined, "bf16")).toEqual(rounded);
    await a.file.close();
    await b.file.close();
  });

  it("is quantised to e4m3 only as a sum, with the scales and squares of its rows", async () => {
    await write(
      "e4m3.safetensors",
      pairsNamed((m) => m, kohya, alphaF32),
    );
    const lora = await lay(join(folder, "e4m3.safetensors"));
    const module = "blocks.0.ffn.2";
    const parameter = { name: `${module}.weight`, shape: [8, 12], init: { kind: "constant", value: 0 } as const };
    const [rowScale, squares] = [device.allocatePersistent("fp32", [8]), device.allocatePersistent("fp32", [8, 1])];
    const out = { ...device.allocatePersistent("e4m3", [8, 12]), rowScale };
    await new LoraWeights(device, source, [lora]).load(parameter, wholeOf(parameter), out, { squares });
    await device.synchronize();
    const scales = new Float32Array((await device.download(rowScale)).buffer);
    const sums = new Float32Array((await device.download(squares)).buffer);
    const sum = merged(module, alpha / rank);
    for (let row = 0; row < 8; row++) {
      const own = sum.subarray(12 * row, 12 * row + 12);
      expect(scales[row]).toBeCloseTo(Math.max(...own.map(Math.abs)) / 448, 7);
      expect(sums[row]).toBeCloseTo(
        own.reduce((all, x) => all + x * x, 0),
        4,
      );
    }
    await lora.file.close();
  });

  it("gives each slice its part: runs of rows, and columns", async () => {
    await write("slices.safetensors", {
      ...pairsNamed((m) => m, kohya, { dtype: "BF16", ...alphaF32 }),
      "blocks.0.self_attn.norm_q.diff": stored("F32", [8], dyadic(8, 3)),
    });
    const lora = await lay(join(folder, "slices.safetensors"));
    const up = merged("blocks.1.ffn.0", alpha / rank);
    const rows = [
      { start: 2, count: 3 },
      { start: 7, count: 4 },
    ];
    const some = await load([lora], "blocks.1.ffn.0.weight", { rows, columns: { start: 0, count: 8 } });
    expect([...some]).toEqual([...up.subarray(16, 40), ...up.subarray(56, 88)]);
    const down = merged("blocks.1.ffn.2", alpha / rank);
    const columns = await load([lora], "blocks.1.ffn.2.weight", {
      rows: [{ start: 0, count: 8 }],
      columns: { start: 6, count: 6 },
    });
    expect([...columns]).toEqual([...down].filter((_, i) => i % 12 >= 6));
    const norm = await load([lora], "blocks.0.self_attn.norm_q.weight", {
      rows: [{ start: 4, count: 4 }],
      columns: { start: 0, count: 1 },
    });
    const own = base.get("blocks.0.self_attn.norm_q.weight");
    expect(norm).toEqual(Float32Array.from(dyadic(8, 3), (x, i) => x + (own?.[i] ?? NaN)).slice(4));
    await lora.file.close();
  });
});

describe("a LoRA file", () => {
  const pair = (module: string, [rows, columns] = [8, 8]) => ({
    [`${module}.lora_A.weight`]: stored("F32", [2, columns ?? 0], dyadic(2 * (columns ?? 0), 1)),
    [`${module}.lora_B.weight`]: stored("F32", [rows ?? 0, 2], dyadic(2 * (rows ?? 0), 2)),
  });

  it("may have an image branch, which is named and left out", async () => {
    await write("image.safetensors", {
      ...pair("diffusion_model.blocks.0.self_attn.q"),
      ...pair("diffusion_model.blocks.0.cross_attn.k_img"),
      ...pair("diffusion_model.blocks.0.cross_attn.v_img"),
      ...pair("diffusion_model.img_emb.proj.1"),
      "diffusion_model.blocks.0.cross_attn.norm_k_img.diff": stored("F32", [8], dyadic(8, 1)),
    });
    const told = await describeLora({ file: join(folder, "image.safetensors"), strength: 0.8 }, model);
    expect(told).toMatch(
      "at strength 0.8: 1 of 5 weights changed, 4 ignored: small lacks the image branch (k_img, v_img, img_emb).",
    );
  });

  const refused: Record<string, [Record<string, TensorData>, RegExp]> = {
    "other blocks": [
      pair("blocks.90.self_attn.q"),
      /nothing of it belongs to small's 2 blocks, as blocks\.90\.self_attn\.q\.lora_A\.weight/,
    ],
    "an unknown name": [
      { ...pair("blocks.0.self_attn.q"), ...pair("blocks.0.mystery") },
      /2 tensors of 4 mean nothing for small, as blocks\.0\.mystery\.lora_A\.weight/,
    ],
    "another width": [
      pair("blocks.0.self_attn.q", [16, 16]),
      /lora_B\.weight is F32 \[16, 2\], but blocks\.0\.self_attn\.q\.weight of small is \[8, 8\]; is it for another model/,
    ],
    "half a pair": [
      { "blocks.0.ffn.0.lora_A.weight": stored("F32", [2, 8], dyadic(16, 1)) },
      /blocks\.0\.ffn\.0\.lora_A\.weight has no up projection beside it/,
    ],
    "the same twice": [
      { ...pair("blocks.0.self_attn.q"), ...pair("diffusion_model.blocks.0.self_attn.q") },
      /both .* and .* are for blocks\.0\.self_attn\.q/,
    ],
    weights: [
      { "blocks.0.self_attn.q.weight": stored("F32", [8, 8], dyadic(64, 1)) },
      /none of its 1 tensor .*--transformer/,
    ],
    DoRA: [
      { ...pair("blocks.0.self_attn.q"), "blocks.0.self_attn.q.dora_scale": stored("F32", [8], dyadic(8, 1)) },
      /is a DoRA/,
    ],
    "LoKr in Tucker form": [
      { "blocks.0.self_attn.q.lokr_t2": stored("F32", [2, 2], dyadic(4, 1)) },
      /is a LoKr in Tucker form/,
    ],
    "Stand-In": [{ "blocks.0.self_attn.q_loras.down.weight": stored("F32", [2, 8], dyadic(16, 1)) }, /is a Stand-In/],
    "an alpha of several numbers": [
      { ...pair("blocks.0.self_attn.q"), "blocks.0.self_attn.q.alpha": stored("F32", [2], [1, 2]) },
      /alpha is F32 \[2\], but an alpha is one number/,
    ],
  };
  it.for(Object.entries(refused))("is refused by name: %s", async ([name, [tensors, sentence]]) => {
    const file = join(folder, `refused-${name.replace(/\W+/g, "-")}.safetensors`);
    await writeSafetensors(file, tensors);
    await expect(openLora(file, model)).rejects.toMatchObject({
      code: "ERR_LORA",
      message: expect.stringMatching(sentence),
    });
  });
});
