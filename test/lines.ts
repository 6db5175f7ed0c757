// Half a million lines of eight ranks at once: none is lost, split or joined.
//   npx tsx test/lines.ts [--lines 500000]          (npm run build -- --typescript before)
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { packageRoot } from "../src/paths.js";

const ranks = 8;
const { values } = parseArgs({ options: { lines: { type: "string" } } });
const each = Math.ceil(Number(values.lines ?? 500_000) / ranks);
const script = `import sys\nfor i in range(${each}): sys.stdout.write(f"{i} {'x' * (i % 100)}\\n")`;
const line = [join(packageRoot, "bin", "ditrun.js"), "run", "--log-level", "silent", "--nproc", String(ranks)];
const child = spawn("node", [...line, "--", "python3", "-c", script], { stdio: ["ignore", "pipe", "inherit"] });
const next = Array.from({ length: ranks }, () => 0);
let wrong = 0;
for await (const text of createInterface({ input: child.stdout })) {
  const [, rank = -1, number = -1, rest = ""] = /^\[rank (\d+)\] (\d+) (x*)$/.exec(text) ?? [];
  const expected = next[Number(rank)];
  if (expected !== Number(number) || rest.length !== expected % 100) wrong++;
  else next[Number(rank)] = expected + 1;
}
const lost = next.reduce((sum, count) => sum + each - count, 0);
console.log(`${ranks * each} lines of ${ranks} ranks: ${lost} lost, ${wrong} wrong.`);
process.exitCode = lost + wrong === 0 ? 0 : 1;
