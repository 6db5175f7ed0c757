import { codePages, likeLatin1 } from "./code-pages.js";
import { looksMisread } from "./mojibake-signs.js";

/**
 * Repairs text whose UTF-8 was decoded by an encoding of one byte a character, once or more often, as far as it looks so.
 * Source: fix_encoding of ftfy 6.3, with its usual settings. Bytes are texts of U+0000 to U+00FF here.
 */
export function fixEncoding(text: string): string {
  let [before, fixed] = ["", text];
  while (fixed !== before) [before, fixed] = [fixed, oneStep(fixed)];
  return fixed;
}

function oneStep(text: string): string {
  if (!looksMisread(text)) return text;
  for (const [index, page] of codePages.entries()) {
    const bytes = page.encode(text);
    if (bytes === undefined) continue;
    const fixed = decodeUtf8(restored(bytes, page.sloppy, index === MAC_ROMAN));
    if (fixed !== undefined) return fixed;
  }
  const inParts = text.replace(embedded, (part) =>
    part.length < text.length && looksMisread(part) ? fixEncoding(part) : part,
  );
  // What is left is Latin-1 that was meant as Windows-1252, as a whole or here and there.
  return inParts === text ? windowsControls(text) : inParts;
}

const MAC_ROMAN = 8;
const windows1252 = codePages[1]?.upper ?? [];

/** C1 control characters become what Windows-1252 has in their places, as in web browsers. */
export function windowsControls(text: string): string {
  return text.replace(/[\u0080-\u009f]/g, (control) => windows1252[control.charCodeAt(0) - 0x80] ?? control);
}

/** Sequences that were UTF-8 but for a byte A0 that has become a space; and what stands before the à of a word of its own. */
const spaced = new RegExp(
  [
    "[\\xc2\\xc3\\xc5\\xce\\xd0\\xd9] ",
    "[\\xe2\\xe3] [\\x80-\\x84\\x86-\\x9f\\xa1-\\xbf]",
    "[\\xe0-\\xe3][\\x80-\\x84\\x86-\\x9f\\xa1-\\xbf] ",
    "\\xf0 [\\x80-\\xbf][\\x80-\\xbf]",
    "\\xf0[\\x80-\\xbf] [\\x80-\\xbf]",
    "\\xf0[\\x80-\\xbf][\\x80-\\xbf] ",
  ].join("|"),
  "g",
);
const aGrave = /\xc3 (?! |quele|quela|quilo|s )/g;

/** Sequences of UTF-8 and CESU-8 of which bytes are lost: byte 1A stands for them, or a question mark once. */
const lost = new RegExp(
  [
    "[\\xc2-\\xdf]\\x1a",
    "[\\xc2-\\xc3]\\?",
    "\\xed[\\xa0-\\xaf][\\x1a?]\\xed[\\xb0-\\xbf][\\x1a?\\x80-\\xbf]",
    "\\xed[\\xa0-\\xaf][\\x1a?\\x80-\\xbf]\\xed[\\xb0-\\xbf][\\x1a?]",
    "[\\xe0-\\xef][\\x1a?][\\x1a\\x80-\\xbf]",
    "[\\xe0-\\xef][\\x1a\\x80-\\xbf][\\x1a?]",
    "[\\xf0-\\xf4][\\x1a?][\\x1a\\x80-\\xbf][\\x1a\\x80-\\xbf]",
    "[\\xf0-\\xf4][\\x1a\\x80-\\xbf][\\x1a?][\\x1a\\x80-\\xbf]",
    "[\\xf0-\\xf4][\\x1a\\x80-\\xbf][\\x1a\\x80-\\xbf][\\x1a?]",
    "\\x1a",
  ].join("|"),
  "g",
);

function restored(bytes: string, sloppy: boolean, macRoman: boolean): string {
  // In Mac Roman it would find dashes that have a space behind them.
  const whole =
    macRoman || bytes.search(spaced) < 0
      ? bytes
      : bytes.replace(aGrave, "\xc3\xa0 ").replace(spaced, (sequence) => sequence.replaceAll(" ", "\xa0"));
  return sloppy ? whole.replace(lost, "\xef\xbf\xbd") : whole;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Also of CESU-8, in which each half of a surrogate pair has three bytes, and of Java's zero. @returns undefined for anything else. */
function decodeUtf8(bytes: string): string | undefined {
  const plain = bytes
    .replaceAll("\xc0\x80", "\0")
    .replace(/\xed([\xa0-\xaf])([\x80-\xbf])\xed([\xb0-\xbf])([\x80-\xbf])/g, (...groups: string[]) => {
      const [a = 0, b = 0, c = 0, d = 0] = groups.slice(1, 5).map((byte) => byte.charCodeAt(0));
      const code = 0x10000 + ((a & 15) << 16) + ((b & 63) << 10) + ((c & 15) << 6) + (d & 63);
      return Buffer.from(String.fromCodePoint(code)).toString("latin1");
    });
  try {
    return utf8.decode(Buffer.from(plain, "latin1"));
  } catch {
    return undefined;
  }
}

/** What those bytes look like in the encodings that are like Latin-1. */
function charactersOf(first: number, last: number): string {
  const found = likeLatin1.flatMap(({ upper }) => upper.slice(first - 0x80, last - 0x7f));
  return [...new Set(found)].join("");
}

const continuation = `${charactersOf(0x80, 0xbf)}\u0080-\u00bf`;
/** May stand for themselves beside such text. */
const ambiguous = new Set("–—―‘’‚“”„•…");
const strict = [...continuation].filter((character) => !ambiguous.has(character)).join("");

/** A run of such sequences inside other text, but not in the middle of something larger that cannot be decoded. */
const embedded = new RegExp(
  `(?<![${strict}])(?:[${charactersOf(0xc2, 0xdf)}][${continuation} ]|[${charactersOf(0xe0, 0xef)}][${continuation} ]{2}|[${charactersOf(0xf0, 0xf0)}${charactersOf(0xf3, 0xf3)}][${continuation} ]{3})+`,
  "gu",
);
