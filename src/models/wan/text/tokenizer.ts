import { Tokenizer } from "@huggingface/tokenizers";
import { DitrunError, messageOf } from "../../../failure.js";
import { shown } from "../../../formats/shown.js";
import { cleanText } from "./clean-text.js";
import { readTokenizer } from "./tokenizer-source.js";

/** Tokens that Wan's text encoder reads at most, the end token included (text_len of the published configurations). */
export const maxTextTokens = 512;
const endToken = "</s>";

/** Wan's prompt tokenizer: text in, ids of at most 512 tokens out, ending in the end token, without padding. */
export class WanTokenizer {
  private constructor(
    private readonly file: string,
    private readonly tokenizer: Tokenizer,
    private readonly end: number,
    /** Whether what is in no piece is written as bytes. */
    private readonly byteFallback: boolean,
    /** The token for what no piece of the tokenizer says, if it has one. */
    readonly unknownId: number | undefined,
  ) {}

  /**
   * Reads the tokenizer of a folder (`google/umt5-xxl` in the original layout, `tokenizer` in the diffusers layout) or of a file: see
   * readTokenizer. Throws DitrunError if it is missing or is not a Unigram tokenizer with an end token.
   */
  static async open(place: string): Promise<WanTokenizer> {
    const { file, settings, config } = await readTokenizer(place);
    return understanding(file, () => {
      const tokenizer = new Tokenizer(settings, config);
      const end = tokenizer.token_to_id(endToken);
      if (end === undefined || tokenizer.encode("").ids.at(-1) !== end)
        throw new DitrunError(
          "ERR_TOKENIZER",
          `${file} does not end texts with the token ${endToken}; is it the tokenizer of UMT5?`,
        );
      const { unk_id: unknown, byte_fallback: byteFallback } = settings.model;
      return new WanTokenizer(file, tokenizer, end, byteFallback ?? false, unknown ?? undefined);
    });
  }

  /**
   * Ids of a text after Wan's cleaning, shape [tokens], 1 ≤ tokens ≤ `limit`. A longer text loses its last tokens but
   * keeps the end token. The file may hold patterns that take for ever: see tokenize in texts.ts.
   */
  encode(text: string, limit = maxTextTokens): Int32Array {
    const ids = understanding(this.file, () => {
      const { ids, tokens }: { ids: number[]; tokens: string[] } = this.tokenizer.encode(cleanText(text));
      return this.byteFallback ? ids.flatMap((id, index) => this.#bytesOf(tokens[index] ?? "") ?? [id]) : ids;
    });
    return Int32Array.from(ids.length > limit ? [...ids.slice(0, limit - 1), this.end] : ids);
  }

  /** Ids of the bytes of what is no piece, which the library leaves unknown; undefined for a piece. */
  #bytesOf(token: string): number[] | undefined {
    if (this.tokenizer.token_to_id(token) !== undefined) return undefined;
    const ids = [...new TextEncoder().encode(token)].map((byte) =>
      this.tokenizer.token_to_id(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
    );
    const known = ids.filter((id) => id !== undefined);
    return known.length === ids.length ? known : undefined;
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
