import { withoutFences } from "./pages.js";

/** A sentence, and how many words it has. */
export interface Sentence {
  readonly text: string;
  readonly words: number;
}

/** Stands for a span of code or a link: one thing, one word. */
const SPAN = "span";

/**
 * The sentences of a page. Headings, tables, code, pictures and comments are none. An item of a list ends like a paragraph, a
 * colon ends no sentence, and a span of code counts as one word.
 */
export function sentencesOf(markdown: string): Sentence[] {
  const prose = withoutFences(markdown)
    .replace(/<!--[\s\S]*?-->/g, "")
    .replace(/^(?:#+ |\||<).*$/gm, "")
    .replace(/!\[[^\]]*\]\([^)]*\)/g, "")
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/`[^`]+`/g, SPAN);
  const paragraphs = prose.split(/\n\s*\n|\n\s*(?=[-*] |\d+\. )/);
  return paragraphs.flatMap((paragraph) =>
    paragraph
      .replace(/^\s*(?:[-*]|\d+\.) /, "")
      .replace(/\s+/g, " ")
      .split(/(?<=(?<!\b(?:e\.g|i\.e))[.!?]["”)*_]*) /)
      .map((text) => ({ text: text.trim(), words: wordsIn(text) }))
      .filter(({ words }) => words > 0),
  );
}

const wordsIn = (text: string) => text.split(/\s+/).filter((word) => /[\p{L}\d]/u.test(word)).length;

/** Words of a sentence in the mean; 0 of no sentence. */
export function meanWords(sentences: readonly Sentence[]): number {
  return sentences.reduce((sum, { words }) => sum + words, 0) / Math.max(1, sentences.length);
}
