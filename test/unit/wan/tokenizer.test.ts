import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { openSafetensors } from "../../../src/formats/safetensors.js";
import { WanTokenizer } from "../../../src/launcher/wan/tokenizer.js";

const golden = new URL("../../golden/data/wan/", import.meta.url).pathname;
const texts = z.object({ texts: z.array(z.string()), prompt: z.string() });

test.each(["original/google/umt5-xxl", "diffusers/tokenizer"])(
  "token ids equal the recorded ones: %s",
  async (layout) => {
    const tokenizer = await WanTokenizer.open(join(golden, layout));
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
  await expect(WanTokenizer.open(dir)).rejects.toThrow(
    /Cannot read the tokenizer's .*tokenizer.json: there is no such/,
  );
  await writeFile(join(dir, "tokenizer.json"), '{"model": {"type": "BPE"}}');
  await expect(WanTokenizer.open(dir)).rejects.toThrow(/at model.type/);
  await writeFile(join(dir, "tokenizer.json"), "{");
  await expect(WanTokenizer.open(dir)).rejects.toThrow(/is not a tokenizer that ditrun can read/);
  await rm(dir, { recursive: true });
});
