import { DitrunError, escapeControls } from "../failure.js";

const MOST_CHARACTERS = 250;

/** A text out of a file or an answer, for a message: on one line, control characters as escapes, not longer than a few lines. */
export function shown(text: string): string {
  const line = escapeControls(text).replaceAll("\n", "\\n");
  return line.length <= MOST_CHARACTERS ? line : `${line.slice(0, MOST_CHARACTERS)}…`;
}

/** True for a text that is shown as it is: of a length that names have, and without control characters. */
export function isPlain(text: string): boolean {
  return text.length <= MOST_CHARACTERS && shown(text) === text;
}

/** @throws DitrunError for a name that no model's tensor has: messages quote it from here on. */
export function checkTensorName(path: string, name: string): void {
  if (isPlain(name)) return;
  throw new DitrunError(
    "ERR_TENSOR_NAME",
    `${path} has a tensor named "${shown(name)}"; names of tensors have at most ${MOST_CHARACTERS} characters and no control characters.`,
  );
}
