import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { processLimit } from "../../../src/launcher/process-limit.js";
import { checkFiles, checkRoom } from "../../../src/launcher/room.js";
import { packageRoot, reaperEntry } from "../../../src/paths.js";
import { killProcessesOfJob, processesOfJob } from "../../../src/protocol/job-processes.js";
import { isStopped, processStat } from "../../../src/protocol/process-stat.js";

test("a process's state is what /proc says, whatever its name", async () => {
  expect(processStat(process.pid)).toMatchObject({ pid: process.pid, parent: process.ppid });
  expect(processStat(2 ** 30)).toBeUndefined();
  const child = spawn("bash", ["-c", "exec -a 'a) T (b' sleep 100"], { stdio: "ignore" });
  const pid = child.pid ?? 0;
  expect(isStopped(pid)).toBe(false);
  child.kill("SIGSTOP");
  await vi.waitFor(() => expect(isStopped(pid)).toBe(true));
  child.kill("SIGKILL");
});

test("what carries a job's mark is found and killed in whatever session it is; nothing else is", async () => {
  const mark = randomUUID();
  const start = (value: string) =>
    spawn("setsid", ["sleep", "100"], { stdio: "ignore", env: { ...process.env, DITRUN_JOB: value } });
  const [own, other] = [start(mark), start(`${mark}-other`)];
  const ended = new Promise((resolve) => own.once("exit", (_, signal) => resolve(signal)));
  await vi.waitFor(() => expect(processesOfJob(mark)).toEqual([own.pid]));
  expect(killProcessesOfJob(mark)).toBe(1);
  expect(await ended).toBe("SIGKILL");
  expect(processesOfJob(mark)).toEqual([]);
  expect(other.exitCode ?? other.signalCode).toBeNull();
  other.kill("SIGKILL");
});

test("the reaper outlives what a scheduler sends to all processes of a job, and then ends its ranks", async () => {
  const mark = randomUUID();
  const rank = spawn("setsid", ["sleep", "100"], { stdio: "ignore", env: { ...process.env, DITRUN_JOB: mark } });
  const reaper = spawn(process.execPath, [reaperEntry, mark], { stdio: ["pipe", "ignore", "ignore"] });
  const isCaught = (number: number) => {
    const [, mask = "0"] = /^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${reaper.pid}/status`, "utf8")) ?? [];
    return (BigInt(`0x${mask}`) >> BigInt(number - 1)) % 2n === 1n;
  };
  // The last that it asks for.
  await vi.waitFor(() => expect(isCaught(constants.signals.SIGUSR2)).toBe(true), { timeout: 20_000 });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const) reaper.kill(signal);
  const ended = new Promise((resolve) => rank.once("exit", (_, signal) => resolve(signal)));
  reaper.stdin.end();
  expect(await ended).toBe("SIGKILL");
});

describe("limits", () => {
  const text =
    "Limit                     Soft Limit           Hard Limit           Units\nMax processes             30                   unlimited            processes\nMax open files            unlimited            unlimited            files\n";

  test("are read as they stand", () => {
    expect(processLimit("Max processes", text)).toBe(30);
    expect(processLimit("Max open files", text)).toBe(Number.POSITIVE_INFINITY);
    expect(processLimit("Max nonsense", text)).toBeUndefined();
  });

  test("too many workers for the open files are refused with the number that would do", () => {
    expect(() => checkRoom(1_000_000)).toThrow(
      /files may be open at once, and 1000000 workers need 8000064 .*ulimit -n 8000064/,
    );
    expect(() => checkRoom(1)).not.toThrow();
  });

  const program = join(packageRoot, "bin", "ditrun.js");
  test.each([
    [
      "ulimit -n 96",
      3,
      /^ditrun: Only 96 files may be open at once, and the launcher needs 256: raise the limit with ulimit -n 1024/,
    ],
    ["d=$(mktemp -d); cd $d; rmdir $d", 2, /^ditrun: The working directory has been removed: [^\n]*\.\n$/],
  ])("%s is one sentence", (line, code, message) => {
    const { status, stderr } = spawnSync("bash", ["-c", `${line}; exec node ${program} links`], { encoding: "utf8" });
    expect(stderr).toMatch(message);
    expect(status).toBe(code);
  });
});

describe.runIf(process.arch === "x64")("signals that were ignored from the start are known", () => {
  const module = join(packageRoot, "dist", "cli", "inherited-signals.js");
  const script = `import(${JSON.stringify(module)}).then((m) => console.log([...m.inheritedIgnored()].join()))`;
  test.each([
    ["none", "", ""],
    ["SIGHUP, as by nohup", "trap '' HUP;", "SIGHUP"],
    ["SIGQUIT, and with it SIGINT, as by a shell's &", "trap '' INT QUIT;", "SIGQUIT,SIGINT"],
  ])("%s", (_, trap, known) => {
    const { stdout, stderr } = spawnSync("sh", ["-c", `${trap} exec node -e '${script}'`], { encoding: "utf8" });
    expect([stderr, stdout.trim()]).toEqual(["", known]);
  });
});

test("open files are counted for workers here and for connections of other hosts", () => {
  expect(() => checkFiles(8, 511 + 4088, 4727)).not.toThrow();
  expect(() => checkFiles(8, 511 + 4088, 4726)).toThrow(
    /^Only 4726 files may be open at once, and 8 workers and 4599 connections of other hosts need 4727 in the launcher: raise the limit with ulimit -n 4727\.$/,
  );
  expect(() => checkFiles(0, 511, 100)).toThrow("and 511 connections of other hosts need 575 in the launcher");
});
