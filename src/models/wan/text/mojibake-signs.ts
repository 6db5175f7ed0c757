// Characters that UTF-8 turns into when it is read by another encoding, by what they are else used for, and the neighbours that
// hardly occur in text that is meant. Source: ftfy 6.3, badness.py.

const common = "\u00a0\u00ad´·–—―’…";
const c1 = "\u0080-\u009f";
const bad = "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\ufffd";
const law = "§¶";
const currency = "¢£¥₧€";
const start = "¡©«¿΄΅‘‚“„•‹\uf8ff";
const end = "®»˝”›™";
const numeric = "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥";
const kaomoji = "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ";
const upper = "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const lower = "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ";
const letters = "ά-ωа-џÞΆΈΉΊΌΎΏΑ-ΫЁ-Я";
const box = "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓";

const others = `${lower}${upper}${box}${start}${end}${currency}${numeric}${law}`;
const arabic = `[ØÙ][${common}${currency}${bad}${numeric}${start}ŸŠ®°µ»]`;
// As in Python's regular expressions.
const space = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const word = "[\\p{L}\\p{N}_]";

const signs = [
  `[${c1}]`,
  `[${bad}${others}][${bad}]`,
  `[a-zA-Z][${letters}][${bad}]`,
  `[${bad}][${others}]`,
  `[${lower}ά-ωа-џ${box}${end}${currency}${numeric}][${upper}]`,
  `[${box}${end}${currency}${numeric}][${lower}]`,
  `[${lower}${box}${end}][${currency}]`,
  `${space}[${upper}][${currency}]`,
  `[${upper}${box}][${numeric}${law}]`,
  `[${lower}${upper}${box}${currency}${end}][${start}][${numeric}]`,
  `[${lower}${upper}${currency}${numeric}${box}${law}][${end}][${start}]`,
  `[${currency}${numeric}${box}][${start}]`,
  `[a-z][${upper}][${start}${currency}]`,
  `[${box}][${kaomoji}]`,
  `[${lower}${upper}${currency}${numeric}${start}${end}${law}][${box}]`,
  `[${box}][${end}]`,
  `[${lower}${upper}][${start}${end}]${word}`,
  "[Œœ][^A-Za-z]",
  `[${upper}]°`,
  // Windows-1252, two characters and more.
  `[ÂÃÎÐ][€œŠš¢£Ÿž\\xa0\\xad®©°·»${start}${end}–—´]`,
  "×[²³]",
  `${arabic}${arabic}`,
  "à[²µ¹¼½¾]",
  // Mac Roman.
  "√[±∂†≠®™´≤≥¥µø]",
  "≈[°¢]",
  "‚Ä[ìîïòôúùû†°¢π]",
  "‚[âó][àä°ê]",
  // Windows-1251.
  "вЂ",
  `[ВГРС][${c1}${bad}${start}${end}${currency}°µ][ВГРС]`,
  "ГўВЂВ.[A-Za-z ]",
  // Windows-1252, what stands for à, á, a space, or for the same character again.
  "Ã[\\xa0¡]",
  `[a-z]${space}?[ÃÂ] `,
  "^[ÃÂ] ",
  `[a-z.,?!${end}]Â[ ${start}${end}]`,
  // Windows-1253 and 1257.
  "β€[™\\xa0Ά\\xad®°]",
  `[ΒΓΞΟ][${c1}${bad}${start}${end}${currency}°][ΒΓΞΟ]`,
  "ā€",
];
const sign = new RegExp(signs.join("|"), "u");

/** True if something in the text looks as if it had been decoded by another encoding than its own. */
export function looksMisread(text: string): boolean {
  return sign.test(text);
}
