import { describe, expect, test } from "vitest";
import { pages, textOf } from "./pages.js";
import { meanWords, sentencesOf } from "./prose.js";

/** Words of a sentence: in the mean of a page, and of any one. */
const MEAN = 16;
const MOST = 28;

describe.each(pages)("%s", (page) => {
  const sentences = sentencesOf(textOf(page));

  test(`has at most ${MEAN} words a sentence in the mean`, () => {
    expect(meanWords(sentences)).toBeLessThanOrEqual(MEAN);
  });

  test(`has no sentence of more than ${MOST} words`, () => {
    expect(sentences.filter(({ words }) => words > MOST)).toEqual([]);
  });
});

test("sentences are found where they end", () => {
  const text = [
    "# A heading of no sentence",
    "",
    "One two three. Four five (see [six](seven.md)) `eight nine ten`.",
    "`--this` begins one. 11 too. bench/x does",
    "",
    "- An item: its colon ends nothing",
    "- e.g. this, version 1.2 and a.b are no ends",
    "1. A number",
    "",
    "| a table | is none. No. |",
    "```sh",
    "nor is code. No.",
    "```",
    "<!-- nor a comment. No. -->",
  ].join("\n");
  expect(sentencesOf(text)).toEqual([
    { text: "One two three.", words: 3 },
    { text: "Four five (see six) span.", words: 5 },
    { text: "span begins one.", words: 3 },
    { text: "11 too.", words: 2 },
    { text: "bench/x does", words: 2 },
    { text: "An item: its colon ends nothing", words: 6 },
    { text: "e.g. this, version 1.2 and a.b are no ends", words: 9 },
    { text: "A number", words: 2 },
  ]);
});

test("the mean is of all sentences", () => {
  expect(meanWords(sentencesOf("One two. One two three four."))).toBe(3);
  expect(meanWords([])).toBe(0);
});
