// Puts one deliberate fault after another into the sources, and runs the tests that should notice it.
//   node test/mutants/run.js NAME…          those mutants of list/*.json
//   node test/mutants/run.js --file PATH    all mutants of one source file
//   node test/mutants/run.js --all          all of them
// --trust leaves out the run of the same tests on the right code. Exits with 1 where a mutant survived or could not be tried.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** A test that hangs has noticed the fault too. */
const LIMIT_MILLISECONDS = 300_000;
const root = fileURLToPath(new URL("../..", import.meta.url));
const lists = fileURLToPath(new URL("list", import.meta.url));
process.chdir(root);

const all = readdirSync(lists).flatMap((file) => JSON.parse(readFileSync(join(lists, file), "utf8")));
const chosen = choose(process.argv.slice(2));
const folder = mkdtempSync(join(tmpdir(), "ditrun-mutants-"));

/** The file that is changed now, with its right text. */
let changed;
/** The process group that works now. */
let working;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    if (working !== undefined) endGroup(working);
    restore();
    rmSync(folder, { recursive: true, force: true });
    console.error(`${signal}: the sources are as they were; what was built may still hold the fault: npm run build.`);
    process.exit(1);
  });
}

let failed = 0;
const dirty = new Set();
try {
  if (!process.argv.includes("--trust")) await checkRightCode();
  for (const mutant of chosen) {
    const started = Date.now();
    const { verdict, by } = await verdictOf(mutant);
    if (verdict !== "killed") failed++;
    console.log(`${verdict.padEnd(9)} ${mutant.name} (${((Date.now() - started) / 1000).toFixed(0)} s)${by ? `: ${by}` : ""}`);
  }
} finally {
  restore();
  for (const step of dirty) await build(step);
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${chosen.length - failed} of ${chosen.length} mutants are killed.`);
process.exit(failed === 0 ? 0 : 1);

function choose(words) {
  const names = words.filter((word) => word !== "--trust");
  const [first, path] = names;
  const found =
    first === "--all"
      ? all
      : first === "--file"
        ? all.filter(({ file }) => file === path)
        : names.map((name) => all.find((mutant) => mutant.name === name) ?? name);
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
  for (const only of new Set(chosen.map(({ only }) => only))) {
    const tests = chosen.filter((mutant) => mutant.only === only).flatMap(({ tests }) => tests);
    const { code, by } = await runTests([...new Set(tests)], only);
    if (code === 0) continue;
    console.error(`The tests fail without any mutant${by ? `: ${by}` : ""}.`);
    process.exit(2);
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
    writeFileSync(file, text.split(find).join(replace));
    const step = stepOf(file);
    dirty.add(step);
    if (!(await build(step))) return { verdict: "does not build" };
    const { code, by } = await runTests(tests, only);
    return { verdict: code === 0 ? "SURVIVED" : "killed", by };
  } finally {
    restore();
  }
}

function restore() {
  if (changed !== undefined) writeFileSync(changed.file, changed.text);
  changed = undefined;
}

function stepOf(file) {
  return file.startsWith("kernels/") ? "kernels" : "typescript";
}

/** @returns whether it could be built. Types are not checked: a fault in them is none that a test has to find. */
async function build(step) {
  const { code } =
    step === "kernels"
      ? await run("cmake", ["--build", "build"])
      : await run("node_modules/.bin/tsc", ["-p", "tsconfig.build.json", "--noCheck"]);
  return code === 0;
}

/** @returns the exit code, and which test failed first. */
async function runTests(tests, only) {
  const report = join(folder, "report.json");
  rmSync(report, { force: true });
  const pattern = only === undefined ? [] : ["-t", only.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")];
  const { code, late } = await run("node_modules/.bin/vitest", [
    ...["run", "--config", "test/mutants/vitest.config.ts", "--bail", "1"],
    ...["--reporter", "json", "--outputFile", report, ...pattern, ...tests],
  ]);
  if (late) return { code, by: `not done after ${LIMIT_MILLISECONDS / 1000} s` };
  const { testResults, numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, "utf8"));
  if (code === 0 && numPassedTests + numFailedTests === 0) throw new Error(`No test of ${tests.join(", ")} has run.`);
  const first = testResults.flatMap(({ assertionResults }) => assertionResults).find(({ status }) => status === "failed");
  return { code, by: first?.fullName ?? testResults.find(({ message }) => message)?.message.split("\n")[0] };
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: "ignore", detached: true });
    working = child.pid;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      endGroup(child.pid);
    }, LIMIT_MILLISECONDS);
    child.on("error", () => resolve({ code: 1, late }));
    child.on("close", (code) => {
      clearTimeout(timer);
      working = undefined;
      resolve({ code: code ?? 1, late });
    });
  });
}

function endGroup(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}
