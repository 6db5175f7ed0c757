import { stripVTControlCharacters } from "node:util";
import { decodeHTML } from "entities";

/**
 * Wan's cleaning of a prompt: ftfy's repairs, HTML unescaped twice, white space collapsed, ends stripped.
 * Source: basic_clean and whitespace_clean of wan/modules/tokenizers.py.
 */
export function cleanText(text: string): string {
  return decodeHTML(decodeHTML(repairText(text)))
    .replace(/\p{White_Space}+/gu, " ")
    .trim();
}

/**
 * ftfy.fix_text (ftfy 6) but for one of its repairs: text that was decoded with a wrong character set stays as it is.
 * HTML is left to the caller, who unescapes it anyway.
 */
function repairText(text: string): string {
  return (
    stripVTControlCharacters(text)
      .replace(/[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb04\ufb06]/g, (ligature) =>
        ligature.normalize("NFKC"),
      )
      .replace(/\ufb05/g, "\u017ft")
      // Full-width letters and punctuation, half-width katakana.
      .replace(/[\u3000\uff01-\uffef]/g, (wide) => wide.normalize("NFKC"))
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/\r\n|[\r\u2028\u2029\u0085]/g, "\n")
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed.
      .replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
      .normalize("NFC")
  );
}
