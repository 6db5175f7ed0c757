import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { cleanText, unescapeHtml } from "../../../src/worker/models/wan/clean-text.js";
import { readEntities } from "../../../src/worker/models/wan/html-entities.js";
import { WanTokenizer } from "../../../src/worker/models/wan/tokenizer.js";
import { openSafetensors } from "../../../src/worker/weights/safetensors.js";

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

// Right-hand sides are what Python 3's html.unescape gives.
test.each([
  ["&amp;", "&"],
  ["&amp;amp;", "&amp;"],
  ["a &lt b", "a < b"],
  ["&notit;", "\u00acit;"],
  ["&notin;", "\u2209"],
  ["&copy2024", "\u00a92024"],
  ["&#233;", "\u00e9"],
  ["&#xE9;&#XE9", "\u00e9\u00e9"],
  ["&#0;", "\ufffd"],
  ["&#13;x", "\rx"],
  ["&#x80;&#x81;&#x9f;", "\u20ac\u0081\u0178"],
  ["&#xD800;", "\ufffd"],
  ["&#x110000;", "\ufffd"],
  ["&#99999999999999999999;", "\ufffd"],
  ["&#1;&#31;&#127;", ""],
  ["&#xFDD0;&#xFFFE;&#x1FFFF;", ""],
  ["&nosuch;", "&nosuch;"],
  ["&;", "&;"],
  ["& &amp", "& &"],
  ["&acE;", "\u223e\u0333"],
  ["&NotEqualTilde;", "\u2242\u0338"],
  ["&#x;", "&#x;"],
  ["&#;", "&#;"],
  ["&ampamp;", "&amp;"],
  ["&CounterClockwiseContourIntegral;", "\u2233"],
  [
    "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;",
    "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;",
  ],
  ["&\ud83d\ude00amp;", "&\ud83d\ude00amp;"],
  ["&Aacute&aacute;", "\u00c1\u00e1"],
  ["&#9;&#10;&#12;&#11;", "\t\n\f"],
  ["&nbsp;", "\u00a0"],
  ["&amp;lt;b&amp;gt;", "&lt;b&gt;"],
])("unescapes %j", (text, expected) => {
  expect(unescapeHtml(text)).toBe(expected);
});

test("the table of entities is the one of Python's html.entities", () => {
  const entities = readEntities();
  const lines = [...entities].map(([name, text]) => `${name}\t${text}`);
  // By code unit, which is Python's order for these ASCII names.
  lines.sort((a, b) => (a < b ? -1 : 1));
  expect(lines.length).toBe(2231);
  // sha256 of "\n".join(f"{k}\t{html5[k]}" for k in sorted(html5)).
  expect(createHash("sha256").update(lines.join("\n")).digest("hex")).toBe(
    "4f298bdc8c2f4ba6f3e9783ea0f756e7600bc6497c2a1a6caf9162044e803df6",
  );
});

test("cleaning collapses white space, unescapes twice, straightens quotation marks", () => {
  expect(cleanText("  A\u00a0red \n\t car\u3000&amp;amp; it\u2019s \u201cblue\u201d ")).toBe(
    'A red car & it\'s "blue"',
  );
  expect(cleanText(" \n ")).toBe("");
});
