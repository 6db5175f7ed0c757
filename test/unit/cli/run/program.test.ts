import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { programOf } from "../../../../src/cli/run/program.js";

let folder = "";
let script = "";
let environment: Record<string, string> = {};
const plain = { module: false, noPython: false, runPath: false };

function program(...path: string[]): string {
  const file = join(folder, ...path);
  writeFileSync(file, "#!/bin/sh\n");
  chmodSync(file, 0o755);
  return file;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-program-"));
  for (const name of ["bin", "venv", "venv/bin"]) mkdirSync(join(folder, name));
  for (const name of ["python3", "tool"]) program("bin", name);
  program("venv", "bin", "python");
  script = join(folder, "train.py");
  writeFileSync(script, "");
  writeFileSync(join(folder, "notes"), "");
  environment = { PATH: join(folder, "bin") };
});
afterAll(() => rmSync(folder, { recursive: true }));

test("a Python file runs with Python, anything else by itself", () => {
  const words = (...line: string[]) => programOf(line, plain, environment);
  expect(words(script, "--lr", "1e-3")).toEqual({
    command: ["python3", "-u", script, "--lr", "1e-3"],
    isPython: true,
  });
  expect(words("python3", script)).toEqual({ command: ["python3", script], isPython: true });
  expect(words("tool", "x")).toEqual({ command: ["tool", "x"], isPython: false });
  const path = join(folder, "bin", "tool");
  expect(words(path)).toEqual({ command: [path], isPython: false });
});

test("the Python is PYTHON_EXEC, else the virtual environment's, else the first in PATH", () => {
  const VIRTUAL_ENV = join(folder, "venv");
  const python = (more: Record<string, string>) => programOf([script], plain, { ...environment, ...more }).command[0];
  expect(python({ VIRTUAL_ENV, PYTHON_EXEC: "/opt/python" })).toBe("/opt/python");
  expect(python({ VIRTUAL_ENV })).toBe(join(VIRTUAL_ENV, "bin", "python"));
  expect(python({ VIRTUAL_ENV: join(folder, "bin") })).toBe("python3");
});

test("modules, --no-python and --run-path", () => {
  const command = (wishes: Partial<typeof plain>, ...words: string[]) =>
    programOf(words, { ...plain, ...wishes }, environment).command;
  expect(command({ module: true }, "pkg.train", "x")).toEqual(["python3", "-u", "-m", "pkg.train", "x"]);
  const own = program("own.py");
  expect(command({ noPython: true }, own)).toEqual([own]);
  expect(command({ runPath: true }, script, "x").slice(-2)).toEqual([script, "x"]);
});

describe("what cannot be run is one sentence", () => {
  test.each<[string, Partial<typeof plain>, string[], RegExp]>([
    ["nothing", {}, [], /^Name a program after the options: /],
    ["a file that is not there", {}, ["none.py"], /^There is no file none\.py to run\.$/],
    ["a program that is not there", {}, ["none"], /^There is no program none, neither in PATH nor here\.$/],
    ["a module without Python", { module: true, noPython: true }, ["m"], /^--module and --no-python exclude/],
  ])("%s", (_, wishes, words, message) => {
    expect(() => programOf(words, { ...plain, ...wishes }, environment)).toThrow(message);
  });

  test("a file that may not be executed", () => {
    expect(() => programOf([join(folder, "notes")], plain, environment)).toThrow(/notes may not be run: .*chmod \+x/);
  });

  test("no Python at all", () => {
    expect(() => programOf([script], plain, { PATH: "" })).toThrow(/^There is no python3 in PATH: .*PYTHON_EXEC\.$/);
  });
});
