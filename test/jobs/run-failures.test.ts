import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type AttemptsOptions, runAttempts } from "../../src/launcher/attempts.js";
import { openOwnLog } from "../../src/launcher/logs.js";
import type { ProgramPlace } from "../../src/launcher/rank-program.js";
import { RunFolder } from "./run.js";

const folder = RunFolder.ofEachTest();
afterEach(() => {
  expect(folder.files().filter((name) => name.startsWith("ditrun-"))).toEqual([]);
});

/** Runs a line of sh on ranks of this process, which is quicker than a launcher of its own. */
async function launchRanks(script: string, nproc: number, more: Partial<AttemptsOptions> = {}) {
  const said: string[] = [];
  const log = { ...openOwnLog(), logger: silentLogger(said) };
  const program = ({ rank }: ProgramPlace) => ({
    command: ["sh", "-c", script] as const,
    environment: { RANK: String(rank), RUN_FOLDER: folder.path },
    stdin: "empty" as const,
  });
  const error = await runAttempts({ id: "run", nproc, log, maxRestarts: 0, program, ...more }).catch(
    (thrown: unknown) => thrown,
  );
  return { error, said };
}

function silentLogger(said: string[]) {
  const take = (sentence: string) => void said.push(sentence);
  return { error: take, warn: take, info: take, debug: () => undefined };
}

const others = "sleep 100 & wait";
/** Lines of sh that wait for a file, and for the end of the process whose number it has. */
const waitFor = (name: string) => `while [ ! -s $RUN_FOLDER/${name} ]; do sleep 0.02; done`;
const ended = (name: string) => `${waitFor(name)}; while kill -0 $(cat $RUN_FOLDER/${name}) 2>&-; do sleep 0.02; done`;

describe("the first cause is named, the others are victims, and all are gone", () => {
  test.each(["SEGV", "KILL", "ABRT", "BUS", "FPE", "ILL", "TERM", "INT", "HUP", "PIPE", "USR1"])(
    "SIG%s",
    async (name) => {
      const { error, said } = await launchRanks(`[ $RANK = 1 ] && kill -${name} $$; ${others}`, 3);
      expect(error).toMatchObject({
        ...{ code: "ERR_RANK_SIGNAL", rank: 1, signal: `SIG${name}`, host: hostname() },
        message: expect.stringMatching(new RegExp(`^Rank 1 \\(.*, process \\d+\\) was killed by SIG${name}`)),
      });
      expect(said.at(-1)).toBe("Victims, not the cause: ranks 0 and 2 were ended.");
    },
  );

  test.each([1, 3, 127, 255])("exit %i", async (code) => {
    const { error } = await launchRanks(`[ $RANK = 0 ] && { echo why >&2; exit ${code}; }; ${others}`, 2);
    const message = expect.stringMatching(
      new RegExp(`exited with code ${code}\\. Its last lines on stderr:\n {2}why\n`),
    );
    expect(error).toMatchObject({ code: "ERR_RANK_FAILED", exitCode: code, rank: 0, message });
  });

  test("a rank that loses its peer is no cause, though it ends first", async () => {
    const script = `
      case $RANK in
        0) ${waitFor("one")}; echo "RuntimeError: Connection closed by peer [127.0.0.1]:4711" >&2; exit 1;;
        1) echo > $RUN_FOLDER/one; sleep 0.1; echo "my own mistake" >&2; exit 7;;
        *) ${others};;
      esac`;
    expect((await launchRanks(script, 3)).error).toMatchObject({ rank: 1, exitCode: 7 });
  });

  test("where every rank has lost a peer, the first that ended is named", async () => {
    const script = `echo "Broken pipe" >&2; if [ $RANK = 1 ]; then echo $$ > $RUN_FOLDER/one; exit 2; fi; ${ended("one")}; exit 1`;
    expect((await launchRanks(script, 2)).error).toMatchObject({ rank: 1, exitCode: 2 });
  });

  test("one that ended first is the cause, though its output is read last", async () => {
    // What rank 0 leaves behind holds its pipes open.
    const script = `if [ $RANK = 0 ]; then setsid sleep 100 & echo $$ > $RUN_FOLDER/one; exit 3; fi; ${ended("one")}; exit 4`;
    expect((await launchRanks(script, 2)).error).toMatchObject({ rank: 0, exitCode: 3 });
  });

  test("an error file's message is the reason, and the file is gone afterwards", async () => {
    const content = '{"message": {"message": "OutOfMemoryError: 3 GiB\\nmore", "extraInfo": {}}}';
    const { error } = await launchRanks("", 1, {
      program: ({ errorFile = "" }) => ({
        command: ["sh", "-c", `printf %s '${content}' > "$TORCHELASTIC_ERROR_FILE"; exit 1`],
        environment: { TORCHELASTIC_ERROR_FILE: errorFile },
        stdin: "empty",
      }),
    });
    expect(error).toMatchObject({ message: expect.stringMatching(/exited with code 1: OutOfMemoryError: 3 GiB\.\n/) });
  });
});

describe("ranks end with all that they have started", () => {
  test.each([
    ["a child", "sleep 100 & wait"],
    ["a grandchild in a session of its own", "setsid sh -c 'sleep 100; true' & wait"],
    ["a child that is deaf to SIGTERM", "sh -c 'trap \"\" TERM; sleep 100; true' & wait"],
  ])("%s", async (_, script) => {
    const { error } = await launchRanks(`[ $RANK = 1 ] && { sleep 0.2; exit 5; }; ${script}`, 2);
    expect(error).toMatchObject({ rank: 1, exitCode: 5 });
  });

  test("deaf to SIGTERM: SIGKILL follows when the time is over", async () => {
    const script = `[ $RANK = 1 ] && { sleep 0.3; exit 5; }; trap "" TERM; while :; do sleep 100; done`;
    const { error } = await launchRanks(script, 2, { asking: { milliseconds: 200 } });
    expect(error).toMatchObject({ rank: 1 });
  });

  test("all with code 0, whatever they leave behind", async () => {
    expect((await launchRanks("setsid sleep 100 & exit 0", 2)).error).toBeUndefined();
  });
});

test("a rank that ends early with code 0 does not end the others", async () => {
  const { error } = await launchRanks(`[ $RANK = 0 ] && exit 0; sleep 0.5; exit 0`, 2);
  expect(error).toBeUndefined();
});

test("silence ends the job where it is asked for; lines break it", async () => {
  const { error } = await launchRanks("for i in 1 2 3 4; do echo $i; sleep 0.2; done; sleep 100", 2, {
    silenceSeconds: 0.5,
  });
  expect(error).toMatchObject({
    code: "ERR_RANK_SILENT",
    exitCode: 4,
    message: "No rank has written a line for 0.5 s, as --timeout allows.",
  });
});

describe("ditrun run", () => {
  test("tells where each rank of a Python program waits that is silent for too long", async () => {
    const file = join(folder.path, "wait.py");
    writeFileSync(
      file,
      `import os, time
def step(): time.sleep(100)
def reduce(): time.sleep(100)
print("here")
step() if os.environ["RANK"] == "1" else reduce()`,
    );
    const { exitCode, stderr } = await folder.start(["--nproc", "3", "--timeout", "5", file], {
      PYTHON_EXEC: quickPython(),
    });
    expect(stderr).toMatch(/rank 1 in step \(wait\.py:2\); ranks 0 and 2 in reduce \(wait\.py:3\)\.$/m);
    expect(exitCode).toBe(4);
  });

  const deaf = ["sh", "-c", 'trap "" TERM INT HUP QUIT; echo ready; while :; do sleep 100; done'];

  test.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGHUP", 129],
    ["SIGQUIT", 131],
  ] as const)("%s is sent on, then comes SIGKILL", async (signal, code) => {
    const tell = `trap 'echo got ${signal}; exit 0' ${signal.slice(3)}; echo ready; while :; do sleep 0.05; done`;
    const ranks = [`if [ $RANK = 0 ]; then ${tell}; fi`, ...deaf.slice(2)].join("; ");
    const run = folder.start(["--nproc", "2", "--shutdown-timeout", "1", "sh", "-c", ranks]);
    await said(run, "] ready", 2);
    run.kill(signal);
    const { exitCode, stdout, stderr } = await run;
    expect(stdout).toContain(`[rank 0] got ${signal}`);
    expect(stderr).toContain(`The job was ended by ${signal}.`);
    expect(exitCode).toBe(code);
  });

  test("a second signal kills at once", async () => {
    const run = folder.start(["--nproc", "2", "--shutdown-timeout", "100", ...deaf]);
    await said(run, "] ready", 2);
    run.kill("SIGINT");
    await vi.waitFor(() => expect(text(run)).toContain("a second one ends them at once"), { timeout: 20_000 });
    run.kill("SIGINT");
    expect((await run).exitCode).toBe(130);
  });

  test("SIGUSR1 ends the job only where --signals-to-handle names it", async () => {
    const tell = ["sh", "-c", "trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.05; done"];
    const run = folder.start(["--signals-to-handle", "SIGTERM,SIGUSR1", ...tell]);
    await said(run, "] ready", 1);
    run.kill("SIGUSR1");
    const { exitCode, stdout } = await run;
    expect(stdout).toContain("[rank 0] got it");
    expect(exitCode).toBe(138);
  });

  test("SIGKILL leaves nothing, not even in sessions of their own", async () => {
    const run = folder.start(["--nproc", "2", "sh", "-c", "setsid sleep 100 & echo ready; trap '' TERM; wait"]);
    await said(run, "] ready", 2);
    run.kill("SIGKILL");
    await run;
    await vi.waitFor(() => expect(folder.processes()).toEqual([]), { timeout: 5000, interval: 20 });
    // What a killed launcher leaves in the temporary folder, the next one removes.
    expect((await folder.start(["true"])).exitCode).toBe(0);
  });

  const namespaces = spawnSync("unshare", ["-pf", "true"]).status === 0;
  test.runIf(namespaces)("as process 1 of a container, without an init", async () => {
    const failing = ["sh", "-c", "setsid sleep 100 & [ $RANK = 1 ] && exit 6; wait"];
    const { exitCode, stderr } = await folder.start(["--nproc", "2", ...failing], {}, [
      "unshare",
      "-pf",
      "--mount-proc",
    ]);
    expect(stderr).toMatch(/^ditrun: Rank 1 .* exited with code 6\.$/m);
    expect(exitCode).toBe(6);
  });

  test("a full disk under the logs is said once for a file, and stops nothing", async () => {
    const write = `ln -sf /dev/full "$1"/job/attempt-0/rank-0.stdout.log`;
    const logs = join(folder.path, "logs");
    spawnSync("sh", ["-c", `mkdir -p "$1"/job/attempt-0; ${write}`, "sh", logs]);
    const options = ["--log-dir", logs, "--rdzv-id", "job"];
    const { exitCode, stdout, stderr } = await folder.start([...options, "sh", "-c", "echo 1; sleep 0.1; echo 2"]);
    expect(stderr.match(/rank-0\.stdout\.log cannot be written any more: the disk is full/g)).toHaveLength(1);
    expect(stdout).toBe("[rank 0] 1\n[rank 0] 2");
    expect(exitCode).toBe(0);
  });

  test("a taken port is one sentence, and nothing starts", async () => {
    const server = createServer();
    const port = await new Promise<number>((resolve) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address();
        resolve(typeof address === "object" && address ? address.port : 0);
      });
    });
    const { exitCode, stdout, stderr } = await folder.start(["--master-port", String(port), "echo", "started"]);
    await new Promise((resolve) => server.close(resolve));
    expect(stderr).toMatch(new RegExp(`^ditrun: Rank 0 cannot listen on 127\\.0\\.0\\.1:${port} .*--master-port`, "m"));
    expect(stdout).toBe("");
    expect(exitCode).toBe(4);
  });
});

/** Python itself, not what a version manager puts before it; and it looks for no packages, which takes some of them seconds. */
function quickPython(): string {
  const { stdout } = spawnSync("python3", ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" });
  const file = join(folder.path, "python");
  writeFileSync(file, `#!/bin/sh\nexec ${stdout.trim()} -S -E -X faulthandler "$@"\n`, { mode: 0o755 });
  return file;
}

type Run = ReturnType<RunFolder["start"]>;
const texts = new WeakMap<Run, string[]>();

function text(run: Run): string {
  return texts.get(run)?.join("") ?? "";
}

/** Waits until the run has written a word so often. */
async function said(run: Run, word: string, times: number): Promise<void> {
  const pieces: string[] = [];
  texts.set(run, pieces);
  for (const stream of [run.stdout, run.stderr]) stream.on("data", (piece: Buffer) => pieces.push(piece.toString()));
  await vi.waitFor(() => expect(text(run).split(word)).toHaveLength(times + 1), { timeout: 20_000, interval: 20 });
}
