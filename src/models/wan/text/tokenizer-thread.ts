import { parentPort, workerData } from "node:worker_threads";
import { z } from "zod";
import { asDitrunError } from "../../../failure.js";
import type { TokenizerAnswer } from "./texts.js";
import { WanTokenizer } from "./tokenizer.js";

// What the thread of TokenizerThread (texts.ts) runs: a pattern of tokenizer.json may take for ever, and only a thread can be ended then.

const { place } = z.object({ place: z.string() }).parse(workerData);
let tokenizer: Promise<WanTokenizer> | undefined;

async function answer(texts: readonly string[]): Promise<TokenizerAnswer> {
  try {
    tokenizer ??= WanTokenizer.open(place);
    const opened = await tokenizer;
    const ids = texts.map((text) => [...opened.encode(text, Number.POSITIVE_INFINITY)]);
    return { ids, unknown: ids.map((each) => each.filter((id) => id === opened.unknownId).length) };
  } catch (error) {
    const { code, message } = asDitrunError(error);
    return { message, code };
  }
}

parentPort?.on("message", (message: unknown) => {
  void answer(z.array(z.string()).parse(message)).then((ids) => parentPort?.postMessage(ids));
});
