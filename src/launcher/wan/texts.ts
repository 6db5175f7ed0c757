import { DitrunError } from "../../protocol/failure.js";
import { cleanText } from "./clean-text.js";
import { WanTokenizer } from "./tokenizer.js";

export interface Texts {
  readonly prompt: string;
  readonly negative: string;
}

export interface TokenizedTexts {
  readonly prompt: number[];
  readonly negative: number[];
  /** A sentence for each text that was cut. */
  readonly warnings: readonly string[];
}

/** @throws DitrunError when nothing is left of the prompt once it is cleaned. */
export function checkPrompt(prompt: string): void {
  if (cleanText(prompt) === "") throw new DitrunError("--prompt is empty: say what the video should show.");
}

/**
 * Token ids of both texts, at most `limit` of each: the model takes no more, and the rest of a text is cut.
 * @param directory with the tokenizer. @throws DitrunError when it cannot be read.
 */
export async function tokenize(texts: Texts, directory: string, limit: number): Promise<TokenizedTexts> {
  const tokenizer = await WanTokenizer.open(directory);
  return encodeBoth(texts, (text, most) => tokenizer.encode(text, most), limit);
}

const END = 1;

/** The same where weights are random and no tokenizer is there: a token for each byte of a text, and one for its end. */
export function bytesAsTokens(texts: Texts, vocabulary: number, limit: number): TokenizedTexts {
  const encode = (text: string, most: number): number[] => {
    const bytes = [...new TextEncoder().encode(cleanText(text))].map((byte) => (byte + 2) % vocabulary);
    return [...bytes.slice(0, most - 1), END];
  };
  return encodeBoth(texts, encode, limit);
}

function encodeBoth(
  { prompt, negative }: Texts,
  encode: (text: string, most: number) => ArrayLike<number>,
  limit: number,
): TokenizedTexts {
  const warnings = Object.entries({ prompt, negative }).flatMap(([name, text]) => {
    const { length } = encode(text, Number.POSITIVE_INFINITY);
    if (length <= limit) return [];
    const which = name === "prompt" ? "The prompt" : "The negative prompt";
    return [`${which} has ${length} tokens; the model takes ${limit}, so the last ${length - limit} are cut off.`];
  });
  const ids = (text: string) => Array.from(encode(text, limit));
  return { prompt: ids(prompt), negative: ids(negative), warnings };
}
