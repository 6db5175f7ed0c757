import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TensorFile } from "../../../../src/formats/tensor-file.js";
import { inspectFile } from "../../../../src/models/wan/inspect.js";
import { openPart } from "../../../../src/models/wan/tensors/open-part.js";
import type { Part } from "../../../../src/models/wan/tensors/spellings.js";
import { transformerFacts } from "../../../../src/models/wan/tensors/transformer-facts.js";
import { type GgufTensor, ggmlTypes, gguf } from "../../../gguf-files.js";
import { dictionary, torchLegacy, torchZip } from "../../../torch-files.js";
import { goldenCheckpoints } from "../../worker/wan/golden.js";
import { decode } from "./decode.js";
import {
  floats,
  isLinear,
  plain,
  quantised,
  renamed,
  store,
  type Tensors,
  textEncoderShapes,
  transformerShapes,
  type Values,
} from "./small-model.js";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-dialects-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function write(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, bytes);
  return path;
}

/** A safetensors file, in the order given: a header is all that it takes. */
function safetensors(tensors: Tensors, metadata?: Record<string, string>): Buffer {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
    const begin = end;
    end += data.byteLength;
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const json = Buffer.from(
    JSON.stringify({ ...(metadata && { __metadata__: metadata }), ...Object.fromEntries(entries) }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map(({ data }) => data)]);
}

/** Bit by bit; the runner's own comparison takes a microsecond for each number. */
function same(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const [one, other] = [a, b].map((view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength));
  return one !== undefined && other !== undefined && one.equals(other);
}

/** Every value of the part, and no other tensor, under the names of the published code. */
async function expectValues(file: TensorFile, values: Values): Promise<void> {
  expect(file.names().sort()).toEqual(Object.keys(values).sort());
  for (const [name, wanted] of Object.entries(values)) {
    const info = file.info(name);
    expect(same(decode(info, await file.read(name)), wanted), name).toBe(true);
    expect(file.place(name).byteLength, name).toBe(info.byteLength);
  }
}

async function expectPart(path: string, part: Part, values: Values) {
  const file = await openPart(path, part);
  await expectValues(file, values);
  await file.close();
  return file.recognised;
}

const shapes = transformerShapes();
const marker = (dtype: "F8_E4M3" | "F8_E5M2" | "F32", count = 0) => ({
  scaled_fp8: { dtype, shape: [count], data: new Uint8Array(count * (dtype === "F32" ? 4 : 1)) },
});
const one = (value: number) => store("F32", [], Float32Array.of(value));
const note = (settings: object) => {
  const data = new TextEncoder().encode(JSON.stringify(settings));
  return { dtype: "U8", shape: [data.length], data } as const;
};
const comfyPrefix = "model.diffusion_model.";

/** Names of diffusers; scales keep their endings. */
const diffusersName = (name: string) =>
  name
    .replace(/^(text|time)_embedding\.0\./, "condition_embedder.$1_embedder.linear_1.")
    .replace(/^(text|time)_embedding\.2\./, "condition_embedder.$1_embedder.linear_2.")
    .replace(/^time_projection\.1\./, "condition_embedder.time_proj.")
    .replace(/^head\.modulation$/, "scale_shift_table")
    .replace(/^head\.head\./, "proj_out.")
    .replace(/\.modulation$/, ".scale_shift_table")
    .replace(/\.norm3\./, ".norm2.")
    .replace(/\.ffn\.0\./, ".ffn.net.0.proj.")
    .replace(/\.ffn\.2\./, ".ffn.net.2.")
    .replace(/\.self_attn\.([qkv])\./, ".attn1.to_$1.")
    .replace(/\.cross_attn\.([qkv])\./, ".attn2.to_$1.")
    .replace(/\.self_attn\.o\./, ".attn1.to_out.0.")
    .replace(/\.cross_attn\.o\./, ".attn2.to_out.0.")
    .replace(/\.self_attn\./, ".attn1.")
    .replace(/\.cross_attn\./, ".attn2.");

describe("a transformer's values are the same in every file", () => {
  const full = plain(shapes, "BF16");
  test.each(["F64", "F32", "F16", "BF16"] as const)("in %s", async (dtype) => {
    const { tensors, values } = plain(shapes, dtype);
    const path = await write(`${dtype}.safetensors`, safetensors(tensors));
    const { prefix, spelling, dialect, ignored } = await expectPart(path, "transformer", values);
    expect([prefix, spelling.layout, dialect, ignored.size]).toEqual(["", "original", undefined, 0]);
  });

  test.each([comfyPrefix, "diffusion_model.", "model.", "net."])("below %s", async (prefix) => {
    const path = await write("prefix.safetensors", safetensors(renamed(full.tensors, (name) => prefix + name)));
    expect((await expectPart(path, "transformer", full.values)).prefix).toBe(prefix);
  });

  test("by diffusers' names", async () => {
    const path = await write("diffusers.safetensors", safetensors(renamed(full.tensors, diffusersName)));
    expect((await expectPart(path, "transformer", full.values)).spelling.layout).toBe("diffusers");
  });

  const wraps: [string, (all: string) => string][] = [
    ["state_dict", (all) => dictionary({ epoch: "I3\n", state_dict: all })],
    ["model", (all) => dictionary({ model: all })],
    ["module", (all) => dictionary({ step: "I9\n", module: all })],
    [
      "a list",
      (all) => `(l${dictionary({ state_dict: all, epoch: "I1\n" })}a`.replace(/^/, "(dS'versions'\n").concat("s"),
    ],
  ];
  test.each(wraps)("in a pickle, below %s", async (name, wrap) => {
    await expectPart(await write(`${name}.ckpt`, torchZip(full.tensors, wrap)), "transformer", full.values);
  });

  test("in a pickle from before PyTorch 1.6, and beside an optimiser", async () => {
    await expectPart(await write("legacy.pth", torchLegacy(full.tensors)), "transformer", full.values);
    const more = {
      "optimizer.state.0": store("F32", [1], Float32Array.of(1)),
      ...renamed(full.tensors, (name) => `model.${name}`),
    };
    const { ignored } = await expectPart(await write("trained.pth", torchZip(more)), "transformer", full.values);
    expect([...ignored]).toEqual([["the state of a training run", ["optimizer.state.0"]]]);
  });

  test("as rCM has it: below net., its patch embedding a matrix", async () => {
    const patch = full.tensors["patch_embedding.weight"];
    if (!patch) throw new Error("no patch embedding");
    const tensors = renamed(
      { ...full.tensors, "patch_embedding.weight": { ...patch, shape: [32, 64] } },
      (name) => `net.${name}`,
    );
    const path = await write("rcm.pth", torchZip(tensors));
    await expectPart(path, "transformer", full.values);
    const file = await openPart(path, "transformer");
    expect(file.info("patch_embedding.weight").shape).toEqual([32, 16, 1, 2, 2]);
    await file.close();
  });

  test("in shards, with an index and without", async () => {
    const names = [1, 2, 3].map((n) => `shards-0000${n}-of-00003.safetensors`);
    const entries = Object.entries(full.tensors);
    for (const [i, name] of names.entries())
      await write(name, safetensors(Object.fromEntries(entries.filter((_, at) => at % 3 === i))));
    const map = Object.fromEntries(entries.map(([name], at) => [name, names[at % 3]]));
    const index = await write("shards.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: map })));
    await expectPart(index, "transformer", full.values);
    await expectPart(join(dir, names[1] ?? ""), "transformer", full.values);
    await rm(join(dir, names[2] ?? ""));
    await expect(openPart(index, "transformer")).rejects.toThrow(
      `${names[2]} is missing, one of the 3 files of ${index}`,
    );
  });

  const each = (rows: number) => [rows, 1];
  const cases: [string, Tensors, Values, RegExp | undefined, Record<string, string>?][] = [];
  const add = (
    title: string,
    how: Parameters<typeof quantised>[1],
    dialect?: RegExp,
    more: Tensors = {},
    naming = (name: string) => name,
  ) => {
    const { tensors, values } = quantised(shapes, how);
    cases.push([title, renamed({ ...tensors, ...more }, naming), values, dialect]);
  };
  add("plain e4m3", { dtype: "F8_E4M3" });
  add("plain e5m2", { dtype: "F8_E5M2" });
  const scaled = { dtype: "F8_E4M3", suffix: "scale_weight" } as const;
  add("ComfyUI's scaled fp8", scaled, /scale_weight/, marker("F8_E4M3"));
  add("the same below a prefix", scaled, /scale_weight/, marker("F8_E4M3"), (name) => comfyPrefix + name);
  add(
    "the same, products in full precision, with scales of activations",
    { ...scaled, scaleShape: () => [1], beside: (m) => ({ [`${m}.scale_input`]: one(1) }) },
    /scale_weight/,
    marker("F8_E4M3", 2),
  );
  add("the same, a marker in F32 and scales in BF16", { ...scaled, scaleDtype: "BF16" }, /scale_weight/, marker("F32"));
  add(
    "Kijai's e5m2",
    { ...scaled, dtype: "F8_E5M2", scaleShape: () => [1], rest: "BF16" },
    /scale_weight/,
    marker("F8_E5M2"),
  );
  const quant = (format: string) => (m: string) => ({
    [`${m}.comfy_quant`]: note({ format, full_precision_matrix_mult: true }),
    [`${m}.input_scale`]: one(1),
  });
  const by = { suffix: "weight_scale" } as const;
  add("ComfyUI's comfy_quant, e4m3", { ...by, dtype: "F8_E4M3", beside: quant("float8_e4m3fn") }, /comfy_quant/);
  add("ComfyUI's comfy_quant, e5m2", { ...by, dtype: "F8_E5M2", beside: quant("float8_e5m2") }, /comfy_quant/);
  add("ComfyUI's comfy_quant, int8", { ...by, dtype: "I8", beside: quant("int8_tensorwise") }, /comfy_quant/);
  add("LightX2V's fp8", { ...by, dtype: "F8_E4M3", scaleShape: each }, /LightX2V/);
  add("LightX2V's int8", { ...by, dtype: "I8", scaleShape: each }, /LightX2V/);
  add(
    "ModelOpt's",
    { ...by, dtype: "F8_E4M3", beside: (m) => ({ [`${m}.input_scale`]: one(0.0625) }) },
    /ModelOpt/,
    {},
    (name) => diffusersName(name.replace(/\.(weight_scale|input_scale)$/, ".$1")),
  );
  test.each(cases)("%s", async (title, tensors, values, dialect) => {
    const path = await write(`${title.replaceAll(/\W+/g, "-")}.safetensors`, safetensors(tensors));
    const recognised = await expectPart(path, "transformer", values);
    if (dialect) expect(recognised.dialect).toMatch(dialect);
    else expect(recognised.dialect).toBeUndefined();
  });

  test("ComfyUI's formats in the header, by names with the prefix", async () => {
    const { tensors, values } = quantised(shapes, { ...by, dtype: "F8_E4M3" });
    const layers = Object.fromEntries(
      [...shapes.keys()]
        .filter(isLinear)
        .map((name) => [comfyPrefix + name.slice(0, -".weight".length), { format: "float8_e4m3fn" }]),
    );
    const header = { _quantization_metadata: JSON.stringify({ format_version: "1.0", layers }) };
    const path = await write(
      "header.safetensors",
      safetensors(
        renamed(tensors, (name) => comfyPrefix + name),
        header,
      ),
    );
    expect((await expectPart(path, "transformer", values)).dialect).toMatch(/comfy_quant/);
  });

  test("LightX2V's fp8 in a pickle", async () => {
    const { tensors, values } = quantised(textEncoderShapes(), {
      ...by,
      dtype: "F8_E4M3",
      scaleShape: each,
      rest: "BF16",
    });
    await expectPart(await write("lightx2v.pth", torchZip(tensors)), "text encoder", values);
  });

  test("GGUF, its patch embedding a matrix below a prefix", async () => {
    const { values } = full;
    const tensors: Record<string, GgufTensor> = {};
    for (const [name, shape] of shapes) {
      const own = name === "patch_embedding.weight" ? [32, 64] : shape;
      tensors[comfyPrefix + name] = isLinear(name)
        ? q8(name, shape, values)
        : { type: ggmlTypes.F32, shape: own, data: store("F32", shape, floats(name, shape)).data };
    }
    const metadata = { [`comfy.gguf.orig_shape.${comfyPrefix}patch_embedding.weight`]: { ints: [32, 16, 1, 2, 2] } };
    await expectPart(await write("q8.gguf", gguf(tensors, metadata)), "transformer", values);
  });
});

/** Q8_0 of values that it holds exactly: 127 levels of 1/64. */
function q8(name: string, shape: readonly number[], values: Values): GgufTensor {
  const numbers = floats(name, shape).map((value) => Math.max(value, -127 / 64));
  values[name] = numbers;
  const data = new Uint8Array((numbers.length / 32) * 34);
  for (let block = 0; block < numbers.length / 32; block++) {
    // 2^-6 in float16.
    data.set([0x00, 0x24], 34 * block);
    for (let i = 0; i < 32; i++) data[34 * block + 2 + i] = 64 * (numbers[32 * block + i] ?? 0);
  }
  return { type: ggmlTypes.Q8_0, shape, data };
}

describe("text encoders and whole models", () => {
  const full = plain(textEncoderShapes(), "F16");
  const huggingFace = (name: string) =>
    name
      .replace(/^token_embedding\./, "shared.")
      .replace(/^norm\./, "encoder.final_layer_norm.")
      .replace(/^blocks\.(\d+)\.norm1\./, "encoder.block.$1.layer.0.layer_norm.")
      .replace(/^blocks\.(\d+)\.norm2\./, "encoder.block.$1.layer.1.layer_norm.")
      .replace(/^blocks\.(\d+)\.attn\.(.)\./, "encoder.block.$1.layer.0.SelfAttention.$2.")
      .replace(
        /^blocks\.(\d+)\.pos_embedding\.embedding\./,
        "encoder.block.$1.layer.0.SelfAttention.relative_attention_bias.",
      )
      .replace(/^blocks\.(\d+)\.ffn\.gate\.0\./, "encoder.block.$1.layer.1.DenseReluDense.wi_0.")
      .replace(/^blocks\.(\d+)\.ffn\.fc1\./, "encoder.block.$1.layer.1.DenseReluDense.wi_1.")
      .replace(/^blocks\.(\d+)\.ffn\.fc2\./, "encoder.block.$1.layer.1.DenseReluDense.wo.");
  const llama = (name: string) =>
    name
      .replace(/^token_embedding\./, "token_embd.")
      .replace(/^norm\./, "enc.output_norm.")
      .replace(/^blocks\.(\d+)\./, "enc.blk.$1.")
      .replace(/\.norm1\./, ".attn_norm.")
      .replace(/\.norm2\./, ".ffn_norm.")
      .replace(/\.attn\.(.)\./, ".attn_$1.")
      .replace(/\.pos_embedding\.embedding\./, ".attn_rel_b.")
      .replace(/\.ffn\.gate\.0\./, ".ffn_gate.")
      .replace(/\.ffn\.fc1\./, ".ffn_up.")
      .replace(/\.ffn\.fc2\./, ".ffn_down.");

  test("by Hugging Face's names; the table twice, the decoder and the tokenizer are left out by rule", async () => {
    const table = full.tensors["token_embedding.weight"];
    if (!table) throw new Error("no table");
    const more = { "encoder.embed_tokens.weight": table, "decoder.block.0.q.weight": table, spiece_model: note({}) };
    const path = await write("hf.safetensors", safetensors({ ...renamed(full.tensors, huggingFace), ...more }));
    const { ignored, spelling } = await expectPart(path, "text encoder", full.values);
    expect(spelling.layout).toBe("Hugging Face");
    expect([...ignored.keys()].sort()).toEqual([
      "the decoder of umT5",
      "the table of tokens, which is there twice",
      "the tokenizer",
    ]);
  });

  test("by llama.cpp's names", async () => {
    const tensors = Object.fromEntries(
      Object.entries(full.tensors).map(([name, { shape, data }]) => [
        llama(name),
        { type: ggmlTypes.F16, shape, data },
      ]),
    );
    const path = await write("umt5.gguf", gguf(tensors, { "general.architecture": "t5encoder" }));
    expect((await expectPart(path, "text encoder", full.values)).spelling.layout).toBe("llama.cpp");
  });

  test("several parts in one file", async () => {
    const transformer = plain(shapes, "F16");
    const path = await write(
      "all.safetensors",
      safetensors({
        ...renamed(transformer.tensors, (name) => comfyPrefix + name),
        ...renamed(full.tensors, (name) => `text_encoders.umt5xxl.transformer.${huggingFace(name)}`),
      }),
    );
    await expectPart(path, "transformer", transformer.values);
    await expectPart(path, "text encoder", full.values);
    await expect(openPart(path, "VAE")).rejects.toThrow(
      `${path} is a transformer, not a VAE: give it with --transformer.`,
    );
    const { parts, problem } = await inspectFile(path);
    expect(problem).toBeUndefined();
    expect(parts.map(({ part }) => part)).toEqual(["transformer", "text encoder"]);
  });

  test("the VAE by both layouts' names", async () => {
    const original = await openPart(join(goldenCheckpoints.original, "Wan2.1_VAE.pth"), "VAE");
    const copy = await openPart("test/golden/data/wan/diffusers/vae/diffusion_pytorch_model.safetensors", "VAE");
    expect([original.recognised.spelling.layout, copy.recognised.spelling.layout]).toEqual(["original", "diffusers"]);
    expect(copy.names().sort()).toEqual(original.names().sort());
    for (const name of original.names())
      expect(same(await copy.read(name), await original.read(name)), name).toBe(true);
    await original.close();
    await copy.close();
  });
});

describe("what is not read is called by its name", () => {
  const full = plain(shapes, "BF16").tensors;
  const weights = [...shapes.keys()].filter(isLinear);
  const beside = (suffix: string, written: Tensors[string]): Tensors =>
    Object.fromEntries(weights.map((name) => [`${name.replace(/\.weight$/, "")}.${suffix}`, written]));
  const fp8 = quantised(shapes, { dtype: "F8_E4M3" }).tensors;
  const scaled = quantised(shapes, { dtype: "F8_E4M3", suffix: "weight_scale" }).tensors;
  const int8 = quantised(shapes, { dtype: "I8" }).tensors;
  const extra = (name: string): Tensors => ({ ...full, [name]: one(1) });
  const patched = (inputs: number) => plain(transformerShapes(inputs), "BF16").tensors;
  const without = (name: string): Tensors => Object.fromEntries(Object.entries(full).filter(([own]) => own !== name));
  const below = (prefix: string) => renamed(full, (name) => prefix + name);

  const cases: [string, Tensors, RegExp][] = [
    [
      "optimum-quanto",
      { ...full, ...beside("weight._data", one(1)) },
      /is quantised by optimum-quanto .*: take an fp8 or GGUF file/,
    ],
    ["bitsandbytes", { ...full, ...beside("weight.absmax", one(1)) }, /is quantised by bitsandbytes/],
    ["nvfp4", { ...fp8, ...beside("weight_scale_2", one(1)) }, /is in nvfp4, which needs a Blackwell GPU/],
    [
      "a rotated int8",
      {
        ...int8,
        ...beside("weight_scale", one(1)),
        ...beside("comfy_quant", note({ format: "int8_tensorwise", convrot: true })),
      },
      /in the format int8_tensorwise with convrot/,
    ],
    ["another format", { ...scaled, ...beside("comfy_quant", note({ format: "mxfp8" })) }, /in the format mxfp8/],
    [
      "a format without its scale",
      { ...fp8, ...beside("comfy_quant", note({ format: "float8_e4m3fn" })) },
      /should be F8_E4M3 with a weight_scale/,
    ],
    [
      "a marker without scales",
      { ...fp8, ...marker("F8_E4M3") },
      /blocks\.0\.self_attn\.q\.weight is F8_E4M3 and should have a scale, but has none/,
    ],
    ["int8 without scales", int8, /is I8 and should have a scale/],
    [
      "a scale without its weight",
      { ...full, "blocks.0.ffn.7.weight_scale": one(1) },
      /is a scale, but there is no such weight/,
    ],
    [
      "a scale of a weight that is not quantised",
      { ...full, "blocks.0.ffn.0.weight_scale": one(1) },
      /is a scale, but its weight is BF16/,
    ],
    [
      "scales of blocks of a row",
      { ...scaled, "blocks.0.ffn.0.weight_scale": store("F32", [64, 2], new Float32Array(128).fill(1)) },
      /is F32 \[64, 2\]; a scale has one value, or one for each of 64 rows/,
    ],
    ["a scale of NaN", { ...scaled, "blocks.0.ffn.0.weight_scale": one(Number.NaN) }, /holds the scale NaN/],
    ["S2V", extra("casual_audio_encoder.encoder.conv.weight"), /is Wan 2\.2 S2V, .*: take Wan-AI/],
    ["Animate", extra("face_adapter.fuser_blocks.0.linear1_kv.weight"), /is Wan 2\.2 Animate/],
    ["HuMo", extra("audio_proj.audio_proj_glob_1.weight"), /is HuMo/],
    ["Fun-Camera", extra("control_adapter.conv.weight"), /is Wan-Fun Camera/],
    ["VSA", extra("blocks.0.to_gate_compress.weight"), /trained with sparse attention \(VSA\)/],
    ["SLA", extra("blocks.0.self_attn.attn_op.local_attn.proj_l.weight"), /trained with sparse attention \(SLA\)/],
    ["a causal student", below("generator_ema."), /is a student of Self-Forcing or CausVid/],
    [
      "two transformers",
      { ...below("model."), ...below("ema.") },
      /a transformer below "model\." and one below "ema\."/,
    ],
    [
      "an unknown tensor",
      extra("blocks.0.mystery.weight"),
      /no transformer that ditrun knows has a tensor blocks\.0\.mystery\.weight/,
    ],
    ["an unknown tensor beside a prefix", { ...below("model."), other: one(1) }, /has a tensor other;/],
    ["Fun-Control", patched(48), /is Wan-Fun Control \(its patch embedding takes 48 channels\)/],
    ["half of a block", without("blocks.1.ffn.2.bias"), /lacks the tensor blocks\.1\.ffn\.2\.bias/],
    ["no head", without("head.head.weight"), /has no tensor head\.head\.weight/],
    [
      "nothing of Wan",
      { "double_blocks.0.weight": one(1) },
      /is no transformer of a Wan model: it has 1 tensor, such as double_blocks/,
    ],
    ["a LoRA", { "diffusion_model.blocks.0.ffn.0.lora_A.weight": one(1) }, /is a LoRA, not a transformer/],
  ];
  test.each(cases)("%s", async (title, tensors, message) => {
    const path = await write(`no-${title.replaceAll(/\W+/g, "-")}.safetensors`, safetensors(tensors));
    const looked = async () => {
      const file = await openPart(path, "transformer");
      try {
        return transformerFacts(file);
      } finally {
        await file.close();
      }
    };
    const error: unknown = await looked().catch((e: unknown) => e);
    expect(String(error)).toMatch(message);
    expect(String(error)).toMatch(/^DitrunError: [^\n]*$/);
    expect((await inspectFile(path)).problem?.exitCode).toBe(2);
  });

  test("a bidirectional student of CausVid is read where the folder's name says so", async () => {
    const path = await write("bidirectional.safetensors", safetensors(below("generator.")));
    await expectPart(path, "transformer", plain(shapes, "BF16").values);
  });

  test.each([
    [36, 16, "i2v-a14b"],
    [48, 48, "ti2v"],
    [16, 16, "t2v"],
  ])("%i channels in and %i out are %s", async (inputs, outputs, task) => {
    const path = await write("task.safetensors", safetensors(plain(transformerShapes(inputs, outputs), "F16").tensors));
    const file = await openPart(path, "transformer");
    expect(transformerFacts(file)).toMatchObject({
      task,
      inputs,
      outputs,
      width: 32,
      ffn: 64,
      layers: 2,
      textWidth: 32,
      freqDim: 16,
    });
    await file.close();
  });
});
