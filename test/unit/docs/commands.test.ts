import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { main } from "../../../src/cli/main.js";
import { commandsOf, type ShownCommand, samplesOf } from "./commands.js";
import { pages, textOf } from "./pages.js";

const shown = pages.flatMap((page) => commandsOf(page)).filter(({ needs }) => needs !== "not run");
const samples = pages.flatMap((page) => samplesOf(page));

/** Each command once, whichever page has it. */
const once = (commands: readonly ShownCommand[]) => [
  ...new Map(commands.map((command) => [command.text, command])).values(),
];

/** What is dry-run instead: no checkpoint is here, and nothing is downloaded. */
function dryRun({ words, needs }: ShownCommand): string[] {
  const generates = words.includes("generate") && !words.includes("random") && !words.includes("tiny");
  return [
    ...words.filter((word) => word !== "--download" && word !== "--dry-run"),
    ...(generates ? ["--weights", "random"] : []),
    ...["--dry-run", "--device", needs === "gpu" ? "cuda" : "cpu"],
  ];
}

describe("commands of the pages pass a dry run", () => {
  let stderr = "";
  const before = process.cwd();
  const folder = mkdtempSync(join(tmpdir(), "docs-commands-"));
  beforeAll(() => process.chdir(folder));
  afterAll(() => {
    process.chdir(before);
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => {
    stderr = "";
    vi.stubEnv("MASTER_PORT", "");
    vi.stubEnv("DITRUN_KERNELS", "");
    vi.spyOn(process.stdout, "write").mockReturnValue(true);
    vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      stderr += text;
      return true;
    });
    return () => {
      vi.restoreAllMocks();
      vi.unstubAllEnvs();
    };
  });

  test("there are some", () => {
    expect(shown.length).toBeGreaterThan(15);
    expect(shown.filter(({ needs }) => needs === "gpu").length).toBeGreaterThan(5);
    expect(samples.length).toBeGreaterThan(5);
  });

  test.each(
    once([...shown, ...samples.map(({ command }) => command)]).map((command) => [command.page, command.text, command]),
  )("%s: %s", async (_page, _text, command: ShownCommand) => {
    if (command.file) writeFileSync(command.file.name, command.file.text);
    const exitCode = await main(dryRun(command));
    if (command.file) rmSync(command.file.name);
    expect(
      stderr
        .split("\n")
        .filter((line) => line.startsWith("ditrun: "))
        .at(-1) ?? "",
    ).not.toContain("There is no");
    expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" });
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
