import { fixEncoding, windowsControls } from "./fix-encoding.js";
import { unescapeHtml, unescapePlainHtml } from "./html-unescape.js";

/**
 * Wan's cleaning of a prompt: ftfy's repairs, HTML unescaped twice, white space collapsed, ends stripped.
 * Source: basic_clean and whitespace_clean of wan/modules/tokenizers.py.
 */
export function cleanText(text: string): string {
  return unescapeHtml(unescapeHtml(repairText(text)))
    .replace(/\p{White_Space}+/gu, " ")
    .replace(/^ | $/g, "");
}

/** ftfy.fix_text of ftfy 6.3, line by line: HTML is left alone from the first line on that has a tag. */
function repairText(text: string): string {
  let html = true;
  return (text.match(/[^\n]*\n|[^\n]+/g) ?? [])
    .map((line) => {
      html &&= !line.includes("<");
      return repairLine(line, html);
    })
    .join("");
}

function repairLine(line: string, html: boolean): string {
  let [before, repaired] = ["", line];
  // One repair may show what another has to do.
  while (repaired !== before)
    [before, repaired] = [repaired, repairOnce(html ? unescapePlainHtml(repaired) : repaired)];
  return repaired;
}

function repairOnce(text: string): string {
  return (
    windowsControls(fixEncoding(text))
      .replace(/[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb04\ufb06]/g, (ligature) =>
        ligature.normalize("NFKC"),
      )
      .replace(/\ufb05/g, "\u017ft")
      // Full-width letters and punctuation, half-width katakana.
      .replace(/[\u3000\uff01-\uffef]/g, (wide) => wide.normalize("NFKC"))
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/\r\n|[\r\u2028\u2029\u0085]/g, "\n")
      .replace(/\p{Surrogate}/gu, "\ufffd")
      // Colours and the like, of a terminal.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: it begins with one.
      .replace(/\x1b\[[\p{Nd};]*[a-zA-Z]/gu, "")
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed.
      .replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
      .normalize("NFC")
  );
}
