// Puts one deliberate fault after another into the sources, and runs the tests that should notice it.
//   node test/mutants/run.js NAME…          those mutants of list/*.json
//   node test/mutants/run.js --file PATH    all mutants of one source file
//   node test/mutants/run.js --all          all of them
// --trust leaves out the run of the same tests on the right code. Exits with 1 where a mutant survived or could not be tried.
import { spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createVitest } from "vitest/node";

/** A test that hangs has noticed the fault too. */
const LIMIT_MILLISECONDS = 300_000;
const root = fileURLToPath(new URL("../..", import.meta.url));
const lists = fileURLToPath(new URL("list", import.meta.url));
process.chdir(root);

const all = readdirSync(lists).flatMap((file) => JSON.parse(readFileSync(join(lists, file), "utf8")));
const chosen = choose(process.argv.slice(2).filter((word) => word !== "--trust"));

/** The file that is changed now, with its right text. */
let changed;
/** What of the build may hold a fault. */
const dirty = new Set();

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    endTests();
    restore();
    console.error(`${signal}: the sources are as they were; what was built may still hold the fault: npm run build.`);
    process.exit(1);
  });
}

// As for `npm test`, but without its build: here only what a mutant needs is built.
const vitest = await createVitest("test", {
  root,
  config: false,
  watch: false,
  include: ["test/**/*.test.ts"],
  maxWorkers: 2,
  testTimeout: 60_000,
  hookTimeout: 60_000,
  bail: 1,
  reporters: [{}],
});

let failed = 0;
try {
  if (!process.argv.includes("--trust")) await checkRightCode();
  for (const mutant of chosen) {
    const started = Date.now();
    const { verdict, by } = await verdictOf(mutant);
    if (verdict !== "killed") failed++;
    const seconds = ((Date.now() - started) / 1000).toFixed(0);
    console.log(`${verdict.padEnd(9)} ${mutant.name} (${seconds} s)${by ? `: ${by}` : ""}`);
  }
} finally {
  restore();
  for (const step of dirty) await build(step);
  await vitest.close();
}
console.log(`${chosen.length - failed} of ${chosen.length} mutants are killed.`);
process.exit(failed === 0 ? 0 : 1);

function choose(words) {
  const [first, path] = words;
  const found =
    first === "--all"
      ? all
      : first === "--file"
        ? all.filter(({ file }) => file === path)
        : words.map((name) => all.find((mutant) => mutant.name === name) ?? name);
  const unknown = found.find((mutant) => typeof mutant === "string");
  if (found.length > 0 && unknown === undefined) return found;
  console.error(unknown ? `There is no mutant ${unknown}.` : "Name mutants, or give --file PATH or --all.");
  process.exit(2);
}

/** A test that fails anyhow would kill every mutant. */
async function checkRightCode() {
  for (const step of new Set(chosen.map(({ file }) => stepOf(file)))) {
    if (!(await build(step))) throw new Error(`The right code does not build (${step}).`);
  }
  for (const only of new Set(chosen.map((mutant) => mutant.only))) {
    const tests = new Set(chosen.filter((mutant) => mutant.only === only).flatMap((mutant) => mutant.tests));
    const { passed, by } = await runTests([...tests], only);
    if (!passed) throw new Error(`The tests fail without any mutant: ${by}.`);
  }
}

async function verdictOf({ file, find, replace, tests, only }) {
  if (spawnSync("git", ["diff", "--quiet", "HEAD", "--", file]).status !== 0) {
    return { verdict: "does not apply", by: `${file} has changes that are not committed` };
  }
  const text = readFileSync(file, "utf8");
  if (text.split(find).length !== 2) return { verdict: "does not apply", by: `its text is not once in ${file}` };
  try {
    changed = { file, text };
    write(text.split(find).join(replace));
    const step = stepOf(file);
    dirty.add(step);
    if (!(await build(step))) return { verdict: "does not build" };
    const { passed, by } = await runTests(tests, only);
    return { verdict: passed ? "SURVIVED" : "killed", by };
  } finally {
    restore();
  }
}

function write(text) {
  writeFileSync(changed.file, text);
  vitest.invalidateFile(join(root, changed.file));
}

function restore() {
  if (changed !== undefined) write(changed.text);
  changed = undefined;
}

function stepOf(file) {
  return file.startsWith("kernels/") ? "kernels" : "typescript";
}

/** @returns whether it could be built. Types are not checked: a fault in them is none that a test has to find. */
function build(step) {
  const [command, ...args] =
    step === "kernels"
      ? ["cmake", "--build", "build"]
      : ["node_modules/.bin/tsc", "-p", "tsconfig.build.json", "--noCheck"];
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: "ignore" });
    child.on("error", () => resolve(false));
    child.on("close", (code) => resolve(code === 0));
  });
}

/** @param only of the tests' names. @returns whether all have passed, and else what has not. */
async function runTests(tests, only) {
  if (only === undefined) vitest.resetGlobalTestNamePattern();
  else vitest.setGlobalTestNamePattern(only.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  const specifications = (await vitest.globTestSpecifications(tests)).filter(({ moduleId }) =>
    tests.some((test) => moduleId === join(root, test)),
  );
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    endTests();
  }, LIMIT_MILLISECONDS);
  const result = await vitest.runTestSpecifications(specifications);
  clearTimeout(timer);
  if (late) return { passed: false, by: `not done after ${LIMIT_MILLISECONDS / 1000} s` };
  // Of the runs before, too.
  const testModules = result.testModules.filter(({ moduleId }) =>
    specifications.some((one) => one.moduleId === moduleId),
  );
  const results = testModules.flatMap((module) => [...module.children.allTests()]);
  const wrong = results.find((test) => test.result().state === "failed");
  const [error] = [...testModules.flatMap((module) => module.errors()), ...result.unhandledErrors];
  const suite = testModules.find((module) => !module.ok());
  if (wrong || error || suite) {
    return { passed: false, by: wrong?.fullName ?? (error?.message ?? suite.moduleId).split("\n")[0] };
  }
  if (results.some((test) => test.result().state === "passed")) return { passed: true };
  throw new Error(`No test of ${tests.join(", ")} has run.`);
}

/** Ends the processes in which tests run: one may be inside a kernel that does not return. */
function endTests() {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").split(" ").filter(Boolean);
  for (const pid of children) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It has just ended.
    }
  }
}
