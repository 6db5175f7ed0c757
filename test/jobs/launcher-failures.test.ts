import { spawnSync } from "node:child_process";
import { closeSync, cpSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { profileWith, start } from "./launch.js";

/** Of those that say more than that a rank has failed. */
const kinds: Readonly<Record<string, string>> = { "return NaN": "ERR_RESULT" };
const NO_STACK = /^\s+at .*:\d+:\d+/m;

describe("the first cause is named, and everybody ends", () => {
  test.each([
    ["SIGSEGV", 139, /Rank 1 \(.+, process \d+\) was killed by SIGSEGV\. .*\n {2}about to read address 0/],
    ["SIGKILL", 137, /Rank 1 \(.+\) was killed by SIGKILL\./],
    ["exit 3", 3, /Rank 1 \(.+\) exited with code 3\. .*:\n {2}first line\n {2}second line without an end/],
    ["exit 0", 5, /Rank 1 \(.+\) exited with code 0 before it had reported a result\./],
    ["throw", 5, /Rank 1 \(.+\) failed: the arithmetic went wrong/],
    ["throw later", 5, /Rank 1 \(.+\) failed: thrown outside the task/],
    ["crash before joining", 127, /Rank 1 \(.+\) exited with code 127\. .*\n {2}libmissing\.so\.7 cannot be opened/],
    ["speak without end, then exit 7", 7, /exited with code 7\. .*:\n {2}my own reason\\x1b\[2J\\x07 without an end/],
    ["return NaN", 5, /Rank 1 \(.+\) failed: The result of rank 1 is not plain JSON: its milliseconds is NaN\./],
  ])("%s", async (behaviour, code, message) => {
    const others = { 0: "wait at a barrier", 2: "ignore SIGTERM", 3: "block" };
    const { exitCode, stderr, stdout, pids } = await profileWith(4, { ...others, 1: behaviour }, "--json");
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(code);
    expect(stderr).not.toMatch(/^ditrun: Rank [023] /m);
    expect(stderr).not.toMatch(NO_STACK);
    const { error } = JSON.parse(stdout);
    const kind = behaviour.startsWith("SIG")
      ? { code: "ERR_RANK_SIGNAL", signal: behaviour }
      : { code: kinds[behaviour] ?? "ERR_RANK_FAILED" };
    expect(error).toEqual({
      ...kind,
      message: expect.stringMatching(message),
      exitCode: code,
      rank: 1,
      host: hostname(),
    });
    await pids.expectGone(4);
  });

  test("cause and echo are told apart by what ranks say, though both end with code 4 and the echo comes first", async () => {
    const behaviour = { 0: "lose a peer", 1: "fail with code 4 after that", 2: "wait at a barrier" };
    const { exitCode, stderr, pids } = await profileWith(3, behaviour);
    expect(stderr).toMatch(/^ditrun: Rank 1 \(.+\) failed: The port of this rank's own is taken\./m);
    expect(exitCode).toBe(4);
    await pids.expectGone(3);
  });

  test("a crash after the result", async () => {
    const { exitCode, stderr, pids } = await profileWith(1, { 0: "exit 4 after the result" });
    expect(stderr).toMatch(/Rank 0 \(.+\) exited with code 4 after its result\./);
    expect(exitCode).toBe(4);
    await pids.expectGone(1);
  });

  test("the stack of a mistake in a worker is shown at --log-level debug", async () => {
    const { stderr, pids } = await profileWith(1, { 0: "throw" }, "--log-level", "debug");
    expect(stderr).toMatch(NO_STACK);
    await pids.expectGone(1);
  });
});

describe("deadlines", () => {
  test("ranks that never join are named", async () => {
    const behaviour = { 0: "wait at a barrier", 1: "never join", 2: "never join" };
    const { exitCode, stderr, pids } = await profileWith(3, behaviour, "--timeout", "6");
    expect(stderr).toMatch(/^ditrun: Ranks 1 and 2 did not join within 6 s\.$/m);
    expect(exitCode).toBe(4);
    await pids.expectGone(3);
  });

  test("ranks that do not come to a barrier are named", async () => {
    const behaviour = { 0: "wait at a barrier", 1: "hang", 2: "wait at a barrier" };
    const { exitCode, stderr, pids } = await profileWith(3, behaviour, "--timeout", "6");
    expect(stderr).toMatch(
      /^ditrun: Rank 1 did not come to barrier "lonely" within 6 s; rank 1 took request 0 \d+ s ago\./m,
    );
    expect(exitCode).toBe(4);
    await pids.expectGone(3);
  });

  test("a key that a rank never came to put is named with that rank and what it did last", async () => {
    const behaviour = { 0: "get a missing key", 1: "put and hang", 2: "put and hang" };
    const { exitCode, stderr, pids } = await profileWith(3, behaviour, "--timeout", "6");
    expect(stderr).toMatch(
      /Rank 0 \(.+\) failed: No rank has put "nobody puts this" within 6 s; ranks 1 and 2 put "something else" \d+ s ago\./,
    );
    expect(exitCode).toBe(4);
    await pids.expectGone(3);
  });

  test("a rank that is stopped is named, though nobody asks it for anything", async () => {
    const { exitCode, stderr, pids } = await profileWith(2, { 0: "hang", 1: "stop itself" }, "--timeout", "6");
    expect(stderr).toMatch(
      /^ditrun: Rank 1 has given no sign of life for more than 6 s: stopped, or stuck in a driver; rank 1 took request 0 \d+ s ago\.$/m,
    );
    expect(exitCode).toBe(4);
    await pids.expectGone(2);
  });

  test("a key that nobody puts is named", async () => {
    const { exitCode, stderr, pids } = await profileWith(1, { 0: "get a missing key" }, "--timeout", "6");
    expect(stderr).toContain('No rank has put "nobody puts this" within 6 s; all ranks ask for it.');
    expect(exitCode).toBe(4);
    await pids.expectGone(1);
  });
});

describe("what workers start ends with them", () => {
  test("when the job is ended", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "2", "--cp", "2"], {
      behaviour: { 0: "have a child", 1: "hang" },
    });
    await pids.started(3);
    process.kill("SIGTERM");
    expect((await process).exitCode).toBe(143);
    await pids.expectGone(3);
  });

  test("also in a session of their own, when the job is ended and when the launcher is killed", async () => {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "1", "--cp", "1"], {
        behaviour: { 0: "have a child in a session of its own" },
      });
      await pids.started(2);
      process.kill(signal);
      await process;
      await pids.expectGone(2);
    }
  });

  test("when the job succeeds", async () => {
    const { exitCode, pids } = await profileWith(1, { 0: "leave a child" });
    // The fixture's result is no profile, which the launcher must notice too.
    expect(exitCode).toBe(70);
    await pids.expectGone(2);
  });
});

describe("signals to the launcher", () => {
  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
    ["SIGQUIT", 131],
  ] as const)("%s ends everything", async (signal, code) => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "3", "--cp", "3"], {
      behaviour: { 0: "hang", 1: "ignore SIGTERM", 2: "block" },
    });
    await pids.started(3);
    process.kill(signal);
    const { exitCode, stderr } = await process;
    expect(exitCode).toBe(code);
    expect(stderr).toContain(`The job was ended by ${signal}.`);
    await pids.expectGone(3);
  });

  test("a second one kills at once", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "2", "--cp", "2"], {
      behaviour: { 0: "ignore SIGTERM", 1: "ignore SIGTERM" },
    });
    // The first SIGINT when both workers are deaf to SIGTERM, the second when the launcher has taken the first.
    let said = "";
    let sent = 0;
    process.stderr.on("data", (text) => {
      said += String(text);
      const deaf = said.split("from now on without SIGTERM").length - 1;
      const due = said.includes("a second one ends them at once") ? 2 : deaf === 2 ? 1 : 0;
      for (; sent < due; sent++) process.kill("SIGINT");
    });
    const { exitCode, stderr } = await process;
    expect(stderr).toContain("SIGINT again: killing 2 workers on cpu now.");
    expect(exitCode).toBe(130);
    await pids.expectGone(2);
  });

  test.runIf(process.arch === "x64")("one that was ignored from the start stays so", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "1", "--cp", "1"], {
      behaviour: { 0: "hang" },
      shell: 'trap "" HUP INT QUIT; exec "$@"',
    });
    await pids.started(1);
    for (const signal of ["SIGHUP", "SIGQUIT", "SIGINT"] as const) process.kill(signal);
    // They are dealt with in the order of their numbers, this one last.
    process.kill("SIGTERM");
    const { exitCode, stderr } = await process;
    expect(stderr).not.toMatch(/SIG(HUP|QUIT|INT)/);
    expect(exitCode).toBe(143);
    await pids.expectGone(1);
  });

  test("a scheduler's warnings end nothing, and open no debugger", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "1", "--cp", "1"], {
      behaviour: { 0: "ignore SIGTERM" },
    });
    let said = "";
    process.stderr.on("data", (text) => {
      said += String(text);
    });
    await vi.waitFor(() => expect(said).toContain("from now on without SIGTERM"), { timeout: 30_000, interval: 20 });
    const [worker = 0] = pids.all();
    for (const signal of ["SIGUSR1", "SIGUSR2"] as const) {
      process.kill(signal);
      globalThis.process.kill(worker, signal);
    }
    // Two signals that are pending at once come in any order.
    for (const signal of ["SIGUSR1", "SIGUSR2"]) {
      await vi.waitFor(() => expect(said).toContain(`${signal} is taken`), { timeout: 30_000, interval: 20 });
    }
    process.kill("SIGTERM");
    const { exitCode, stderr } = await process;
    expect(stderr).toContain("ditrun: SIGUSR1 is taken as the warning of a scheduler; the job goes on.\n");
    expect(stderr).toMatch(/\[rank 0\] SIGTERM is ignored/);
    expect(stderr).not.toContain("Debugger");
    expect(exitCode).toBe(143);
    await pids.expectGone(1);
  });

  test.runIf(process.arch === "x64")("the end of a shell that waits for it ends it", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "1", "--cp", "1"], {
      behaviour: { 0: "hang" },
      shell: '"$@"; exit $?',
    });
    await pids.started(1);
    process.kill("SIGKILL");
    const { stderr } = await process;
    expect(stderr).toMatch(/^ditrun: sh \(process \d+\), which started this and waited for it, has ended\.$/m);
    await pids.expectGone(1);
  });

  test("one that comes before a job, or between two, ends the launcher too and leaves no temporary folder", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-interrupted-"));
    const { process, pids } = start(["accuracy", "--device", "cpu", "--plans", "single,cp2"], {
      env: { TMPDIR: folder },
    });
    // As soon as the folder is there, which is before the first job listens.
    await vi.waitFor(() => expect(readdirSync(folder)).toHaveLength(1), { timeout: 30_000, interval: 1 });
    process.kill("SIGTERM");
    const { exitCode, stderr } = await process;
    expect(exitCode).toBe(143);
    expect(stderr).toMatch(/^ditrun: (Ended|The job was ended) by SIGTERM\.$/m);
    expect(readdirSync(folder)).toEqual([]);
    await pids.expectGone(pids.all().length);
    rmSync(folder, { recursive: true });
  });

  test("what SIGKILL leaves of a temporary folder, the next run removes", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-killed-"));
    const line = ["accuracy", "--device", "cpu", "--plans", "single"];
    const { process, pids } = start(line, { behaviour: { 0: "hang" }, env: { TMPDIR: folder } });
    await pids.started(1);
    process.kill("SIGKILL");
    await process;
    await pids.expectGone(1);
    expect(readdirSync(folder)).toHaveLength(1);
    const next = start(line, { env: { TMPDIR: folder } });
    expect((await next.process).exitCode).toBe(0);
    expect(readdirSync(folder)).toEqual([]);
    // The plan, one device of the same dtypes, and one in float32.
    await next.pids.expectGone(3);
    rmSync(folder, { recursive: true });
  });

  test("SIGKILL leaves no worker behind that is stopped", async () => {
    const { process, pids } = start(["profile", "--device", "cpu", "--nproc", "2", "--cp", "2"], {
      behaviour: { 0: "hang", 1: "stop itself" },
    });
    await pids.started(2);
    await vi.waitFor(() => expect(pids.states()).toContain("T"), { timeout: 30_000, interval: 20 });
    process.kill("SIGKILL");
    await process;
    await pids.expectGone(2);
  });

  test("SIGKILL leaves no worker behind, blocked ones and grandchildren included", async () => {
    const { process, pids } = start(
      ["profile", "--device", "cpu", "--nproc", "4", "--cp", "4", "--log-level", "debug"],
      {
        behaviour: { 0: "hang", 1: "block", 2: "have a child", 3: "ignore SIGTERM" },
      },
    );
    await pids.started(5);
    process.kill("SIGKILL");
    expect((await process).signal).toBe("SIGKILL");
    await pids.expectGone(5);
  });
});

test("a stdout that cannot be written is one sentence, and exit code 2", () => {
  const program = join(packageRoot, "bin", "ditrun.js");
  const full = openSync("/dev/full", "w");
  const line = [program, "links", "--nproc", "2", "--device", "cpu", "--dry-run"];
  const { status, stderr } = spawnSync("node", line, { stdio: ["ignore", full, "pipe"], encoding: "utf8" });
  closeSync(full);
  expect(stderr).toMatch(/^ditrun: stdout cannot be written: the disk is full; [^\n]*\n$/);
  expect(status).toBe(2);
});

test("a launcher that was not built is one sentence", () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-unbuilt-"));
  cpSync(join(packageRoot, "bin"), join(folder, "bin"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  const { status, stderr } = spawnSync("node", [join(folder, "bin", "ditrun.js"), "profile"], { encoding: "utf8" });
  expect(stderr).toMatch(
    /^ditrun: The launcher could not be loaded \(Cannot find module [^\n]*\): run npm ci[^\n]*\n$/,
  );
  expect(status).toBe(3);
  rmSync(folder, { recursive: true });
});

test("a file-size limit is one sentence, and leaves nothing", () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-limit-"));
  const file = join(folder, "result.json");
  const program = join(packageRoot, "bin", "ditrun.js");
  const line = 'ulimit -f 0; exec node "$@" 2>&1 | cat';
  const words = [program, "links", "--nproc", "2", "--device", "cpu", "--dry-run", "--json", file];
  const { stdout } = spawnSync("bash", ["-c", line, "bash", ...words], { encoding: "utf8" });
  expect(stdout).toMatch(
    /^ditrun: \S+result\.json could not be written: the file would be larger than this file system/m,
  );
  expect(readdirSync(folder)).toEqual([]);
  rmSync(folder, { recursive: true });
});

test("a taken port is one sentence, and no worker starts", async () => {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address ? address.port : 0);
    });
  });
  const { exitCode, stderr, pids } = await profileWith(2, {}, "--master-port", String(port));
  await new Promise((resolve) => server.close(resolve));
  expect(stderr).toMatch(
    new RegExp(`^ditrun: The rendezvous cannot listen on 127\\.0\\.0\\.1:${port} .*--master-port`, "m"),
  );
  expect(exitCode).toBe(4);
  await pids.expectGone(0);
});
