import { Worker } from "node:worker_threads";
import { z } from "zod";
import { DitrunError, messageOf } from "../../../failure.js";
import { shown } from "../../../formats/shown.js";
import { tokenizerThread } from "../../../paths.js";
import { failureCodeSchema } from "../../../protocol/failure-code.js";
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
}

/** @param where it was given. @throws DitrunError when nothing is left of the prompt once it is cleaned. */
export function checkPrompt(prompt: string, where = "--prompt"): void {
  if (cleanText(prompt) === "")
    throw new DitrunError("ERR_PROMPT", `${where} is empty: say what the video should show.`);
}

const answerSchema = z.union([
  z.object({ ids: z.array(z.array(z.int().min(0)).min(1)) }),
  z.object({ message: z.string(), code: failureCodeSchema }),
]);
/** Ids of each text, uncut, or why there are none. */
export type TokenizerAnswer = z.infer<typeof answerSchema>;

/** Far above what the published tokenizer takes: seconds, and some 700 MB while its 256,000 pieces are read. */
const DEADLINE_MS = 120_000;
const HEAP_MIB = 2048;

/**
 * Token ids of texts, at most `limit` of each: the model takes no more, and the rest of a text is cut.
 * They are found on a thread, which is ended where the tokenizer's own patterns take for ever or all memory.
 * @param directory with the tokenizer. @throws DitrunError when it cannot be read, or does not come to an end.
 */
export async function tokenize(
  texts: readonly NamedText[],
  directory: string,
  limit: number,
  deadlineMs = DEADLINE_MS,
): Promise<TokenizedTexts> {
  const answer = await askThread(
    texts.map(({ text }) => text),
    directory,
    deadlineMs,
  );
  if ("message" in answer) throw new DitrunError(answer.code, answer.message);
  return cutAll(texts, answer.ids, limit);
}

async function askThread(texts: readonly string[], directory: string, deadlineMs: number): Promise<TokenizerAnswer> {
  const refuse = (why: string) =>
    new DitrunError(
      "ERR_TOKENIZER",
      `The tokenizer in ${directory} ${why}; take the published one of google/umt5-xxl.`,
    );
  const thread = new Worker(tokenizerThread, {
    workerData: { directory, texts },
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<TokenizerAnswer>((resolve, reject) => {
      timer = setTimeout(() => reject(refuse(`has not come to an end after ${deadlineMs / 1000} s`)), deadlineMs);
      thread.once("message", (message: unknown) => resolve(answerSchema.parse(message)));
      thread.once("error", (error) => {
        const exhausted = "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
        reject(refuse(exhausted ? `needs more than ${HEAP_MIB} MiB` : `failed (${shown(messageOf(error))})`));
      });
      thread.once("exit", () => reject(refuse("ended without an answer")));
    });
  } finally {
    clearTimeout(timer);
    await thread.terminate();
  }
}

const END = 1;

/** The same where weights are random and no tokenizer is there: a token for each byte of a text, and one for its end. */
export function bytesAsTokens(texts: readonly NamedText[], vocabulary: number, limit: number): TokenizedTexts {
  const encode = (text: string) => [
    ...[...new TextEncoder().encode(cleanText(text))].map((byte) => (byte + 2) % vocabulary),
    END,
  ];
  return cutAll(
    texts,
    texts.map(({ text }) => encode(text)),
    limit,
  );
}

/** A text that is too long loses its last tokens, but keeps the one for its end. */
function cutAll(texts: readonly NamedText[], uncut: readonly number[][], limit: number): TokenizedTexts {
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
