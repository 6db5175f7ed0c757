import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { loadCheckpointModel } from "../../src/models/load.js";
import { builtKernels } from "../../src/paths.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { readTensor, relativeL2 } from "../compare.js";
import { standInEnvironment } from "./nccl.js";

const directory = "test/golden/data/dit";
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  vi.stubEnv("DITRUN_CPU_NCCL", standInEnvironment.DITRUN_CPU_NCCL);
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  vi.unstubAllEnvs();
});

/** One forward of the golden model over NCCL, on real CPU workers. */
async function forward(document: PlanDocument): Promise<Float32Array> {
  const plan = planSchema.parse({ dtype: "fp32", ...document, ring: { transport: "nccl" } });
  const output = join(folder, "output.safetensors");
  await runJob({
    job: {
      id: "nccl",
      device: "cpu",
      kernels: builtKernels("cpu"),
      timeoutSeconds: 60,
      task: {
        kind: "forward",
        model: await loadCheckpointModel(directory),
        plan,
        weights: { from: "directory", directory },
        seed: 1,
        inputs: join(directory, "case.safetensors"),
        output,
      },
    },
    nproc: meshSize(plan.mesh),
    port: 0,
    log: openLog("warn"),
  });
  return readTensor(output, "output");
}

describe("the golden DiT over NCCL", () => {
  // Limits as over peer memory; what rounds cannot be as exact as float32.
  const layouts: [string, number, number, PlanDocument][] = [
    ["cp2", 0, 1e-5, { mesh: { cp: 2 } }],
    ["tp2", 0, 1e-5, { mesh: { tp: 2 } }],
    ["cp4×tp2", 0, 1e-5, { mesh: { cp: 4, tp: 2 } }],
    ["cp3×tp2, norms split unevenly", 0, 1e-5, { mesh: { cp: 3, tp: 2 }, norms: { sequenceParallel: true } }],
    [
      "bf16, tp4, embeddings split",
      1e-4,
      6e-3,
      { dtype: "bf16", mesh: { tp: 4 }, embeddings: { tensorParallel: true } },
    ],
    ["e4m3 attention, cp3", 1e-4, 1e-3, { mesh: { cp: 3 }, attention: { dtype: "e4m3" } }],
  ];
  it.for(layouts)("agrees with the reference under %s", async ([, least, most, plan]) => {
    const error = relativeL2(await forward(plan), await readTensor(join(directory, "case.safetensors"), "output"));
    expect(error).toBeGreaterThanOrEqual(least);
    expect(error).toBeLessThan(most);
  });
});

describe("a job over NCCL", () => {
  const run = (command: string, env: Record<string, string> = {}) => {
    const plan = join(folder, "nccl.yaml");
    writeFileSync(plan, "mesh: { cp: 2 }\nring: { transport: nccl }\n");
    return execa("node", ["bin/ditrun.js", command, "--device", "cpu", "--plan", plan, "--timeout", "30"], {
      ...{ reject: false, stdin: "ignore", timeout: 50_000 },
      env: { DITRUN_KERNELS: "", MASTER_PORT: "", ...standInEnvironment, ...env },
    });
  };

  it("ends with the cause when a rank dies in the middle of a message", async () => {
    const shared = readdirSync("/dev/shm");
    const { exitCode, stderr, timedOut } = await run("profile", { NCCL_STAND_IN_DIE: "1:9" });
    expect(timedOut).toBe(false);
    expect(stderr).toMatch(/^ditrun: Rank 1 \(.+\) was killed by SIGKILL\./m);
    expect(exitCode).toBe(137);
    expect(readdirSync("/dev/shm")).toEqual(shared);
  });

  it("is refused on a CPU without a library of NCCL's calls, before anything starts", async () => {
    const { exitCode, stderr } = await run("profile", { DITRUN_CPU_NCCL: "" });
    expect(stderr).toContain("has ring.transport nccl, but the CPU module has no NCCL: use peer or auto");
    expect(exitCode).toBe(2);
  });

  it("says which library could not be opened", async () => {
    const { exitCode, stderr } = await run("profile", { DITRUN_CPU_NCCL: "/nowhere/libnccl.so" });
    expect(stderr).toMatch(/Rank 0 \(.+\) failed: DITRUN_CPU_NCCL=\/nowhere\/libnccl\.so could not be opened: /);
    expect(exitCode).toBe(3);
  });
});
