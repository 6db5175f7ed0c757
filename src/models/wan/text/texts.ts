import { Worker } from "node:worker_threads";
import { z } from "zod";
import { DitrunError, messageOf } from "../../../failure.js";
import { shown } from "../../../formats/shown.js";
import { tokenizerThread } from "../../../paths.js";
import { failureCodeSchema } from "../../../protocol/failure-code.js";
import { counted } from "../../../text.js";
import { cleanText } from "./clean-text.js";

export interface NamedText {
  /** For messages, at the beginning of a sentence: `The prompt`. */
  readonly name: string;
  readonly text: string;
}

export interface TokenizedTexts {
  /** Of each text, in their order. */
  readonly ids: number[][];
  /** A sentence for each text that was cut. */
  readonly warnings: readonly string[];
  /** Of each text, a sentence where the tokenizer does not know most of its words. */
  readonly unknown: readonly (string | undefined)[];
}

/** @param where it was given. @throws DitrunError when nothing is left of the prompt once it is cleaned. */
export function checkPrompt(prompt: string, where = "--prompt"): void {
  if (cleanText(prompt) === "")
    throw new DitrunError("ERR_PROMPT", `${where} is empty: say what the video should show.`);
}

const answerSchema = z.union([
  z.object({ ids: z.array(z.array(z.int().min(0)).min(1)), unknown: z.array(z.int().min(0)) }),
  z.object({ message: z.string(), code: failureCodeSchema }),
]);
/** Ids of each text, uncut, and how many of them stand for something unknown; or why there are none. */
export type TokenizerAnswer = z.infer<typeof answerSchema>;

/** Far above what the published tokenizer takes: seconds, and some 700 MB while its 256,000 pieces are read. */
const DEADLINE_MS = 120_000;
const HEAP_MIB = 2048;

/**
 * A tokenizer on a thread, which is ended where the tokenizer's own patterns take for ever or all memory. Its file is read at the
 * first texts, and again after such an end.
 */
export class TokenizerThread {
  #thread: Worker | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param place of the tokenizer, a folder or a file: see readTokenizer. */
  constructor(
    private readonly place: string,
    private readonly deadlineMs = DEADLINE_MS,
  ) {}

  /**
   * Token ids of texts, at most `limit` of each: the model takes no more, and the rest of a text is cut.
   * @throws DitrunError when the tokenizer cannot be read, or does not come to an end.
   */
  async tokenize(texts: readonly NamedText[], limit: number): Promise<TokenizedTexts> {
    const asked = this.#turn.then(() => this.#ask(texts.map(({ text }) => text)));
    this.#turn = asked.catch(() => undefined);
    const answer = await asked;
    if ("message" in answer) throw new DitrunError(answer.code, answer.message);
    const unknown = texts.map((text, index) => mostlyUnknown(text, answer.unknown[index] ?? 0));
    return { ...cutAll(texts, answer.ids, limit), unknown };
  }

  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.terminate();
  }

  async #ask(texts: readonly string[]): Promise<TokenizerAnswer> {
    this.#thread ??= new Worker(tokenizerThread, {
      workerData: { place: this.place },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    });
    const thread = this.#thread;
    const over = new AbortController();
    try {
      return await new Promise<TokenizerAnswer>((resolve, reject) => {
        const fail = (why: string) => reject(this.#refuse(why));
        const timer = setTimeout(
          () => fail(`has not come to an end after ${this.deadlineMs / 1000} s`),
          this.deadlineMs,
        );
        over.signal.addEventListener("abort", () => clearTimeout(timer));
        const listen = (event: "message" | "error" | "exit", listener: (value: unknown) => void) => {
          thread.on(event, listener);
          over.signal.addEventListener("abort", () => thread.off(event, listener), { once: true });
        };
        listen("message", (message) => resolve(answerSchema.parse(message)));
        listen("error", (error) => {
          const exhausted = error instanceof Error && "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
          fail(exhausted ? `needs more than ${HEAP_MIB} MiB` : `failed (${shown(messageOf(error))})`);
        });
        listen("exit", () => fail("ended without an answer"));
        thread.ref();
        thread.postMessage(texts);
      });
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      over.abort();
      // A thread that waits for texts keeps no process alive.
      thread.unref();
    }
  }

  #refuse(why: string): DitrunError {
    return new DitrunError(
      "ERR_TOKENIZER",
      `The tokenizer in ${this.place} ${why}; take the published one of google/umt5-xxl.`,
    );
  }
}

/** The same for texts of which there is but one set. */
export async function tokenize(
  texts: readonly NamedText[],
  place: string,
  limit: number,
  deadlineMs = DEADLINE_MS,
): Promise<TokenizedTexts> {
  const thread = new TokenizerThread(place, deadlineMs);
  try {
    return await thread.tokenize(texts, limit);
  } finally {
    await thread.close();
  }
}

const END = 1;

/** The same where weights are random and no tokenizer is there: a token for each byte of a text, and one for its end. */
export function bytesAsTokens(texts: readonly NamedText[], vocabulary: number, limit: number): TokenizedTexts {
  const encode = (text: string) => [
    ...[...new TextEncoder().encode(cleanText(text))].map((byte) => (byte + 2) % vocabulary),
    END,
  ];
  const uncut = texts.map(({ text }) => encode(text));
  return { ...cutAll(texts, uncut, limit), unknown: texts.map(() => undefined) };
}

/** @param tokens how many of the text's stand for something unknown: one a word at most. */
function mostlyUnknown({ name, text }: NamedText, tokens: number): string | undefined {
  const words = cleanText(text).split(/\s+/u).length;
  if (2 * tokens <= words) return undefined;
  return `${name} has ${counted(words, "word")}, and the model's tokenizer does not know ${tokens}: the video will not show what they mean.`;
}

/** A text that is too long loses its last tokens, but keeps the one for its end. */
function cutAll(
  texts: readonly NamedText[],
  uncut: readonly number[][],
  limit: number,
): Pick<TokenizedTexts, "ids" | "warnings"> {
  const warnings: string[] = [];
  const ids = texts.map(({ name }, index) => {
    const all = uncut[index] ?? [];
    const { length } = all;
    if (length <= limit) return all;
    warnings.push(`${name} has ${length} tokens; the model takes ${limit}, so the last ${length - limit} are cut off.`);
    return [...all.slice(0, limit - 1), ...all.slice(-1)];
  });
  return { ids, warnings };
}
