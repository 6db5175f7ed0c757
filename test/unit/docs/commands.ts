import { type Block, blocksOf, textOf } from "./pages.js";

/** A command of ditrun that a page shows. */
export interface ShownCommand {
  readonly page: string;
  /** As it stands there, without what comes before and after it in its line. */
  readonly text: string;
  /** Its words, without `ditrun` itself. */
  readonly words: readonly string[];
  /** Where it can run: on any machine, only where there is a GPU, or nowhere that a test knows. */
  readonly needs: "nothing" | "gpu" | "not run";
  /** A file that it reads, which the page shows as YAML above it. */
  readonly file?: { readonly name: string; readonly text: string };
}

/** Words of a command, as a shell takes them apart that knows quotes alone. */
export const wordsOf = (command: string): string[] =>
  [...command.matchAll(/"([^"]*)"|'([^']*)'|\S+/g)].map(([word, double, single]) => double ?? single ?? word);

const isShell = ({ info }: Block) => info === "" || info.split(" ")[0] === "sh";

/** The commands of a page's code blocks in which somebody types. */
export function commandsOf(page: string, text = textOf(page)): ShownCommand[] {
  let yaml = "";
  return blocksOf(page, text).flatMap((block) => {
    if (block.info === "yaml") yaml = `${block.lines.join("\n")}\n`;
    if (!isShell(block)) return [];
    return block.lines.flatMap((line) => {
      const [, typed = "", comment = ""] = /^(.*?)(?:\s+# ?(.*))?$/.exec(line) ?? [];
      const needs = (["not run", "gpu"] as const).find((word) =>
        [block.info.replace(/^sh ?/, ""), comment].some((place) => place.startsWith(word)),
      );
      const [, file] = /^file: (\S+)/.exec(comment) ?? [];
      return typed
        .split(/ && | \| /)
        .filter((part) => /^(?:npx )?ditrun /.test(part))
        .map((part): ShownCommand => {
          const words = wordsOf(part.replace(/^(?:npx )?ditrun /, ""));
          return {
            ...{ page, text: part, words, needs: needs ?? "nothing" },
            ...(file === undefined ? {} : { file: { name: file, text: yaml } }),
          };
        });
    });
  });
}

/** The commands whose output a page shows (scripts/readme-samples.js), and that output. */
export function samplesOf(page: string, text = textOf(page)): { command: ShownCommand; output: string }[] {
  const markers = text.matchAll(/^<!-- sample: (.+?) -->\n```text\n([\s\S]*?)```\n<!-- end of sample -->$/gm);
  return [...markers].map(([, marker = "", output = ""]) => {
    const line = marker.replace(/ 2>&1/, "").replace(/ \| head \d+$/, "");
    const words = wordsOf(line.replace(/^ditrun /, ""));
    return { command: { page, text: line, words, needs: "nothing" }, output };
  });
}
