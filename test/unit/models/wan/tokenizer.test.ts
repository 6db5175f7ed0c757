import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { openSafetensors } from "../../../../src/formats/safetensors.js";
import { tokenize } from "../../../../src/models/wan/text/texts.js";
import { WanTokenizer } from "../../../../src/models/wan/text/tokenizer.js";

const golden = new URL("../../../golden/data/wan", import.meta.url).pathname;
const texts = z.object({ texts: z.array(z.string()), prompt: z.string() });

test.each([join(golden, "original/google/umt5-xxl"), join(golden, "diffusers/tokenizer")])(
  "token ids equal the recorded ones: %s",
  async (folder) => {
    const tokenizer = await WanTokenizer.open(folder);
    const file = await openSafetensors(join(golden, "case.safetensors"));
    const samples = texts.parse(JSON.parse(await readFile(join(golden, "texts.json"), "utf8"))).texts;
    expect(samples.length).toBe(6);
    for (const [i, text] of samples.entries()) {
      const name = `tok.${i}.ids`;
      expect(file.info(name).dtype).toBe("I64");
      const recorded = new BigInt64Array((await file.read(name)).slice().buffer);
      expect(recorded.length).toBeGreaterThan(0);
      expect([...tokenizer.encode(text)]).toEqual([...recorded].map(Number));
    }
    await file.close();
  },
);

test("a long text is cut to the limit and keeps its end token", async () => {
  const tokenizer = await WanTokenizer.open(join(golden, "diffusers/tokenizer"));
  const long = "a red car ".repeat(400);
  const ids = tokenizer.encode(long);
  const [end] = tokenizer.encode("");
  expect(ids.length).toBe(512);
  expect(ids.at(-1)).toBe(end);
  expect([...ids.slice(0, 511)]).toEqual([...tokenizer.encode(long, 100_000).slice(0, 511)]);
});

test("missing and foreign tokenizers are sentences", async () => {
  const dir = await mkdtemp(join(tmpdir(), "ditrun-tokenizer-"));
  await expect(WanTokenizer.open(dir)).rejects.toThrow(/tokenizer.json could not be read: there is no such/);
  await writeFile(join(dir, "tokenizer.json"), '{"model": {"type": "BPE"}}');
  await expect(WanTokenizer.open(dir)).rejects.toThrow(/at model.type/);
  await writeFile(join(dir, "tokenizer.json"), "{");
  await expect(WanTokenizer.open(dir)).rejects.toThrow(/tokenizer.json is not valid JSON/);
  await rm(dir, { recursive: true });
});

describe("a tokenizer.json of another shape", () => {
  let dir = "";
  let published: Record<string, unknown> = {};
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "ditrun-tokenizer-"));
    await cp(join(golden, "diffusers/tokenizer"), dir, { recursive: true });
    const file = await readFile(join(dir, "tokenizer.json"), "utf8");
    published = z.record(z.string(), z.unknown()).parse(JSON.parse(file));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const write = (changes: Record<string, unknown>) =>
    writeFile(join(dir, "tokenizer.json"), JSON.stringify({ ...published, ...changes }));
  const asked = [{ name: "The prompt", text: `${"x".repeat(40)} a b` }];

  test.each([
    ["only a model's type", { model: { type: "Unigram" } }],
    ["no vocabulary", { model: { type: "Unigram", vocab: null } }],
    ["a vocabulary of numbers", { model: { type: "Unigram", vocab: [1, 2, 3], unk_id: 0 } }],
    ["an unknown normaliser", { normalizer: { type: "Evil" } }],
    ["a pattern that is none", { normalizer: { type: "Replace", pattern: { Regex: "(?<" }, content: "" } }],
  ])("%s is a sentence", async (_, changes) => {
    await write(changes);
    await expect(WanTokenizer.open(dir).then((made) => made.encode("a b"))).rejects.toThrow(
      /tokenizer.json (is not a tokenizer that ditrun can read: |does not end texts)/,
    );
  });

  test("patterns that take for ever are ended, and the launcher hears meanwhile", async () => {
    await write({ normalizer: { type: "Replace", pattern: { Regex: "(x+x+)+y" }, content: "" } });
    let heard = 0;
    const ear = setInterval(() => heard++, 100);
    await expect(tokenize(asked, dir, 512, 3000)).rejects.toThrow(
      `The tokenizer in ${dir} has not come to an end after 3 s; take the published one`,
    );
    clearInterval(ear);
    expect(heard).toBeGreaterThan(5);
  });

  test("a text that grows over and over is a sentence", async () => {
    const growing = { type: "Replace", pattern: { String: "x" }, content: "x".repeat(64) };
    await write({ normalizer: { type: "Sequence", normalizers: Array(30).fill(growing) } });
    await expect(tokenize(asked, dir, 512, 20_000)).rejects.toThrow(
      /tokenizer.json is not a tokenizer that ditrun can read: |needs more than|has not come to an end/,
    );
  });

  test("an error on the thread keeps its sentence", async () => {
    await rm(join(dir, "tokenizer.json"));
    await expect(tokenize(asked, dir, 512)).rejects.toThrow("tokenizer.json could not be read: there is no such file");
  });
});
