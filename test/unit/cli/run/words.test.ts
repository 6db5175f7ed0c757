import { describe, expect, test } from "vitest";
import { mistakeIn, programLine, readLine } from "../../../../src/cli/command-line.js";
import { commands } from "../../../../src/cli/commands/index.js";
import { runOptions } from "../../../../src/cli/options/run.js";
import { petValues } from "../../../../src/cli/run/pet.js";
import { packageRoot } from "../../../../src/paths.js";

function read(...argv: string[]) {
  const line = readLine(argv, commands);
  const found = programLine(line, argv, commands);
  if (!found) throw mistakeIn(line, argv, commands);
  return { command: found.command.name, given: Object.fromEntries(found.given), rest: found.rest };
}

describe("the first word that is no option begins the program", () => {
  test.each<[string[], Record<string, string[]>, string[]]>([
    [["run", "train.py", "--lr", "1e-3"], {}, ["train.py", "--lr", "1e-3"]],
    [["run", "--nproc", "2", "train.py", "--nproc", "3"], { nproc: ["2"] }, ["train.py", "--nproc", "3"]],
    [["run", "--", "--odd", "--nproc"], {}, ["--odd", "--nproc"]],
    [["run", "--standalone", "--nproc-per-node=8", "a", "--"], { standalone: ["true"], nproc: ["8"] }, ["a", "--"]],
    [["run", "--master_port", "1234", "a"], { "master-port": ["1234"] }, ["a"]],
    [["run", "-m", "-r", "3", "-t0:1", "a", "-m"], { module: ["true"], redirects: ["3"], tee: ["0:1"] }, ["a", "-m"]],
    [["--nproc", "2", "run", "a", "help"], { nproc: ["2"] }, ["a", "help"]],
    // The file of --json is named with = here: it would be the program otherwise.
    [["run", "--json", "a"], { json: [""] }, ["a"]],
  ])("%j", (argv, given, rest) => {
    expect(read(...argv)).toEqual({ command: "run", given, rest });
  });

  test("a path that exists needs no command", () => {
    const file = `${packageRoot}/package.json`;
    expect(read("--nproc", "2", file, "x")).toEqual({ command: "run", given: { nproc: ["2"] }, rest: [file, "x"] });
  });
});

test.each([
  [["run", "-x", "a"], /^There is no option -x/],
  [["run", "--rdzv", "a"], /^There is no option --rdzv/],
  [["links", "-m"], /^There is no option -m/],
])("%j is refused", (argv, message) => {
  expect(() => read(...argv)).toThrow(message);
});

describe("PET_ variables", () => {
  const values = (environment: Record<string, string>, given: string[] = []) =>
    petValues(runOptions, new Map(given.map((name) => [name, ["1"]])), environment);

  test("stand in for options that are not given", () => {
    const environment = { PET_NPROC_PER_NODE: "4", PET_MAX_RESTARTS: "2", PET_STANDALONE: "1", PET_ROLE: "" };
    expect(values(environment)).toEqual({ nproc: 4, maxRestarts: 2, standalone: true });
    expect(values(environment, ["nproc"])).toEqual({ maxRestarts: 2, standalone: true });
    expect(values({ PET_STANDALONE: "0" })).toEqual({ standalone: false });
  });

  test("are named where their value is wrong", () => {
    expect(() => values({ PET_NPROC_PER_NODE: "many" })).toThrow(/^PET_NPROC_PER_NODE is "many"; it must be/);
  });
});

describe("values", () => {
  const value = (name: keyof typeof runOptions, text: string) => runOptions[name].read([text], `--${name}`);

  test("signals by their names, with SIG or without", () => {
    expect(value("signals-to-handle", "SIGTERM,usr1")).toEqual(["SIGTERM", "SIGUSR1"]);
    expect(() => value("signals-to-handle", "SIGKILL")).toThrow(
      /^--signals-to-handle is "SIGKILL"; it must be some of/,
    );
  });

  test.each(["gpu", "auto", "cpu"])("--nproc %s", (text) => {
    expect(value("nproc", text)).toBe(text);
  });

  test.each<[keyof typeof runOptions, string]>([
    ["nproc", "unknown"],
    ["nproc", "0"],
    ["max-restarts", "-1"],
    ["shutdown-timeout", "-5"],
    ["timeout", "0"],
    ["local-ranks-filter", "0,x"],
    ["rdzv-backend", "etcd"],
    ["log-format", "xml"],
  ])("--%s %s is refused", (name, text) => {
    expect(() => value(name, text)).toThrow(new RegExp(`^--${name} is "${text}"; it must be`));
  });

  test("no time at all for ranks to end is allowed", () => {
    expect(value("shutdown-timeout", "0")).toBe(0);
  });
});
