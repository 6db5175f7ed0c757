import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { DitrunError, messageOf } from "../../../failure.js";
import { readJsonFile } from "../../../formats/json-file.js";
import { shown } from "../../../formats/shown.js";
import { cleanText } from "./clean-text.js";

/** Tokens that Wan's text encoder reads at most, the end token included (text_len of the published configurations). */
export const maxTextTokens = 512;
const endToken = "</s>";

/** What this code itself relies on; the rest of tokenizer.json is the tokenizers library's. */
const tokenizerSchema = z.looseObject({
  model: z.looseObject({ type: z.literal("Unigram"), unk_id: z.int().nullish() }),
});
const configSchema = z.looseObject({});

/** Wan's prompt tokenizer: text in, ids of at most 512 tokens out, ending in the end token, without padding. */
export class WanTokenizer {
  readonly #file: string;
  readonly #tokenizer: Tokenizer;
  readonly #end: number;

  private constructor(
    file: string,
    tokenizer: Tokenizer,
    end: number,
    /** The token for what no piece of the tokenizer says, if it has one. */
    readonly unknownId: number | undefined,
  ) {
    this.#file = file;
    this.#tokenizer = tokenizer;
    this.#end = end;
  }

  /**
   * Reads tokenizer.json and tokenizer_config.json of a directory (`google/umt5-xxl` in the original layout, `tokenizer`
   * in the diffusers layout). Throws DitrunError if one is missing or is not a Unigram tokenizer with an end token.
   */
  static async open(directory: string): Promise<WanTokenizer> {
    const file = join(directory, "tokenizer.json");
    const settings = await readJson(file, tokenizerSchema);
    const config = await readJson(join(directory, "tokenizer_config.json"), configSchema);
    return understanding(file, () => {
      const tokenizer = new Tokenizer(settings, config);
      const end = tokenizer.token_to_id(endToken);
      if (end === undefined || tokenizer.encode("").ids.at(-1) !== end)
        throw new DitrunError(
          "ERR_TOKENIZER",
          `${file} does not end texts with the token ${endToken}; is it the tokenizer of UMT5?`,
        );
      return new WanTokenizer(file, tokenizer, end, settings.model.unk_id ?? undefined);
    });
  }

  /**
   * Ids of a text after Wan's cleaning, shape [tokens], 1 ≤ tokens ≤ `limit`. A longer text loses its last tokens but
   * keeps the end token. The file may hold patterns that take for ever: see tokenize in texts.ts.
   */
  encode(text: string, limit = maxTextTokens): Int32Array {
    const { ids } = understanding(this.#file, () => this.#tokenizer.encode(cleanText(text)));
    return Int32Array.from(ids.length > limit ? [...ids.slice(0, limit - 1), this.#end] : ids);
  }
}

/** The library throws errors of its own at a file of another shape than it expects. */
function understanding<T>(file: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof DitrunError) throw error;
    throw new DitrunError(
      "ERR_TOKENIZER",
      `${file} is not a tokenizer that ditrun can read: ${shown(messageOf(error))}.`,
    );
  }
}

async function readJson<T extends object>(path: string, schema: z.ZodType<T>): Promise<T> {
  const checked = schema.safeParse(await readJsonFile(path));
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw new DitrunError(
    "ERR_TOKENIZER",
    `${path} is not a tokenizer that ditrun can read: at ${issue?.path.join(".") || "its top"}, ${issue?.message}.`,
  );
}
