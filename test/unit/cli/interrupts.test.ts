import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../../src/paths.js";

// A moment is one when the launcher begins to listen to a signal: no other is the same however busy the machine is.
test.each([
  ["is loaded", "SIGUSR1", "SIGTERM", 143],
  ["is loaded", "SIGUSR1", "SIGINT", 130],
  ["reads its command line", "SIGXFSZ", "SIGTERM", 143],
  ["has hardly begun", "SIGHUP", "SIGTERM", 143],
])("a signal while the launcher %s (at %s: %s) is told, also in the file of --json", (_, moment, signal, exitCode) => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-early-"));
  const file = join(folder, "result.json");
  const send = `process.on("newListener", (name) => {
    if (name === "${moment}") process.kill(process.pid, "${signal}");
  });`;
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      ...["--import", `data:text/javascript,${encodeURIComponent(send)}`, join(packageRoot, "bin", "ditrun.js")],
      ...["links", "--nproc", "2", "--device", "cpu", "--json", file],
    ],
    { encoding: "utf8" },
  );
  const message = `Ended by ${signal}.`;
  expect(stderr).toBe(`ditrun: ${message}\n`);
  expect(status).toBe(exitCode);
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({
    error: { message, code: "ERR_INTERRUPTED", exitCode, signal },
  });
  rmSync(folder, { recursive: true });
});
