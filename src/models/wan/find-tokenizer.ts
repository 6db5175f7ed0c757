import { dirname, join } from "node:path";
import { openTensors } from "../../formats/open-tensors.js";
import { hasTokenizer, tokenizerIn } from "./text/tokenizer-source.js";

/** Where tokenizers stand beside a text encoder's file, in the layouts that there are. */
const beside = [".", "google/umt5-xxl", "tokenizer", "../tokenizer", "../google/umt5-xxl"];

/** The tokenizer of a text encoder: inside its file, or in a folder beside it. @returns undefined where there is none. */
export async function tokenizerFor(textEncoder: string): Promise<string | undefined> {
  const file = await openTensors(textEncoder);
  await file.close();
  if (hasTokenizer(file)) return textEncoder;
  for (const folder of beside) {
    const found = await tokenizerIn(join(dirname(textEncoder), folder));
    if (found !== undefined) return found;
  }
  return undefined;
}
