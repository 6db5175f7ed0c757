import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../../src/paths.js";

const pagesIn = (folder: string) =>
  readdirSync(join(packageRoot, folder))
    .filter((name) => name.endsWith(".md"))
    .map((name) => (folder === "." ? name : `${folder}/${name}`));

/** What people read, by its path in the repository. */
export const pages = [...pagesIn("."), ...pagesIn("docs"), ...pagesIn("examples")];

export const textOf = (page: string) => readFileSync(join(packageRoot, page), "utf8");

export const withoutFences = (text: string) => text.replace(/^( *)```[\s\S]*?^\1```$/gm, "");

/** A block of code: what stands after the three backticks, and its lines. */
export interface Block {
  readonly page: string;
  /** Its language, and words that say where it can run. */
  readonly info: string;
  readonly lines: readonly string[];
}

export function blocksOf(page: string, text = textOf(page)): Block[] {
  return [...text.matchAll(/^( *)```(.*)\n([\s\S]*?)^\1```$/gm)].map(([, indent = "", info = "", body = ""]) => ({
    page,
    info: info.trim(),
    lines: body
      .split("\n")
      .slice(0, -1)
      .map((line) => line.slice(indent.length)),
  }));
}

/** A row of a table, by its cells. */
export function rowsOf(text: string): string[][] {
  return withoutFences(text)
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^\|[\s|:-]+$/.test(line))
    .map((line) =>
      line
        .slice(1, line.trimEnd().endsWith("|") ? line.trimEnd().length - 1 : undefined)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    );
}
