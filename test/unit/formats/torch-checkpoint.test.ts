import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DitrunError } from "../../../src/failure.js";
import { toFloat32 } from "../../../src/formats/numbers.js";
import { openSafetensors } from "../../../src/formats/safetensors.js";
import type { TensorFile } from "../../../src/formats/tensor-file.js";
import { openTorchCheckpoint } from "../../../src/formats/torch-checkpoint.js";
import { dictionary, tensor, torchLegacy, torchZip, zip } from "../../torch-files.js";

const golden = new URL("../../golden/data/wan/", import.meta.url).pathname;
let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-pth-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function checkpoint(name: string, pickle: string, extra: Record<string, Uint8Array> = {}): Promise<string> {
  const path = join(dir, name);
  const data = new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5).buffer);
  await writeFile(path, zip({ "m/data.pkl": Buffer.from(`${pickle}.`, "latin1"), "m/data/0": data, ...extra }));
  return path;
}

const hash = async (file: TensorFile, name: string) =>
  createHash("sha256")
    .update(await file.read(name))
    .digest("hex");

describe("published checkpoints", () => {
  test("the VAE's .pth holds the tensors of its diffusers copy", async () => {
    const original = await openTorchCheckpoint(join(golden, "original/Wan2.1_VAE.pth"));
    const copy = await openSafetensors(join(golden, "diffusers/vae/diffusion_pytorch_model.safetensors"));
    expect(original.names().length).toBe(194);
    expect(original.info("encoder.conv1.weight")).toMatchObject({
      dtype: "F32",
      shape: [8, 3, 3, 3, 3],
      byteLength: 2592,
    });
    const hashes = (file: TensorFile) => Promise.all(file.names().map((name) => hash(file, name)));
    expect((await hashes(original)).sort()).toEqual((await hashes(copy)).sort());
    await original.close();
    await copy.close();
  });

  test("the text encoder's .pth holds the bf16 tensors of its diffusers copy, name by name", async () => {
    const original = await openTorchCheckpoint(join(golden, "original/models_t5_umt5-xxl-enc-bf16.pth"));
    const copy = await openSafetensors(join(golden, "diffusers/text_encoder/model.safetensors"));
    const parts = {
      norm1: "0.layer_norm",
      "attn.q": "0.SelfAttention.q",
      "attn.k": "0.SelfAttention.k",
      "attn.v": "0.SelfAttention.v",
      "attn.o": "0.SelfAttention.o",
      "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias",
      norm2: "1.layer_norm",
      "ffn.gate.0": "1.DenseReluDense.wi_0",
      "ffn.fc1": "1.DenseReluDense.wi_1",
      "ffn.fc2": "1.DenseReluDense.wo",
    };
    const names = new Map([
      ["token_embedding.weight", "shared.weight"],
      ["norm.weight", "encoder.final_layer_norm.weight"],
    ]);
    for (const block of [0, 1, 2])
      for (const [from, to] of Object.entries(parts))
        names.set(`blocks.${block}.${from}.weight`, `encoder.block.${block}.layer.${to}.weight`);
    expect(original.names().sort()).toEqual([...names.keys()].sort());
    for (const [from, to] of names) {
      expect(original.info(from)).toMatchObject({ dtype: "BF16", shape: copy.info(to).shape });
      expect(await hash(original, from)).toBe(await hash(copy, to));
    }
    // A column slice goes through the same reader as safetensors.
    const slice = { dim: 1, start: 16, end: 48 };
    expect(await original.read("blocks.1.ffn.fc2.weight", slice)).toEqual(
      await copy.read("encoder.block.1.layer.1.DenseReluDense.wo.weight", slice),
    );
    await original.close();
    await copy.close();
  });
});

describe("made-up checkpoints", () => {
  test("views into one storage, nested dictionaries, parameters, and values that are not tensors", async () => {
    const path = await checkpoint(
      "views",
      dictionary({
        whole: tensor([2, 3], [3, 1]),
        nested: dictionary({ row: tensor([1, 3], [99, 1], { first: 3 }), step: "I7\n" }),
        parameter: `ctorch._utils\n_rebuild_parameter\n(${tensor([2], [1], { first: 1 })}I01\nccollections\nOrderedDict\n(tRtR`,
        list: `(l${tensor([], [], { first: 5 })}a`,
      }),
      { "m/byteorder": Buffer.from("little") },
    );
    const file = await openTorchCheckpoint(path);
    expect(file.names()).toEqual(["whole", "nested.row", "parameter", "list.0"]);
    const values = async (name: string) => [...toFloat32("F32", await file.read(name))];
    expect(await values("whole")).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await values("nested.row")).toEqual([3, 4, 5]);
    expect(await values("parameter")).toEqual([1, 2]);
    expect(await values("list.0")).toEqual([5]);
    await file.close();
  });

  const stored = {
    half: { dtype: "F16", shape: [2, 2], data: new Uint8Array(Uint16Array.of(0x3c00, 0x4000, 0xc000, 0).buffer) },
    wide: { dtype: "F64", shape: [2], data: new Uint8Array(Float64Array.of(0.1, -3).buffer) },
  };
  const values = async (file: TensorFile, name: string) => [...toFloat32(file.info(name).dtype, await file.read(name))];

  test("fp8, which has no storage class, is a tensor of an untyped storage", async () => {
    const path = join(dir, "fp8.pth");
    const e4m3 = { dtype: "F8_E4M3", shape: [3], data: Uint8Array.of(0x38, 0x40, 0xc0) };
    await writeFile(path, torchZip({ ...stored, e4m3, e5m2: { ...e4m3, dtype: "F8_E5M2" } }));
    const file = await openTorchCheckpoint(path);
    expect(file.info("e4m3")).toMatchObject({ dtype: "F8_E4M3", shape: [3], byteLength: 3 });
    expect(file.info("e5m2").dtype).toBe("F8_E5M2");
    expect([...(await file.read("e5m2"))]).toEqual([0x38, 0x40, 0xc0]);
    expect(await values(file, "wide")).toEqual([Math.fround(0.1), -3]);
    await file.close();
  });

  test("a file from before PyTorch 1.6: pickles, and the storages behind them", async () => {
    const path = join(dir, "legacy.pth");
    await writeFile(path, torchLegacy(stored));
    const file = await openTorchCheckpoint(path);
    expect(await values(file, "half")).toEqual([1, 2, -2, 0]);
    expect(await values(file, "wide")).toEqual([Math.fround(0.1), -3]);
    expect(file.place("wide").offset + 16).toBe(torchLegacy(stored).length);
    await file.close();
    await truncate(path, torchLegacy(stored).length - 1);
    await expect(openTorchCheckpoint(path)).rejects.toThrow(/is truncated: storage 91 begins at byte/);
    await writeFile(path, torchLegacy(stored, false));
    await expect(openTorchCheckpoint(path)).rejects.toThrow(/big-endian/);
  });

  const selfContaining = "(dp0\nS'a'\ng0\ns";
  // Twelve lists, each of four times the one before: 4^12 numbers in a few hundred bytes.
  const level = (i: number) => `(lp${i}\n${(i === 0 ? "I0\na" : `g${i - 1}\na`).repeat(4)}`;
  const multiplying = `${Array.from({ length: 12 }, (_, i) => level(i)).join("")}(dS'a'\ng11\ns`;
  const refused: [string, string, RegExp][] = [
    ["a function", "cos\nsystem\n(S'echo'\ntR", /asks for os\.system, and ditrun loads only tensors/],
    ["a builtin", "c__builtin__\neval\n(S'1'\ntR", /asks for __builtin__\.eval/],
    ["a class by INST", "(S'x'\niposix\nsystem\n", /asks for posix\.system/],
    ["another torch function", "ctorch.serialization\nload\n(tR", /asks for torch\.serialization\.load/],
    ["a property of JavaScript objects", "c__proto__\nconstructor\n(tR", /asks for __proto__\.constructor/],
    [
      "a tensor of torchao",
      "ctorchao.dtypes.affine\nTensor\n(tR",
      /holds tensors of torchao, which ditrun does not read: take/,
    ],
    ["a dtype that is called", "ctorch\nfloat32\n(tR", /calls torch.float32/],
    [
      "an untyped tensor of no dtype",
      tensor([2], [1], { dtype: "HalfStorage" }),
      /cannot be read: a tensor has no known dtype/,
    ],
    ["a storage class that is called", "ctorch\nFloatStorage\n(tR", /calls torch.FloatStorage/],
    ["no dictionary", tensor([2], [1]), /no dictionary of tensors/],
    [
      "strides that are not row-major",
      dictionary({ w: tensor([2, 3], [1, 2]) }),
      /tensor w of shape \[2, 3\] .* \[1, 2\]/,
    ],
    [
      "more elements than the storage says",
      dictionary({ w: tensor([9], [1]) }),
      /needs elements 0 to 9 of storage 0, which has 6/,
    ],
    [
      "more bytes than the storage has",
      dictionary({ w: tensor([7], [1], { elements: 7 }) }),
      /bytes 0 to 28 .* which has 24/,
    ],
    ["a negative size", dictionary({ w: tensor([-1], [1]) }), /cannot be read/],
    ["garbage", "\xff\xfe", /its data.pkl cannot be read/],
    [
      "an attribute set on a tensor that was checked",
      dictionary({ w: `${tensor([2], [1])}(dS'firstElement'\nI-20\nsb` }),
      /cannot be read: Cannot assign to read only property/,
    ],
    ["a long integer", `\x80\x02\x8b\x00\x00\x10\x00${"\x7f".repeat(2 ** 20)}`, /a piece of 1048576 bytes, .* 16384/],
    ["very many operations", `\x80\x04}${"\x94".repeat(500_001)}`, /more than 500000 operations/],
    ["a name with control characters", dictionary({ "\x1b[2J": tensor([2], [1]) }), /named "\\u001b\[2J"/],
    ["a function with control characters", "c\x1b\n\x07\n(tR", /asks for \\u001b\.\\u0007, and ditrun/],
    ["a dictionary that contains itself", selfContaining, /nests them more than 16 deep/],
    ["containers that multiply", multiplying, /more than 1000000 items/],
  ];
  test.each(refused)("%s is refused in one sentence", async (name, pickle, message) => {
    const error: unknown = await openTorchCheckpoint(await checkpoint(name, pickle)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DitrunError);
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain("\n");
  });

  test("a big-endian file, a missing storage, a file that is not a zip, and a truncated one", async () => {
    const good = dictionary({ w: tensor([2], [1]) });
    const big = await checkpoint("big", good, { "m/byteorder": Buffer.from("big") });
    await expect(openTorchCheckpoint(big)).rejects.toThrow(/big-endian/);
    const noStorage = join(dir, "none");
    await writeFile(noStorage, zip({ "m/data.pkl": Buffer.from(`${good}.`) }));
    await expect(openTorchCheckpoint(noStorage)).rejects.toThrow(/no data\/0 among its 1 entries/);
    await writeFile(join(dir, "other"), Buffer.alloc(100, 0x80));
    await expect(openTorchCheckpoint(join(dir, "other"))).rejects.toThrow(
      /is not a PyTorch checkpoint, or it is truncated/,
    );
    const cut = join(dir, "cut");
    await writeFile(cut, await readFile(join(golden, "original/models_t5_umt5-xxl-enc-bf16.pth")));
    await truncate(cut, 300_000);
    await expect(openTorchCheckpoint(cut)).rejects.toThrow(/or it is truncated/);
    await expect(openTorchCheckpoint(join(dir, "absent"))).rejects.toThrow(/no such file/);
  });
});
