import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { runJob } from "../../src/engine/workers.js";
import { toFloat32 } from "../../src/formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../src/formats/safetensors.js";
import type { FileDtype } from "../../src/formats/tensor-file.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels, packageRoot } from "../../src/paths.js";
import { documentSchemas } from "../../src/views/documents.js";
import { fixtureWorker, Pids, start } from "./launch.js";
import { profileJob } from "./profile-job.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("workers get torchrun's environment and talk through the store", async () => {
  const pids = new Pids();
  vi.stubEnv("WORKER_PIDS", pids.folder);
  vi.stubEnv("OMP_NUM_THREADS", undefined);
  const results = await runJob({
    job: profileJob(30),
    nproc: 3,
    log: openLog("silent"),
    port: 0,
    entry: fixtureWorker,
  });
  vi.unstubAllEnvs();
  const threads = String(Math.max(1, Math.floor(availableParallelism() / 3)));
  expect(results).toEqual(
    [0, 1, 2].map((rank) => ({
      rank,
      greeting: `from ${(rank + 1) % 3}`,
      LOCAL_RANK: String(rank),
      WORLD_SIZE: "3",
      LOCAL_WORLD_SIZE: "3",
      OMP_NUM_THREADS: threads,
    })),
  );
  await pids.expectGone(3);
});

describe("profile", () => {
  test("--json leaves one document on stdout, everything else on stderr", async () => {
    const { process, pids } = start(["--json", "--nproc", "2", "--device", "cpu", "profile", "--baseline"]);
    const { exitCode, stdout, stderr } = await process;
    expect(exitCode).toBe(0);
    const document = documentSchemas.profile.parse(JSON.parse(stdout));
    expect(document.commandLine).toEqual([
      "ditrun",
      "--json",
      "--nproc",
      "2",
      "--device",
      "cpu",
      "profile",
      "--baseline",
    ]);
    expect([document.command, document.deviceKind, document.deviceName, document.host]).toEqual([
      ...["profile", "cpu", "fixture", hostname()],
    ]);
    expect(document.latencyMs.median).toBe(21);
    expect(document.throughput).toBeCloseTo(1000 / 21);
    expect(document.tflops).toBeCloseTo(1000 / 21);
    expect(document.worldSize).toBe(2);
    expect(document.model.name).toBe("dit-tiny");
    expect(document.baseline?.speedup).toBeCloseTo(20 / 21);
    expect(stderr).toContain("[rank 1] a line on stdout");
    expect(stderr).toContain("median ms");
    expect(stderr).toMatch(/^Verdict: 2 workers are slower than one: 0\.95 ×/m);
    await pids.expectGone(3);
  });

  test("--json FILE, --trace FILE and --log-dir", async () => {
    const json = join(folder, "profile.json");
    const trace = join(folder, "trace.json");
    const logs = join(folder, "logs");
    const args = ["profile", "--nproc", "2", "--device", "cpu", "--json", json, "--trace", trace, "--log-dir", logs];
    const { process, pids } = start(args);
    const { exitCode, stdout } = await process;
    expect(exitCode).toBe(0);
    expect(stdout).toBe("");
    expect(documentSchemas.profile.parse(JSON.parse(readFileSync(json, "utf8"))).ranks).toHaveLength(2);
    const { traceEvents } = z
      .object({ traceEvents: z.array(z.looseObject({ cat: z.string().optional(), pid: z.int() })) })
      .parse(JSON.parse(readFileSync(trace, "utf8")));
    expect(traceEvents.filter(({ cat }) => cat === "kernel").map(({ pid }) => pid)).toEqual([0, 1]);
    const [job] = readdirSync(logs).filter((name) => name.startsWith("profile-"));
    expect(readFileSync(join(logs, job ?? "", "rank-1.stdout.log"), "utf8")).toBe("a line on stdout\n");
    const lines = readFileSync(join(logs, "launcher.log"), "utf8").trim().split("\n");
    const said = lines.map((line) => z.looseObject({ msg: z.string() }).parse(JSON.parse(line)).msg);
    expect(said[0]).toMatch(/^ditrun \S+ starts on .+: profile --nproc 2 --device cpu /);
    for (const rank of [0, 1]) expect(said).toContain(`Rank ${rank} exited with code 0 after its result.`);
    expect(said.join()).not.toContain("before it had reported");
    await pids.expectGone(2);
  });
});

test("--quiet says nothing, and writes its files and events all the same", async () => {
  const at = (name: string) => join(folder, `quiet-${name}`);
  const files = ["--json", at("p.json"), "--events", at("e.ndjson"), "--log-dir", at("logs")];
  const { process, pids } = start(["profile", "--nproc", "2", "--device", "cpu", "--quiet", ...files]);
  const { exitCode, stdout, stderr } = await process;
  expect([exitCode, stdout, stderr]).toEqual([0, "", ""]);
  const result = documentSchemas.profile.parse(JSON.parse(readFileSync(at("p.json"), "utf8")));
  const lines = readFileSync(at("e.ndjson"), "utf8").trimEnd().split("\n");
  const events = lines.map((line) => documentSchemas.events.parse(JSON.parse(line)));
  expect(events).toMatchObject([
    { event: "started", commandLine: result.commandLine, startedAt: result.startedAt },
    { event: "job", kind: "profile", plan: "cp2 bf16", workers: 2, deviceKind: "cpu" },
    { event: "forward", kind: "first", done: 1, total: 1, milliseconds: 30 },
    { event: "finished", exitCode: 0, result: { command: "profile", verdict: result.verdict } },
  ]);
  const [job] = readdirSync(at("logs")).filter((name) => name.startsWith("profile-"));
  expect(readFileSync(join(at("logs"), job ?? "", "rank-0.stdout.log"), "utf8")).toBe("a line on stdout\n");
  await pids.expectGone(2);
});

test("--events - is on stdout, and ends with the failure; an error is all that --quiet says", async () => {
  const args = ["profile", "--nproc", "2", "--device", "cpu", "--quiet", "--events", "-"];
  const { process, pids } = start(args, { behaviour: { 1: "throw" } });
  const { exitCode, stdout, stderr } = await process;
  const events = stdout.split("\n").map((line) => documentSchemas.events.parse(JSON.parse(line)));
  const error = { code: "ERR_RANK_FAILED", exitCode: 5, rank: 1 };
  // Rank 0 may have told of a forward before rank 1 failed.
  expect(events.map(({ event }) => event).filter((event) => event !== "forward")).toEqual(["started", "job", "failed"]);
  expect(events.at(-1)).toMatchObject({ exitCode, error });
  expect(stderr).toMatch(/^ditrun: Rank 1 \(.*\) failed: the arithmetic went wrong[^\n]*$/);
  await pids.expectGone(2);
});

describe("accuracy", () => {
  const run = async (outputs: Record<string, (number | null)[]>, ...args: string[]) => {
    const { process, pids } = start(["accuracy", "--device", "cpu", "--json", ...args], {
      env: { OUTPUTS: JSON.stringify(outputs) },
    });
    const { exitCode, stdout, stderr } = await process;
    return { exitCode, stderr, pids, ...documentSchemas.accuracy.parse(JSON.parse(stdout)) };
  };

  test("passes within the limits and fails above them, each plan and each dtype by itself", async () => {
    const { exitCode, stderr, results, arithmetic, pids, ...document } = await run(
      { cp2: [1, 2, 3, 4.01], tp2: [1, 2, 3, 5], "single fp32": [1, 2, 3, 4.1] },
      "--plans",
      "cp2,tp2",
    );
    expect(results.map(({ plan, pass }) => ({ plan, pass }))).toEqual([
      { plan: "cp2", pass: true },
      { plan: "tp2", pass: false },
    ]);
    expect(results[1]?.relL2).toBeCloseTo(1 / Math.sqrt(30));
    expect(arithmetic).toMatchObject([{ plan: "single bf16", pass: false }]);
    expect(document).toMatchObject({ device: "cpu", seed: 0, weights: "random", reference: "one device" });
    expect(document.model.name).toBe("dit-tiny");
    expect(stderr).toMatch(/The output of plan tp2 is off by a relative L2 of 1.83e-1 \(limit 1.0e-2\), a mean of/);
    expect(
      Math.max(
        ...stderr
          .split("\n")
          .filter((line) => /^(?:plan|cp2|tp2|single) .*(?:result|pass|FAIL)$/.test(line))
          .map((line) => line.length),
      ),
    ).toBeLessThan(81);
    expect(exitCode).toBe(1);
    // Both plans share one single-device run, which is compared with one in float32.
    await pids.expectGone(6);
  });

  test("--against same leaves out the run in float32", async () => {
    const { exitCode, results, arithmetic, pids } = await run({}, "--plans", "cp2", "--against", "same");
    expect(results).toMatchObject([{ plan: "cp2", pass: true, relL2: 0 }]);
    expect(arithmetic).toEqual([]);
    expect(exitCode).toBe(0);
    await pids.expectGone(3);
  });

  test("--reference is what plans are compared with, on its own inputs", async () => {
    const golden = join(packageRoot, "test", "golden", "data", "dit");
    const file = await openSafetensors(join(golden, "case.safetensors"));
    const tensors: Record<string, { dtype: FileDtype; shape: readonly number[]; data: Uint8Array }> = {};
    for (const name of ["img", "t", "y", "output"]) {
      const { dtype, shape } = file.info(name);
      tensors[name] = { dtype, shape, data: (await file.read(name)).slice() };
    }
    await file.close();
    const { output } = tensors;
    if (!output) throw new Error("The case has an output.");
    const values = toFloat32(output.dtype, output.data);
    const other = join(folder, "other.safetensors");
    const changed = new Uint8Array(values.map((value) => 1.01 * value).buffer);
    await writeSafetensors(other, { ...tensors, output: { ...output, data: changed } });
    for (const [reference, exitCode, relL2] of [
      [join(golden, "case.safetensors"), 0, 0],
      [other, 1, 0.01 / 1.01],
    ] as const) {
      const args = ["accuracy", "--device", "cpu", "--dtype", "fp32", "--json", "--weights", golden];
      const run = await execa("node", [join(packageRoot, "bin", "ditrun.js"), ...args, "--reference", reference], {
        reject: false,
        stdin: "ignore",
      });
      const document = documentSchemas.accuracy.parse(JSON.parse(run.stdout));
      expect(document).toMatchObject({
        reference,
        weights: golden,
        arithmetic: [],
        results: [{ pass: exitCode === 0 }],
      });
      expect(document.results[0]?.relL2).toBeCloseTo(relL2, 4);
      expect(run.exitCode).toBe(exitCode);
    }
  });

  test("a NaN is named and fails", async () => {
    const { exitCode, stderr, results, pids } = await run({ cp2: [1, null, 3, null] }, "--plan", "cp2");
    expect(results).toMatchObject([{ plan: "cp2", pass: false, nonFinite: 2, relL2: null }]);
    expect(stderr).toContain("The output of plan cp2 holds 2 values that are NaN or infinite.");
    expect(exitCode).toBe(1);
    await pids.expectGone(4);
  });
});

test("a worker without its environment says which variable is missing", async () => {
  const { exitCode, stderr } = await execa("node", [join(packageRoot, "dist", "worker", "main.js")], {
    reject: false,
    extendEnv: false,
    stdin: "ignore",
    env: { LOCAL_RANK: "0", LOCAL_WORLD_SIZE: "1", WORLD_SIZE: "1" },
  });
  expect(exitCode).toBe(2);
  expect(stderr).toMatch(/^The environment variable RANK is not set: .*\.$/);
});

describe("a device that cannot be had is one sentence and exit code 3", () => {
  test.each([
    ["no GPU is visible", "", /^ditrun: --device cuda (needs the CUDA kernel module, but|cannot be used:) .*\.$/],
    [
      "a module that is none",
      join(packageRoot, "package.json"),
      /^ditrun: The kernel module .*package\.json could not be loaded: .*$/,
    ],
  ])("%s", async (_, kernels, message) => {
    const { process, pids } = start(["profile", "--device", "cuda", "--cp", "2"], {
      env: { CUDA_VISIBLE_DEVICES: "", DITRUN_KERNELS: kernels },
    });
    const { exitCode, stderr } = await process;
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(3);
    await pids.expectGone(0);
  });

  test("a CPU module does not do for --device cuda", async () => {
    const { process, pids } = start(["profile", "--device", "cuda"], { env: { DITRUN_KERNELS: builtKernels("cpu") } });
    const { exitCode, stderr } = await process;
    expect(stderr).toMatch(/^ditrun: --device is cuda, but DITRUN_KERNELS names a cpu module: .*\.$/);
    expect(exitCode).toBe(2);
    await pids.expectGone(0);
  });
});
