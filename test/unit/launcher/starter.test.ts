import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { findStarters, isAbandoned, isAlive, watchStarters } from "../../../src/launcher/starter.js";

const begun: ChildProcess[] = [];
afterEach(() => {
  for (const { pid } of begun.splice(0)) {
    for (const each of [pid, ...childrenOf(pid)]) if (each !== undefined) process.kill(each, "SIGKILL");
  }
});

function childrenOf(pid: number | undefined): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
}

/** Has a shell start `sleep` and wait for it. @returns both ids. */
async function shell(line: string, program = "bash"): Promise<{ waits: number; sleeps: number }> {
  const child = spawn(program, ["-c", line], { stdio: "ignore" });
  begun.push(child);
  return vi.waitFor(() => {
    const sleeps = childrenOf(child.pid).find((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sleep"),
    );
    if (child.pid === undefined || sleeps === undefined) throw new Error("not yet");
    return { waits: child.pid, sleeps };
  });
}

test("a shell that has it in its foreground waits for it", async () => {
  const { waits, sleeps } = await shell("sleep 100; true");
  expect(findStarters(sleeps)).toMatchObject([{ pid: waits, name: "bash" }]);
});

test("so does npm, also behind a shell", async () => {
  const { waits, sleeps } = await shell('exec -a "npm exec ditrun" bash -c "sleep 100; true"');
  expect(findStarters(sleeps)).toMatchObject([{ pid: waits, name: "npm" }]);
});

test("a shell with job control does not: it may end before its jobs", async () => {
  const { sleeps } = await shell("set -m; sleep 100; true");
  expect(findStarters(sleeps)).toEqual([]);
});

test("nor does any whose session the job has left", async () => {
  const { sleeps } = await shell("setsid sleep 100 & wait");
  await vi.waitFor(() => expect(findStarters(sleeps)).toEqual([]));
});

test("the end of one that waits is told once", async () => {
  const { waits, sleeps } = await shell("sleep 100; true");
  const starters = findStarters(sleeps);
  const gone = vi.fn();
  const stop = watchStarters(starters, gone);
  process.kill(waits, "SIGKILL");
  await vi.waitFor(() => expect(gone).toHaveBeenCalledWith(starters[0]), { timeout: 10_000 });
  stop();
  process.kill(sleeps, "SIGKILL");
  begun.splice(0);
  expect(starters.map((starter) => isAlive(starter))).toEqual([false]);
});

test("another process of the same id is not the one that waited", () => {
  const stat = { pid: 7, name: "sh", state: "S", parent: 1, group: 7, session: 7, started: 5 };
  expect(isAlive({ pid: 7, name: "sh", started: 5 }, () => stat)).toBe(true);
  expect(isAlive({ pid: 7, name: "sh", started: 4 }, () => stat)).toBe(false);
  expect(isAlive({ pid: 7, name: "sh", started: 5 }, () => ({ ...stat, state: "Z" }))).toBe(false);
});

test("what npm did not start cannot have been left by it", () => {
  expect(isAbandoned([], {})).toBe(false);
  expect(isAbandoned([], { npm_command: "exec" })).toBe(false);
});
