import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { readTextFile } from "../files/text-file.js";
import { checkPrompt, type NamedText } from "../models/wan/text/texts.js";

interface PromptArguments {
  /** The values of --prompt. */
  readonly prompt?: readonly string[] | undefined;
  /** The file of --prompts. */
  readonly prompts?: string | undefined;
}

/** Refuses a line that gives no prompts, or gives them in two ways. @throws DitrunError for both. */
export function checkPromptOptions({ prompt, prompts }: PromptArguments): void {
  if (prompt === undefined && prompts === undefined)
    throw new DitrunError("ERR_COMMAND_LINE", "--prompt or --prompts must be given. See ditrun wan generate --help.");
  if (prompt === undefined || prompts === undefined) return;
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--prompt and --prompts ${prompts} both say what to show: leave one of them out.`,
  );
}

/**
 * What each video should show, with what messages call it.
 * @throws DitrunError for a file that cannot be read or has no prompt, and for a prompt with nothing in it, with its line.
 */
export async function promptsOf({ prompt = [], prompts: file }: PromptArguments): Promise<NamedText[]> {
  if (file !== undefined) return readPrompts(file);
  const alone = prompt.length === 1;
  return prompt.map((text, index) => {
    const where = `--prompt number ${index + 1}`;
    checkPrompt(text, alone ? "--prompt" : where);
    return { name: alone ? "The prompt" : where, text };
  });
}

/** One prompt a line; blank lines and those that start with # are left out. */
async function readPrompts(file: string): Promise<NamedText[]> {
  const whole = await readTextFile(file).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `--prompts ${file} could not be read: ${fileFailure(error)}.`);
  });
  const prompts = whole
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .map((line, index) => ({ name: `${file} line ${index + 1}`, text: line.trim() }))
    .filter(({ text }) => text !== "" && !text.startsWith("#"));
  for (const { name, text } of prompts) {
    if (text.includes("\uFFFD")) throw new DitrunError("ERR_PROMPT", `${name} is not UTF-8: save the file as that.`);
    checkPrompt(text, name);
  }
  if (prompts.length > 0) return prompts;
  throw new DitrunError(
    "ERR_PROMPT",
    `--prompts ${file} has no prompt: write one a line; blank lines and lines that start with # do not count.`,
  );
}
