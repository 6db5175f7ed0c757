import { readEntities } from "./html-entities.js";

/** What browsers make of the C1 range, Windows-1252; the holes stay control characters and are kept, as in Python. */
const windows1252 =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

let entities: Map<string, string> | undefined;

function numericReference(code: number): string {
  if (code === 0) return "\ufffd";
  if (code === 0x0d) return "\r";
  if (code >= 0x80 && code <= 0x9f) return windows1252.charAt(code - 0x80);
  if ((code >= 0xd800 && code <= 0xdfff) || !(code <= 0x10ffff)) return "\ufffd";
  const isControl = code < 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0c;
  const isNonCharacter = (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
  return isControl || code === 0x7f || isNonCharacter ? "" : String.fromCodePoint(code);
}

function namedReference(name: string): string {
  entities ??= readEntities();
  // The longest name that the text begins with, as HTML says: `&notit;` is `¬it;`.
  for (let length = name.length; length > 1; length--) {
    const text = entities.get(name.slice(0, length));
    if (text !== undefined) return text + name.slice(length);
  }
  return `&${name}`;
}

/** Resolves character references by the rules of HTML 5; equal to Python's html.unescape. */
export function unescapeHtml(text: string): string {
  return text.replace(
    /&(?:#(\d+);?|#[xX]([\da-fA-F]+);?|([^\t\n\f <&#;]{1,32};?))/gu,
    (_, decimal?: string, hex?: string, name?: string) =>
      name !== undefined
        ? namedReference(name)
        : numericReference(Number.parseInt(hex ?? decimal ?? "", hex ? 16 : 10)),
  );
}

/**
 * Wan's cleaning of a prompt: straight quotation marks for curly ones (the part of ftfy.fix_text that well-formed text
 * meets; text decoded with a wrong character set is not repaired), HTML unescaped twice, white space collapsed, ends
 * stripped. Source: basic_clean and whitespace_clean of wan/modules/tokenizers.py.
 */
export function cleanText(text: string): string {
  const straight = text.replace(/[\u02bc\u2018-\u201b]/g, "'").replace(/[\u201c-\u201f]/g, '"');
  return unescapeHtml(unescapeHtml(straight))
    .replace(/\p{White_Space}+/gu, " ")
    .trim();
}
