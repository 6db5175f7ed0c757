import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { mistakeIn, readLine, spelled } from "../../../src/cli/command-line.js";
import { commands } from "../../../src/cli/commands/index.js";
import { readOptions } from "../../../src/cli/option.js";
import { launchOptions } from "../../../src/cli/options/launch.js";
import { modelOptions } from "../../../src/cli/options/model.js";
import { parse } from "../../../src/cli/parser.js";
import { DitrunError } from "../../../src/failure.js";
import { findModel } from "../../../src/models/wan/find-model.js";
import { resolvePlan } from "../../../src/plan/resolve.js";
import { commandsOf, type ShownCommand, samplesOf } from "./commands.js";
import { pages, textOf } from "./pages.js";

const shown = pages.flatMap((page) => commandsOf(page)).filter(({ needs }) => needs !== "not run");
const samples = pages.flatMap((page) => samplesOf(page));

/** Each command once, whichever page has it. */
const once = (all: readonly ShownCommand[]) => [...new Map(all.map((command) => [command.text, command])).values()];

/**
 * Reads a command's line, its options' values and its plan as the program does, and starts nothing: what needs no GPU is also run
 * (test/jobs/docs-commands.test.ts). @throws DitrunError for what the program would refuse.
 */
async function check(words: readonly string[], folder: string): Promise<void> {
  // A file is a program where it is there, and it is on the reader's machine.
  const line = readLine(words[0]?.endsWith(".py") ? ["run", ...words] : words, commands);
  const parsed = await parse(spelled(line), commands, 80).catch((error: unknown) => {
    throw mistakeIn(line, words, commands) ?? error;
  });
  if ("text" in parsed) return;
  const { command, given } = parsed;
  await command.prepare(given);
  if (!("model" in command.options)) return;
  const { model, plan, cfg, cp, tp, dtype, fp8, attention } = readOptions(modelOptions, given);
  const { nproc, nnodes = 1 } = readOptions(launchOptions, given);
  const inFolder = (name: string | undefined) => (name?.endsWith(".yaml") ? join(folder, name) : name);
  const sizes = await findModel(inFolder(model) ?? (command.name.startsWith("wan") ? "1.4B" : "dit"));
  const flags = { plan: inFolder(plan), cfg, cp, tp, dtype, fp8, attention };
  await resolvePlan(flags, sizes.model, typeof nproc === "number" ? nproc * nnodes : undefined, 1);
}

describe("commands of the pages are understood", () => {
  const folder = mkdtempSync(join(tmpdir(), "docs-commands-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  test("there are some", () => {
    expect(shown.length).toBeGreaterThan(15);
    expect(shown.filter(({ needs }) => needs === "gpu").length).toBeGreaterThan(5);
    expect(samples.length).toBeGreaterThan(5);
  });

  test.each(
    once([...shown, ...samples.map(({ command }) => command)]).map((command) => [command.page, command.text, command]),
  )("%s: %s", async (_page, _text, { words, file }: ShownCommand) => {
    if (file) writeFileSync(join(folder, file.name), file.text);
    await check(words, folder);
    if (file) rmSync(join(folder, file.name));
  });

  test.each([
    ["profile --nprocs 8", "nproc"],
    ["profile --nproc 8 --cp 3", "--nproc is 8"],
    ["wan generate --prompt x --steps many", "--steps"],
    ["profile --model dit --tp 3", "heads"],
    ["profile --plan nowhere", "nowhere"],
  ])("a command that the program would refuse is noticed: %s", async (line, why) => {
    const refused = await check(line.split(" "), folder).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(DitrunError);
    expect(String(refused)).toContain(why);
  });
});

test("every sample of output has been filled", () => {
  const markers = pages.flatMap((page) => [...textOf(page).matchAll(/^<!-- sample: /gm)]);
  expect(samples.length).toBe(markers.length);
  expect(samples.filter(({ output }) => output.split("\n").length < 4)).toEqual([]);
});

test("commands are found in blocks, with what they need", () => {
  const text = [
    "```yaml",
    "a: 1",
    "```",
    "```",
    "npm ci && npx ditrun --nproc 8 profile",
    "npm test",
    "```",
    "```sh gpu",
    'ditrun wan generate --prompt "Two cats"',
    "```",
    "```sh",
    "npx ditrun --plan my.yaml accuracy # file: my.yaml",
    "npx ditrun links # not run",
    "```",
    "```text",
    "ditrun is not typed here",
    "```",
  ].join("\n");
  expect(commandsOf("a page", text)).toEqual([
    { page: "a page", text: "npx ditrun --nproc 8 profile", words: ["--nproc", "8", "profile"], needs: "nothing" },
    {
      page: "a page",
      text: 'ditrun wan generate --prompt "Two cats"',
      words: ["wan", "generate", "--prompt", "Two cats"],
      needs: "gpu",
    },
    {
      page: "a page",
      text: "npx ditrun --plan my.yaml accuracy",
      words: ["--plan", "my.yaml", "accuracy"],
      needs: "nothing",
      file: { name: "my.yaml", text: "a: 1\n" },
    },
    { page: "a page", text: "npx ditrun links", words: ["links"], needs: "not run" },
  ]);
});
