import { parentPort, workerData } from "node:worker_threads";
import { z } from "zod";
import { asDitrunError } from "../../../failure.js";
import type { TokenizerAnswer } from "./texts.js";
import { WanTokenizer } from "./tokenizer.js";

// What a thread of tokenize (texts.ts) runs: a pattern of tokenizer.json may take for ever, and only a thread can be ended then.

const request = z.object({ directory: z.string(), texts: z.array(z.string()) }).parse(workerData);

async function answer(): Promise<TokenizerAnswer> {
  try {
    const tokenizer = await WanTokenizer.open(request.directory);
    return { ids: request.texts.map((text) => [...tokenizer.encode(text, Number.POSITIVE_INFINITY)]) };
  } catch (error) {
    const { code, message } = asDitrunError(error);
    return { message, code };
  }
}

parentPort?.postMessage(await answer());
