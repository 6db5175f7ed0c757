/** What moves a cursor, rings, changes colours or turns the direction of text; a tab does no harm. */
const control = /(?!\t)[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu;
/** More than this of one message is not read by anybody. */
const MOST_CHARACTERS = 4000;

/** One line of somebody else's as it may be shown on a terminal: control characters are written out, as `\x1b`. */
export function visible(line: string): string {
  return line.replace(control, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

/** A message of somebody else's as it may be shown: no longer than useful, and its further lines stand in from the margin. */
export function harmless(message: string): string {
  const cut = message.slice(0, MOST_CHARACTERS);
  const rest = message.length - cut.length;
  const text = cut.split("\n").map(visible).join("\n  ");
  return rest > 0 ? `${text} … and ${rest} more characters` : text;
}
/** What sets colours and weights, and nothing else: SGR of ECMA-48, 8.3.117. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for.
const colour = /(\x1b\[[\d;:]*m)/;

/** As `visible`, but colours stay; what a line has coloured ends with it. */
export function coloured(line: string): string {
  if (!line.includes("\x1b")) return visible(line);
  const parts = line.split(colour);
  const text = parts.map((part, index) => (index % 2 === 1 ? part : visible(part))).join("");
  return parts.length > 1 ? `${text}\x1b[0m` : text;
}
