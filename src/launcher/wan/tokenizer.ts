import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { fileFailure } from "../../formats/file-failure.js";
import { DitrunError, messageOf } from "../../protocol/failure.js";
import { cleanText } from "./clean-text.js";

/** Tokens that Wan's text encoder reads at most, the end token included (text_len of the published configurations). */
export const maxTextTokens = 512;
const endToken = "</s>";

/** What this code itself relies on; the rest of tokenizer.json is the tokenizers library's. */
const tokenizerSchema = z.looseObject({ model: z.looseObject({ type: z.literal("Unigram") }) });
const configSchema = z.looseObject({});

/** Wan's prompt tokenizer: text in, ids of at most 512 tokens out, ending in the end token, without padding. */
export class WanTokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #end: number;

  private constructor(tokenizer: Tokenizer, end: number) {
    this.#tokenizer = tokenizer;
    this.#end = end;
  }

  /**
   * Reads tokenizer.json and tokenizer_config.json of a directory (`google/umt5-xxl` in the original layout, `tokenizer`
   * in the diffusers layout). Throws DitrunError if one is missing or is not a Unigram tokenizer with an end token.
   */
  static async open(directory: string): Promise<WanTokenizer> {
    const file = join(directory, "tokenizer.json");
    const tokenizer = new Tokenizer(
      await readJson(file, tokenizerSchema),
      await readJson(join(directory, "tokenizer_config.json"), configSchema),
    );
    const end = tokenizer.token_to_id(endToken);
    if (end === undefined || tokenizer.encode("").ids.at(-1) !== end)
      throw new DitrunError(`${file} does not end texts with the token ${endToken}; is it the tokenizer of UMT5?`);
    return new WanTokenizer(tokenizer, end);
  }

  /**
   * Ids of a text after Wan's cleaning, shape [tokens], 1 ≤ tokens ≤ `limit`. A longer text loses its last tokens but
   * keeps the end token.
   */
  encode(text: string, limit = maxTextTokens): Int32Array {
    const { ids } = this.#tokenizer.encode(cleanText(text));
    return Int32Array.from(ids.length > limit ? [...ids.slice(0, limit - 1), this.#end] : ids);
  }
}

async function readJson<T extends object>(path: string, schema: z.ZodType<T>): Promise<T> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new DitrunError(`Cannot read the tokenizer's ${path}: ${fileFailure(error)}.`);
  });
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    const issue = error instanceof z.ZodError ? error.issues[0] : undefined;
    const why = issue ? `at ${issue.path.join(".") || "its top"}, ${issue.message}` : messageOf(error);
    throw new DitrunError(`${path} is not a tokenizer that ditrun can read: ${why}.`);
  }
}
