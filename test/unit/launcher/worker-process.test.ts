import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { WorkerLog } from "../../../src/launcher/logs.js";
import { WorkerProcess } from "../../../src/launcher/worker-process.js";

let folder = "";
let said: string[] = [];
const log: WorkerLog = {
  lines: (stream, lines) => {
    said.push(...lines.map((line) => `${stream}: ${line}`));
    return undefined;
  },
  close: () => said.push("closed"),
  files: {},
};
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-worker-"));
  said = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

function run(script: string): WorkerProcess {
  const entry = join(folder, "worker.mjs");
  writeFileSync(entry, script);
  return new WorkerProcess(0, { command: [process.execPath, entry], environment: {}, stdin: "open" }, log);
}

test("what a worker wrote last is there before its log is closed, though its pipes stay open", async () => {
  const worker = run(`
    import { spawn } from "node:child_process";
    const child = spawn("setsid", ["sleep", "100"], { stdio: "inherit" });
    process.stdout.write(String(child.pid) + "\\n");
    process.stderr.write("the end of it");
    child.once("spawn", () => setTimeout(() => process.kill(process.pid, "SIGKILL"), 200));
  `);
  expect(await worker.exited).toEqual({ kind: "signal", signal: "SIGKILL" });
  process.kill(Number(/\d+/.exec(said[0] ?? "")?.[0]), "SIGKILL");
  expect(said.slice(1)).toEqual(["stderr: the end of it", "closed"]);
  expect(worker.stderrTail).toEqual(["the end of it"]);
});

test("all that was in its pipes is read, however much", async () => {
  const worker = run(`
    let text = "";
    for (let i = 0; i < 20000; i++) text += "line " + i + "\\n";
    process.stdout.write(text);
    process.stderr.write(text, () => process.exit(3));
  `);
  expect(await worker.exited).toEqual({ kind: "code", code: 3 });
  for (const stream of ["stdout", "stderr"]) {
    const lines = said.filter((line) => line.startsWith(stream));
    expect(lines).toHaveLength(20_000);
    expect(lines.at(-1)).toBe(`${stream}: line 19999`);
  }
  expect(said.at(-1)).toBe("closed");
});
