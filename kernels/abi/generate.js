// Writes the twins of kernels/include/ditrun.h, in TypeScript for workers and in Python for the checks on a GPU.
//   node kernels/abi/generate.js            writes them
//   node kernels/abi/generate.js --check    fails where one is not what it would write
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readHeader } from "./header.js";
import { python } from "./python.js";
import { typescript } from "./typescript.js";

const file = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

try {
  const abi = readHeader(readFileSync(file("kernels/include/ditrun.h"), "utf8"));
  const checks = process.argv.includes("--check");
  bring("src/worker/runtime/abi.generated.ts", typescript(abi), checks);
  bring("test/gpu/ditrun_abi_generated.py", python(abi), checks);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

/** Writes a twin, or only looks whether it is up to date. */
function bring(path, text, checks) {
  if (!checks) writeFileSync(file(path), text);
  else if (textOf(path) !== text) {
    console.error(`${path} is not what kernels/include/ditrun.h says: run node kernels/abi/generate.js.`);
    process.exitCode = 1;
  }
}

/** A twin as it is, "" where there is none. */
function textOf(path) {
  try {
    return readFileSync(file(path), "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return "";
    throw error;
  }
}
