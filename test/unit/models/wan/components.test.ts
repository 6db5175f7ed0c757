import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { openSafetensors, writeSafetensors } from "../../../../src/formats/safetensors.js";
import type { NamedFiles } from "../../../../src/models/wan/components.js";
import { findFileModel, findModel } from "../../../../src/models/wan/find-model.js";
import { modelSource } from "../../../../src/models/wan/model-source.js";
import { readSentencePiece } from "../../../../src/models/wan/text/sentencepiece.js";
import { WanTokenizer } from "../../../../src/models/wan/text/tokenizer.js";
import { tinyCheckpoint } from "../../../../src/paths.js";
import { ggmlTypes, gguf } from "../../../gguf-files.js";
import { goldenCheckpoints } from "../../worker/wan/golden.js";
import { floats, store, transformerShapes } from "./small-model.js";

let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-components-"));
});
afterEach(() => rm(dir, { recursive: true }));

const tiny = (file: string) => join(tinyCheckpoint, file);
const weights = {
  transformer: tiny("diffusion_pytorch_model.safetensors"),
  "text encoder": tiny("models_t5_umt5-xxl-enc-bf16.pth"),
  VAE: tiny("Wan2.1_VAE.pth"),
};

async function source(files: NamedFiles, more: { directory?: string; model?: string; cache?: string } = {}) {
  const { directory, model = "tiny", cache = dir } = more;
  return modelSource({
    ...{ found: await findModel(model), weights: "checkpoint", seed: 0, directory, files, download: false },
    ...{ verify: false, environment: { HF_HUB_CACHE: cache }, onProgress: () => undefined, onNote: () => undefined },
  });
}

describe("files of single parts", () => {
  test("what is not named comes from the model's own checkpoint", async () => {
    const vae = join(dir, "any.name");
    await cp(weights.VAE, `${vae}.pth`);
    const found = await source({ VAE: `${vae}.pth` });
    expect(found.weights).toEqual({
      from: "checkpoint",
      ...{ transformer: weights.transformer, textEncoder: weights["text encoder"], vae: `${vae}.pth` },
    });
    expect(found.description).toBe(`VAE ${vae}.pth, the rest from ${tinyCheckpoint}`);
    expect(found.tokenizer).toBe(tiny("google/umt5-xxl"));
  });

  test("without --model a transformer is told by the configuration beside it", async () => {
    const found = await findFileModel(weights.transformer);
    expect(found).toMatchObject({ model: { width: 128, heads: 4, layers: 6 }, preset: { name: "tiny" } });
  });

  test("without one, by that of --ckpt-dir where it is of the same sizes; else its heads are guessed, and a sentence says so", async () => {
    const alone = join(dir, "alone.safetensors");
    await cp(weights.transformer, alone);
    expect(await findFileModel(alone, tinyCheckpoint)).toMatchObject({ model: { heads: 4 }, preset: { name: "tiny" } });
    expect((await findFileModel(alone, tinyCheckpoint)).guessed).toBeUndefined();
    for (const other of [undefined, goldenCheckpoints.original])
      expect(await findFileModel(alone, other)).toMatchObject({
        model: { heads: 1 },
        guessed: `${alone} does not say how many heads it has: 1 of 128 columns are taken, as published models have; a config.json beside it would say.`,
      });
    const narrow = join(dir, "narrow.safetensors");
    const tensors = [...transformerShapes()].map(([name, shape]) => [name, store("F32", shape, floats(name, shape))]);
    await writeSafetensors(narrow, Object.fromEntries(tensors));
    await expect(findFileModel(narrow)).rejects.toThrow(
      "its width 32 is no multiple of 128, as published models have: put its config.json beside it, or give --model.",
    );
  });

  test("VACE's control branch is called an overlay", async () => {
    const overlay = join(dir, "vace-module.safetensors");
    const shapes = new Map<string, readonly number[]>([
      ["vace_patch_embedding.weight", [1536, 96, 1, 2, 2]],
      ["vace_blocks.0.ffn.0.weight", [1, 1]],
    ]);
    const tensors = [...shapes].map(([name, shape]) => [name, store("BF16", shape, floats(name, shape))]);
    await writeSafetensors(overlay, Object.fromEntries(tensors));
    await expect(findFileModel(overlay)).rejects.toThrow(
      "is the control branch of Wan 2.1 VACE alone, an overlay on a 1.3B text-to-video transformer; ditrun does not edit videos",
    );
  });

  test("a file of another size than the model's, or of another part, is refused", async () => {
    await expect(source({ transformer: weights.transformer }, { model: "1.3B" })).rejects.toThrow(
      /No text encoder, VAE, tokenizer was named, .*: name it with --text-encoder, or add --download/,
    );
    const all = { ...weights };
    await expect(source(all, { model: "1.3B" })).rejects.toThrow(
      `${weights.transformer} holds a transformer with width 128, but --model 1.3B has width 1536`,
    );
    await expect(source({ transformer: weights.VAE })).rejects.toThrow(
      "is a VAE, not a transformer: give it with --vae.",
    );
  });

  test("the cache has what is not named, in any repository of Wan 2.1", async () => {
    const commit = "0123456789abcdef0123456789abcdef01234567";
    const snapshot = join(dir, "models--Wan-AI--Wan2.1-T2V-14B/snapshots", commit);
    await mkdir(snapshot, { recursive: true });
    for (const name of ["config.json", "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth", "google"])
      await symlink(tiny(name), join(snapshot, name));
    // A model that is neither published nor shipped.
    const yaml = join(dir, "own.yaml");
    await cp("configs/models/wan-tiny.yaml", yaml);
    const found = await source({ transformer: weights.transformer }, { model: yaml });
    expect(found.weights).toMatchObject({ vae: join(snapshot, "Wan2.1_VAE.pth") });
    expect(found.description).toBe(`transformer ${weights.transformer}, the rest from ${snapshot}`);
  });
});

/** A protocol buffer of the published form: pieces with scores and kinds, and how texts are normalised. */
function sentencePiece(
  pieces: readonly (readonly [text: string, score: number, kind: number])[],
  trainer = [3, 1],
): Uint8Array {
  const varint = (n: number): number[] => (n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)]);
  const field = (number: number, body: readonly number[]) => [
    ...varint((number << 3) | 2),
    ...varint(body.length),
    ...body,
  ];
  const number = (at: number, value: number) => [...varint(at << 3), ...varint(value)];
  const float = (at: number, value: number) => [(at << 3) | 5, ...new Uint8Array(Float32Array.of(value).buffer)];
  const text = (at: number, value: string) => field(at, [...new TextEncoder().encode(value)]);
  return Uint8Array.from([
    ...pieces.flatMap(([piece, score, kind]) => field(1, [...text(1, piece), ...float(2, score), ...number(3, kind)])),
    ...field(2, number(trainer[0] ?? 0, trainer[1] ?? 0)),
    ...field(3, [...text(1, "nfkc"), ...number(3, 1)]),
  ]);
}

const document = z.looseObject({ model: z.looseObject({ vocab: z.array(z.tuple([z.string(), z.number()])) }) });
const texts = z.object({ texts: z.array(z.string()) });

/** The golden tokenizer's pieces: their kinds are 2 for what is unknown, 3 for what stands for itself, and 1. */
async function goldenPieces() {
  const file = JSON.parse(await readFile(join(goldenCheckpoints.original, "google/umt5-xxl/tokenizer.json"), "utf8"));
  const { vocab } = document.parse(file).model;
  return vocab.map(([piece, score], id) => [piece, score, id === 3 ? 2 : id < 3 ? 3 : 1] as const);
}

async function expectGoldenIds(place: string): Promise<void> {
  const tokenizer = await WanTokenizer.open(place);
  const file = await openSafetensors("test/golden/data/wan/case.safetensors");
  const samples = texts.parse(JSON.parse(await readFile("test/golden/data/wan/texts.json", "utf8"))).texts;
  for (const [i, text] of samples.entries()) {
    const recorded = new BigInt64Array((await file.read(`tok.${i}.ids`)).slice().buffer);
    expect([...tokenizer.encode(text)]).toEqual([...recorded].map(Number));
  }
  await file.close();
}

describe("tokenizers in other files", () => {
  const path = (name: string) => join(dir, name);

  test("a SentencePiece model gives the recorded ids", async () => {
    await writeFile(path("spiece.model"), sentencePiece(await goldenPieces()));
    await expectGoldenIds(path("spiece.model"));
    await expectGoldenIds(dir);
  });

  test("so does the metadata of a GGUF file", async () => {
    const pieces = await goldenPieces();
    const norm = { type: ggmlTypes.F32, shape: [1], data: new Uint8Array(4) };
    const metadata = {
      "tokenizer.ggml.model": "t5",
      "tokenizer.ggml.tokens": pieces.map(([piece]) => piece),
      "tokenizer.ggml.scores": { floats: pieces.map(([, score]) => score) },
      "tokenizer.ggml.token_type": { ints: pieces.map(([, , kind]) => kind) },
    };
    await writeFile(path("umt5.gguf"), gguf({ "enc.output_norm.weight": norm }, metadata));
    await expectGoldenIds(path("umt5.gguf"));
    await writeFile(path("none.gguf"), gguf({ "enc.output_norm.weight": norm }));
    await expect(WanTokenizer.open(path("none.gguf"))).rejects.toThrow(/has no unigram tokenizer in its metadata/);
  });

  test("what is in no piece is written in bytes where there are such", async () => {
    const bytes = [0xf0, 0x9f, 0x98, 0x80].map((byte) => [`<0x${byte.toString(16).toUpperCase()}>`, 0, 6] as const);
    const pieces = [["<pad>", 0, 3], ["</s>", 0, 3], ["<unk>", 0, 2], ["▁", -1, 1], ["a", -2, 1], ...bytes] as const;
    await writeFile(path("spiece.model"), sentencePiece(pieces));
    const tokenizer = await WanTokenizer.open(dir);
    expect([...tokenizer.encode("a😀a")]).toEqual([3, 4, 5, 6, 7, 8, 4, 1]);
    // Of this one not every byte is there.
    expect([...tokenizer.encode("a☃")]).toEqual([3, 4, 2, 1]);
  });

  test.each([
    ["cut off", sentencePiece([["a", 0, 1]]).slice(0, 5), /it ends at byte 5, within a field/],
    ["of another type", sentencePiece([["a", 0, 1]], [3, 2]), /its type is 2, and only unigram models/],
    [
      "without a piece for what is unknown",
      sentencePiece([["a", 0, 1]]),
      /none of its 1 pieces is for what is unknown/,
    ],
    ["of other fields", Uint8Array.of(7), /it has a field of the kind 7/],
  ])("one that is %s is a sentence", (_, bytes, message) => {
    expect(() => readSentencePiece("x.model", bytes)).toThrow(message);
  });
});
