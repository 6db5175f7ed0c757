import { decodeHTML } from "entities";

/**
 * Wan's cleaning of a prompt: straight quotation marks for curly ones (the part of ftfy.fix_text that well-formed text
 * meets; text decoded with a wrong character set is not repaired), HTML unescaped twice, white space collapsed, ends
 * stripped. Source: basic_clean and whitespace_clean of wan/modules/tokenizers.py.
 */
export function cleanText(text: string): string {
  const straight = text.replace(/[\u02bc\u2018-\u201b]/g, "'").replace(/[\u201c-\u201f]/g, '"');
  return decodeHTML(decodeHTML(straight))
    .replace(/\p{White_Space}+/gu, " ")
    .trim();
}
