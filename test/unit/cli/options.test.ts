import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { foreignOptions } from "../../../src/cli/aliases.js";
import { commands } from "../../../src/cli/commands/index.js";
import { generateOptions } from "../../../src/cli/options/generate.js";
import { modelOptions } from "../../../src/cli/options/model.js";
import { parse } from "../../../src/cli/parser.js";
import { attentionDtypeSchema, dtypeSchema, vaeDtypeSchema } from "../../../src/plan/schema.js";
import { noiseGenerators } from "../../../src/protocol/job.js";

/** Each command with its options: value, and what is taken where it is left out. */
function listed(): string {
  return commands
    .map(({ name, options }) => {
      const lines = Object.entries(options).map(([option, { value, mayBeBare, repeats, usual }]) => {
        const shown = value === undefined ? "switch" : mayBeBare ? `[${value}]` : value;
        return `  --${option} ${shown}${repeats ? " …" : ""}${usual === undefined ? "" : ` = ${usual}`}`;
      });
      return [name, ...lines].join("\n");
    })
    .join("\n\n")
    .concat("\n");
}

test("the options are those that scripts count on: one that is renamed keeps its old name, and options.txt follows what is added", () => {
  const file = fileURLToPath(new URL("options.txt", import.meta.url));
  expect(listed()).toBe(readFileSync(file, "utf8"));
});

test("an option takes a value in all commands or in none, and has no name of another program", () => {
  const kinds = new Map<string, boolean>();
  for (const [name, { value }] of commands.flatMap(({ options }) => Object.entries(options))) {
    expect(kinds.get(name) ?? value !== undefined, name).toBe(value !== undefined);
    kinds.set(name, value !== undefined);
    expect(Object.hasOwn(foreignOptions, name), name).toBe(false);
    expect(name).toMatch(/^[a-z\d]+(-[a-z\d]+)*$/);
  }
  for (const foreign of Object.values(foreignOptions))
    if ("to" in foreign) expect([...kinds.keys()]).toContain(foreign.to);
});

test("choices are all that a plan or a task may have", () => {
  expect(modelOptions.dtype.choices).toEqual(dtypeSchema.options);
  expect(modelOptions.attention.choices).toEqual(attentionDtypeSchema.options);
  expect(generateOptions["vae-dtype"].choices).toEqual(vaeDtypeSchema.options);
  expect(generateOptions.noise.choices).toEqual(noiseGenerators);
});

test.each(commands.map((command) => [command.name, command] as const))("ditrun %s --help", async (name, command) => {
  const parsed = await parse([...name.split(" "), "--help"], commands, 80);
  const text = "text" in parsed ? parsed.text : "";
  for (const line of text.split("\n").filter((each) => !each.startsWith("  ditrun") && !each.startsWith("  source")))
    expect(line.length, line).toBeLessThanOrEqual(80);
  const shown = [...text.matchAll(/^ {2}--([\w-]+)/gm)].map(([, option]) => option);
  expect(shown.toSorted()).toEqual([...Object.keys(command.options), "help", "version"].toSorted());
  expect(text).toContain(command.example.line);
  expect(text).not.toMatch(/\[(?:string|number|boolean)\]/);
});
