import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, test, vi } from "vitest";
import { type LaunchEvent, type LaunchRequest, launch } from "../../src/index.js";
import { packageRoot } from "../../src/paths.js";

const node = (script: string) => ["node", "-e", script] as const;
const sh = (script: string) => ["sh", "-c", script] as const;

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("every rank", () => {
  test("has torchrun's variables, the launcher's environment and what is added to it", async () => {
    const lines: string[] = [];
    const onEvent = (event: LaunchEvent) => {
      if (event.kind === "output") lines.push(event.line);
    };
    const names =
      "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT GROUP_RANK ROLE_RANK ADDED".split(" ");
    const script = `console.log(${JSON.stringify(names)}.map((name) => process.env[name]).join(" "), process.env.PATH !== undefined)`;
    const environment = { ADDED: "yes", RANK: "9" };
    const { exits } = await launch({ command: node(script), nproc: 4, masterPort: 29555, environment }, { onEvent });
    expect(exits).toEqual([0, 1, 2, 3].map((rank) => ({ rank, code: 0 })));
    const expected = [0, 1, 2, 3].map((rank) => `${rank} ${rank} 4 4 127.0.0.1 29555 0 ${rank} yes true`);
    expect(lines.sort()).toEqual(expected);
  });

  test("tells its lines in order and its exit last, however slow the listener", async () => {
    const events: string[] = [];
    const onEvent = async (event: LaunchEvent) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      events.push(
        event.kind === "output" ? `${event.rank} ${event.stream} ${event.line}` : `${event.rank} ${event.code}`,
      );
    };
    await launch(
      { command: sh("for i in 1 2 3; do echo $i; done; sleep 0.1; echo end >&2; printf rest"), nproc: 2 },
      { onEvent },
    );
    for (const rank of [0, 1]) {
      const own = events.filter((event) => event.startsWith(`${rank} `));
      expect(own.slice(0, 3)).toEqual([1, 2, 3].map((line) => `${rank} stdout ${line}`));
      expect(own.slice(3, 5).sort()).toEqual([`${rank} stderr end`, `${rank} stdout rest`]);
      expect(own.slice(5)).toEqual([`${rank} 0`]);
    }
  });

  test("finds nothing on stdin, and the same free port as the others", async () => {
    const ports = new Set<string>();
    const onEvent = (event: LaunchEvent) => {
      if (event.kind === "output") ports.add(event.line);
    };
    await launch({ command: sh("cat; echo $MASTER_PORT"), nproc: 2 }, { onEvent });
    expect([...ports]).toEqual([expect.stringMatching(/^\d{4,5}$/)]);
  });
});

describe("the first failure ends the others and is told with its rank, host and way", () => {
  const others = "trap '' INT; sleep 100 & wait";

  test.each([
    ["exit 7", { code: "ERR_RANK_FAILED", exitCode: 7, signal: undefined }],
    ["kill -SEGV $$", { code: "ERR_RANK_SIGNAL", exitCode: 139, signal: "SIGSEGV" }],
  ])("%s", async (end, how) => {
    const exits: LaunchEvent[] = [];
    const onEvent = (event: LaunchEvent) => {
      if (event.kind === "exit") exits.push(event);
    };
    const script = `if [ $RANK = 1 ]; then echo "no more" >&2; ${end}; fi; ${others}`;
    const failed = launch({ command: sh(script), nproc: 3 }, { onEvent });
    const message = expect.stringMatching(
      /^Rank 1 \(.*\) .*\n {2}no more\nIt ended at [\d:.]+ UTC, [\d.]+ s after the start\.$/s,
    );
    await expect(failed).rejects.toMatchObject({ name: "DitrunError", rank: 1, host: hostname(), message, ...how });
    expect(exits.map(({ rank }) => rank).sort()).toEqual([0, 1, 2]);
    for (const rank of [0, 2]) expect(exits).toContainEqual({ kind: "exit", rank, signal: "SIGTERM" });
  });

  test("a program that is not there", async () => {
    const failed = launch({ command: ["/nowhere/program"], nproc: 2 });
    const message = expect.stringContaining(
      "could not be started: /nowhere/program: there is no such file or directory.",
    );
    await expect(failed).rejects.toMatchObject({ code: "ERR_RANK_NOT_STARTED", exitCode: 3, message });
  });
});

describe("all ranks, and what they started, are ended", () => {
  /** Each rank tells of a process that has left its group. */
  const script = "setsid sleep 100 & echo $!; wait";

  test("by an AbortSignal, with whose reason the launch is rejected", async () => {
    const ending = new AbortController();
    const pids: number[] = [];
    const onEvent = (event: LaunchEvent) => {
      if (event.kind === "output" && pids.push(Number(event.line)) === 2) ending.abort(new Error("enough"));
    };
    const launched = launch({ command: sh(script), nproc: 2 }, { signal: ending.signal, onEvent });
    await expect(launched).rejects.toThrow(/^enough$/);
    expect(pids.filter(alive)).toEqual([]);
    await expect(launch({ command: sh("exit 3"), nproc: 1 }, { signal: ending.signal })).rejects.toThrow(/^enough$/);
  });

  test("by a listener that throws", async () => {
    const onEvent = () => {
      throw new TypeError("a mistake of the listener");
    };
    await expect(launch({ command: sh(script), nproc: 2 }, { onEvent })).rejects.toThrow(TypeError);
    await expect(launch({ command: sh("true"), nproc: 1 }, { onEvent })).rejects.toThrow(TypeError);
  });

  test("when the launcher is killed", async () => {
    const program = `
      import { launch } from "ditrun";
      const onEvent = (event) => console.log(event.line);
      await launch({ command: ["sh", "-c", ${JSON.stringify(script)}], nproc: 2 }, { onEvent });`;
    const launcher = execa("node", ["--input-type=module", "-e", program], { cwd: packageRoot, reject: false });
    let text = "";
    launcher.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    await vi.waitFor(() => expect(text.match(/\n/g)).toHaveLength(2), { timeout: 20_000, interval: 20 });
    const pids = text.trim().split("\n").map(Number);
    expect(pids.filter(alive)).toHaveLength(2);
    launcher.kill("SIGKILL");
    await vi.waitFor(() => expect(pids.filter(alive)).toEqual([]), { timeout: 10_000, interval: 50 });
  });
});

test("nothing is written unless it is asked for; with a folder, a log of the launch and the lines of each rank", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-launch-"));
  const program = `
    import { launch } from "ditrun";
    const log = process.argv[1] === "" ? {} : { folder: process.argv[1] };
    await launch({ command: ["sh", "-c", "echo out $RANK; echo err >&2"], nproc: 1, log });`;
  for (const argument of ["", folder]) {
    const run = await execa("node", ["--input-type=module", "-e", program, argument], { cwd: packageRoot, all: true });
    expect(run.all).toBe("");
  }
  const { stdout } = await execa(
    "sh",
    ["-c", "cat launch-*/attempt-0/rank-0.stdout.log launch-*/attempt-0/rank-0.stderr.log"],
    {
      cwd: folder,
    },
  );
  expect(stdout).toBe("out 0\nerr");
  expect(readFileSync(join(folder, "launcher.log"), "utf8")).toContain("Rank 0 is process");
  rmSync(folder, { recursive: true });
});

test.each<[string, LaunchRequest, string]>([
  ["no rank", { command: ["true"], nproc: 0 }, "ERR_NPROC"],
  ["half a rank", { command: ["true"], nproc: 1.5 }, "ERR_NPROC"],
  ["an empty name", { command: [""], nproc: 1 }, "ERR_OPTION_VALUE"],
  ["a port out of range", { command: ["true"], nproc: 1, masterPort: 70_000 }, "ERR_OPTION_VALUE"],
])("%s is refused before anything starts", async (_what, request, code) => {
  await expect(launch(request)).rejects.toMatchObject({ name: "DitrunError", code, exitCode: 2 });
});
