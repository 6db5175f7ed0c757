import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../../src/paths.js";
import { pages, rowsOf, textOf } from "./pages.js";

const page = textOf("docs/environment.md");
/** Pages that have the variables of schedulers and of other hosts. */
const more = pages.filter((name) => ["docs/hosts.md", "docs/launch.md"].includes(name)).map(textOf);
const listed = new Set(rowsOf(page).flatMap(([cell = ""]) => /^`(\w+)`$/.exec(cell)?.[1] ?? []));

/** Names that are a variable's wherever they stand in quotes or are taken out of an environment. */
const families =
  /^(?:DITRUN|HF|HUGGING_?FACE|TRANSFORMERS|XDG|OMP|MASTER|LOCAL|GROUP|ROLE|WORLD|TORCHELASTIC|SLURM|PMI|OMPI|PET|LWS|JOBSET)_\w+$/;

function filesIn(folder: string, ending: RegExp): string[] {
  return readdirSync(join(packageRoot, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => ending.test(name) && !name.includes("generated"))
    .map((name) => readFileSync(join(packageRoot, folder, name), "utf8"));
}

/** Without comments, but with what stands in quotes. */
const codeOf = (source: string) =>
  source.replace(
    /("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\/.*|\/\*[\s\S]*?\*\//g,
    (_, quoted?: string) => quoted ?? "",
  );

/** Options of CMake, which look the same. */
const cmakeOptions = new Set(
  [...readFileSync(join(packageRoot, "CMakeLists.txt"), "utf8").matchAll(/\b(?:option|set)\((\w+)/g)].map(
    ([, name = ""]) => name,
  ),
);

/** Variables that a file of JavaScript or TypeScript reads or sets. */
function variablesOf(source: string): string[] {
  const code = codeOf(source);
  const members = [...code.matchAll(/\benv(?:ironment)?(?:\.|\[")(\w+)/g)].map(([, name = ""]) => name);
  const taken = [...code.matchAll(/\{([^{}]*)\}\s*(?:=\s*process\.env\b|:\s*(?:Environment|NodeJS\.ProcessEnv)\b)/g)];
  const destructured = taken.flatMap(([, inside = ""]) => inside.split(",").map((part) => /\w+/.exec(part)?.[0] ?? ""));
  const named = [...code.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)]
    .map(([name]) => name)
    .filter((name) => families.test(name));
  const isName = (name: string) => /^[A-Z][A-Z_]+$/.test(name) || name.startsWith("npm_");
  return [...new Set([...members, ...destructured, ...named])].filter(
    (name) => isName(name) && !cmakeOptions.has(name),
  );
}

const scripts = [...filesIn("src", /\.ts$/), ...filesIn("bin", /\.js$/), ...filesIn("scripts", /\.js$/)];
const read = new Set(scripts.flatMap(variablesOf));
const readByKernels = new Set(
  filesIn("kernels", /\.(?:cu|cuh|cpp|h)$/).flatMap((source) =>
    [...source.matchAll(/\b(?:getenv|openLibrary)\("(\w+)"/g)].map(([, name = ""]) => name),
  ),
);

test("every variable that is read or set has its row", () => {
  expect(readByKernels.size).toBeGreaterThan(3);
  expect(read.size).toBeGreaterThan(25);
  const known = (name: string) => [page, ...more].some((text) => text.includes(`\`${name}\``));
  expect([...read, ...readByKernels].filter((name) => !known(name))).toEqual([]);
});

test("every row is of a variable that is read or set", () => {
  // Node.js itself looks for these.
  const byNode = ["HOME", "TMPDIR", "TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS"];
  const all = new Set([...read, ...readByKernels, ...byNode]);
  const inText = (name: string) => scripts.some((source) => new RegExp(`\\b${name}\\b`).test(codeOf(source)));
  expect([...listed].filter((name) => !all.has(name) && !inText(name))).toEqual([]);
});

test("variables are found however they are read", () => {
  const source = [
    "const { ONE_A: a, TWO_B = 'x' } = process.env;",
    "process.env.THREE_C || process.env['npm_command'] || env[\"FOUR\"];",
    "// process.env.COMMENT",
    "export function f({ FIVE_E }: Environment) { return `HF_HOME is here`; }",
    'const key = "DITRUN_SIX"; const NOT_ONE = 1;',
  ].join("\n");
  expect(variablesOf(source)).toEqual(["THREE_C", "FOUR", "ONE_A", "TWO_B", "FIVE_E", "HF_HOME", "DITRUN_SIX"]);
});
