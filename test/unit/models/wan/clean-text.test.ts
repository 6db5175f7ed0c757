import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { z } from "zod";
import { cleanText } from "../../../../src/models/wan/text/clean-text.js";
import { fixEncoding } from "../../../../src/models/wan/text/fix-encoding.js";
import { unescapeHtml, unescapePlainHtml } from "../../../../src/models/wan/text/html-unescape.js";

test("texts become what Wan's own cleaning makes of them", async () => {
  const file = new URL("../../../golden/data/wan/cleaned.json", import.meta.url);
  const cases = z.array(z.tuple([z.string(), z.string()])).parse(JSON.parse(await readFile(file, "utf8")));
  expect(cases.length).toBeGreaterThan(300);
  for (const [text, cleaned] of cases) expect(cleanText(text), JSON.stringify(text)).toBe(cleaned);
});

// What ftfy 6.3.1 gives.
test.each([
  ["a s\u00c3\u00b3 b", "a s\u00f3 b"],
  ["voil\u00c3 le travail", "voil\u00e0 le travail"],
  ["\u00e2\u20ac\u0153quoted\u00e2\u20ac\ufffd", "\u201cquoted\ufffd"],
  ["\u00c3\u0192\u00c2\u00a9", "\u00e9"],
  ["caf\u00e9 \u00c5 la carte", "caf\u00e9 \u00c5 la carte"],
  ["\u0420\u0458\u0420\u0451\u0421\u0402", "\u0420\u0458\u0420\u0451\u0421\u0402"],
  ["\u0420\u0459\u0420\u0455\u0421\u20ac\u0420\u0454\u0420\u00b0", "\u041a\u043e\u0448\u043a\u0430"],
])("what UTF-8 became in another encoding is repaired, and nothing else: %j", (text, expected) => {
  expect(fixEncoding(text)).toBe(expected);
});

// Right-hand sides are what Python 3's html.unescape gives.
test.each([
  ["&lt;b&gt; &amp;amp;", "<b> &amp;"],
  ["caf&eacute; &copy2024 &notin;", "caf\u00e9 \u00a92024 \u2209"],
  ["&#233;&#xE9;&#x80;&#0;&#1;&#xd800;&#xfffe;", "\u00e9\u00e9\u20ac\ufffd\ufffd"],
  ["&nosuch; & &#x; &#38;lt;", "&nosuch; & &#x; &lt;"],
])("all character references are resolved, once: %j", (text, expected) => {
  expect(unescapeHtml(text)).toBe(expected);
});

test("those without a semicolon stay where only the plain ones are meant; capitals are understood", () => {
  expect(unescapePlainHtml("P&EACUTE;REZ this&not &SZLIG; &nTILDE; &#59;")).toBe(
    "P\u00c9REZ this&not SS &nTILDE; &#59;",
  );
});

test("cleaning collapses white space, unescapes twice, straightens quotation marks, also those of HTML", () => {
  expect(cleanText("  A\u00a0red \n\t car\u3000&amp;amp; it\u2019s \u201cblue\u201d &ldquo;sky&rdquo; ")).toBe(
    'A red car & it\'s "blue" "sky"',
  );
  // Beside a tag HTML is left to the end, when nothing straightens quotes any more.
  expect(cleanText("<b> &ldquo;")).toBe("<b> \u201c");
  expect(cleanText(" \n ")).toBe("");
});
