import { decodeHTML, decodeHTMLStrict } from "entities";

/** Of numbers that are none, by what they stand for: U+FFFD, what Windows-1252 has, or nothing. Source: Python's html.unescape. */
function characterOf(number: number): string {
  if (number === 0 || number > 0x10ffff || (number >= 0xd800 && number <= 0xdfff)) return "\ufffd";
  // The library has the table of C1 controls.
  if (number >= 0x80 && number <= 0x9f) return decodeHTML(`&#${number};`);
  const control = (number < 0x20 && ![9, 10, 12, 13].includes(number)) || number === 0x7f;
  const none = (number >= 0xfdd0 && number <= 0xfdef) || (number & 0xfffe) === 0xfffe;
  return control || none ? "" : String.fromCodePoint(number);
}

/** All character references of HTML, also those without a semicolon, as Python's html.unescape. */
export function unescapeHtml(text: string): string {
  return text.replace(
    /&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|[^\t\n\f <&#;]{1,32};?)/g,
    (reference: string, decimal: string | undefined, hexadecimal: string | undefined) => {
      if (decimal !== undefined) return characterOf(Number(decimal));
      if (hexadecimal !== undefined) return characterOf(Number.parseInt(hexadecimal, 16));
      return decodeHTML(reference);
    },
  );
}

/** Those with a semicolon alone, and in capitals too where that names no other. Source: unescape_html of ftfy 6.3. */
export function unescapePlainHtml(text: string): string {
  return text.replace(/&#?[0-9A-Za-z]{1,24};/g, (reference) => {
    if (reference.startsWith("&#")) {
      const character = unescapeHtml(reference);
      return character.includes(";") ? reference : character;
    }
    const character = decodeHTMLStrict(reference);
    if (character !== reference || reference !== reference.toUpperCase()) return character;
    const small = reference.toLowerCase();
    const named = decodeHTMLStrict(small);
    return named !== small && unescapeHtml(reference) === reference ? named.toUpperCase() : reference;
  });
}
