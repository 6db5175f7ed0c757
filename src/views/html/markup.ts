/** A piece of a page that is safe to put into one: its texts are escaped. */
export class Markup {
  constructor(readonly text: string) {}
}

type Piece = string | number | Markup | undefined | readonly Piece[];

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** A text as it shows, in an element or in quotes of an attribute. */
export function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => escapes[character] ?? character);
}

function textOf(piece: Piece): string {
  if (piece === undefined) return "";
  if (piece instanceof Markup) return piece.text;
  return typeof piece === "object" ? piece.map(textOf).join("") : escaped(String(piece));
}

/** Markup with texts in it: those are escaped, other markup stands as it is, and undefined is nothing. */
export function html(strings: TemplateStringsArray, ...pieces: readonly Piece[]): Markup {
  return new Markup(strings.map((text, index) => `${text}${textOf(pieces[index])}`).join(""));
}

/** Data for a script of the page. */
export function data(id: string, value: unknown): Markup {
  const text = JSON.stringify(value).replaceAll("<", "\\u003c");
  return new Markup(`<script type="application/json" id="${escaped(id)}">${text}</script>`);
}

/** A script of the page. @throws Error for one that would end its element. */
export function script(code: string): Markup {
  if (/<\/script/i.test(code)) throw new Error("A script of a page holds the end of a script.");
  return new Markup(`<script>${code}</script>`);
}
