import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { commands } from "../../../src/cli/commands/index.js";
import { bashScript } from "../../../src/cli/completion/bash.js";
import { fishScript } from "../../../src/cli/completion/fish.js";
import { vocabularyOf } from "../../../src/cli/completion/vocabulary.js";
import { zshScript } from "../../../src/cli/completion/zsh.js";

const entries = vocabularyOf(commands);
const folder = mkdtempSync(join(tmpdir(), "ditrun-completion-"));
const script = join(folder, "script");
writeFileSync(join(folder, "noise.safetensors"), "");
afterAll(() => rmSync(folder, { recursive: true }));

/** Words of a line, the last of which is completed, and some of what is offered; "-" before what is not. */
const lines: readonly (readonly [words: readonly string[], offered: readonly string[], not: readonly string[]])[] = [
  [[""], ["profile", "accuracy", "wan", "links", "completion"], ["generate"]],
  [["wan", ""], ["generate", "profile", "accuracy"], ["links"]],
  [["wan", "generate", "--s"], ["--size", "--steps", "--solver", "--shift", "--seed"], ["--cp"]],
  [
    ["links", "--"],
    ["--nproc", "--sizes", "--json"],
    ["--plan", "--prompt"],
  ],
  [["--nproc", "2", "wan", "generate", "--device", ""], ["auto", "cpu", "cuda"], ["generate"]],
  [["profile", "--plan", "cp4"], ["cp4", "cp4-tp2", "cp4-tp2-fp8"], ["cp8"]],
  [["wan", "--model", ""], ["tiny", "14B", "wan-1.3b"], ["generate"]],
  [["wan", "generate", "--weights", ""], ["checkpoint", "random"], []],
  [["wan", "generate", "--init-noise", `${folder}/n`], ["noise.safetensors"], []],
];

const isThere = (shell: string) => existsSync(`/usr/bin/${shell}`) || existsSync(`/bin/${shell}`);
const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");
const last = (path: string) => path.trim().replace(/.*\//, "");

function check(offers: readonly string[][]): void {
  expect(offers).toHaveLength(lines.length);
  for (const [index, [words, offered, not]] of lines.entries()) {
    expect(offers[index], words.join(" ")).toEqual(expect.arrayContaining([...offered]));
    for (const each of not) expect(offers[index], words.join(" ")).not.toContain(each);
  }
}

const groups = (output: string) =>
  output
    .split(":::::\n")
    .slice(1)
    .map((group) =>
      group
        .split("\n")
        .filter((line) => line !== "")
        .map(last),
    );

test("bash completes commands, their options, and values", () => {
  writeFileSync(script, bashScript(entries));
  const asked = lines.map(
    ([words]) => `COMP_WORDS=(ditrun ${quoted(words)}); COMP_CWORD=${words.length}; COMPREPLY=(); _ditrun 2>/dev/null
echo :::::; printf '%s\\n' "\${COMPREPLY[@]}"`,
  );
  check(groups(execFileSync("bash", ["--norc", "-c", `source ${script}\n${asked.join("\n")}`], { encoding: "utf8" })));
});

test("bash completes after = and the last of several plans", () => {
  writeFileSync(script, bashScript(entries));
  const ask = (words: string) =>
    `COMP_WORDS=(ditrun ${words}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _ditrun 2>/dev/null; echo "\${COMPREPLY[*]}"`;
  const asked = [ask("wan generate --solver = u"), ask("wan generate --solver ="), ask("accuracy --plans cp2,tp")];
  const output = execFileSync("bash", ["--norc", "-c", `source ${script}\n${asked.join("\n")}`], { encoding: "utf8" });
  expect(output).toBe("unipc\nunipc dpm++ euler renoise\ncp2,tp2\n");
});

test.runIf(isThere("fish"))("fish completes the same", () => {
  writeFileSync(script, fishScript(entries));
  const asked = lines.map(([words]) => `echo :::::; complete -C 'ditrun ${words.join(" ")}' | string split -f1 \\t`);
  const env = { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder };
  const output = execFileSync("fish", ["-N", "-c", `source ${script}\n${asked.join("\n")}\ntrue`], {
    encoding: "utf8",
    env,
  });
  check(groups(output));
});

test.runIf(isThere("zsh"))("zsh completes the same", () => {
  writeFileSync(script, zshScript(entries));
  // compadd and _files say what they are given, in place of zsh's line editor, which would need a terminal.
  const stand = `compdef() { : }; compset() { : }
compadd() { while [[ $1 == -* && $1 != -- ]]; do [[ $1 == -S ]] && shift; shift; done; shift
  local w; for w in "$@"; do [[ $w == $PREFIX* ]] && print -r -- $w; done }
_files() { [[ $1 == -/ ]] && print -l $PREFIX*(N/) || print -l $PREFIX*(N) }`;
  const asked = lines.map(
    ([words]) =>
      `words=(ditrun ${quoted(words)}); CURRENT=${words.length + 1}; PREFIX=${quoted(words.slice(-1))}; echo :::::; _ditrun`,
  );
  const output = execFileSync("zsh", ["-f", "-c", `${stand}\nsource ${script}\n${asked.join("\n")}`], {
    encoding: "utf8",
  });
  check(groups(output));
});
