import { stripVTControlCharacters, styleText } from "node:util";

/** What text is laid out for: a terminal, a file or a pipe. */
export interface Page {
  /** Characters in a line. */
  readonly columns: number;
  readonly colour: boolean;
  /** Whether sentences are broken into lines; in a pipe each stays whole, for grep. */
  readonly wraps: boolean;
}

/** Of a pipe or a file, unless COLUMNS says otherwise. */
export const plainPage: Page = { columns: 80, colour: false, wraps: false };

/** Tables get no wider than this: eyes lose the row. */
const WIDEST = 160;
const NARROWEST = 20;

/** The page of a stream. @param environment for COLUMNS and FORCE_COLOR; on a terminal, Node.js looks for NO_COLOR and TERM=dumb. */
export function pageOf(
  stream: { readonly isTTY?: boolean; readonly columns?: number; hasColors?(): boolean },
  environment: Readonly<Record<string, string | undefined>>,
): Page {
  const { COLUMNS = "", FORCE_COLOR, NO_COLOR } = environment;
  const told = /^[1-9]\d{0,4}$/.test(COLUMNS) ? Number(COLUMNS) : plainPage.columns;
  const isTerminal = stream.isTTY === true;
  const columns = isTerminal ? stream.columns || told : told;
  const forced = FORCE_COLOR !== undefined && FORCE_COLOR !== "0" && FORCE_COLOR !== "false";
  const refused = FORCE_COLOR === undefined ? NO_COLOR !== undefined && NO_COLOR !== "" : !forced;
  const colour = !refused && (forced || (isTerminal && (stream.hasColors?.() ?? false)));
  return { columns: Math.min(WIDEST, Math.max(NARROWEST, columns)), colour, wraps: isTerminal };
}

export type Paint = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** The text in a colour, where the page has any. */
export function paint({ colour }: Page, format: Paint | Paint[], text: string): string {
  return colour ? styleText(format, text, { validateStream: false }) : text;
}

/** East Asian characters and pictures, which take two columns. */
const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;
const narrow = /^[\p{M}\u200b-\u200f]$/u;

/** Columns that a text takes in a terminal, without its colours. */
export function textWidth(text: string): number {
  let width = 0;
  for (const character of stripVTControlCharacters(text)) {
    width += narrow.test(character) ? 0 : wide.test(character) ? 2 : 1;
  }
  return width;
}

/** The text without colours, cut to so many columns: `attention 8×51…`. */
export function cut(text: string, columns: number): string {
  if (textWidth(text) <= columns) return text;
  let kept = "";
  for (const character of stripVTControlCharacters(text)) {
    if (textWidth(kept + character) > columns - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

/** A sentence, on a terminal broken between words into lines of the page. */
export function prose({ columns, wraps }: Page, text: string): string {
  if (!wraps) return text;
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && textWidth(line) + 1 + textWidth(word) > columns) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].join("\n");
}
