import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { loadCheckpointModel } from "../../src/models/load.js";
import { builtKernels } from "../../src/paths.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { jobSchema } from "../../src/protocol/job.js";
import { readTensor, relativeL2 } from "../compare.js";
import { Crews } from "./crews.js";

const directory = "test/golden/data/dit";
const crews = Crews.ofFile();
let folder: string;
let outputs = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One forward of the golden model, on real CPU workers. @param perNode ranks that each host is said to have. */
async function forward(document: PlanDocument, perNode?: number[]): Promise<Float32Array> {
  const plan = planSchema.parse({ dtype: "fp32", ...document });
  const output = join(folder, `output-${outputs++}.safetensors`);
  await crews.run(
    {
      kind: "forward",
      model: await loadCheckpointModel(directory),
      plan,
      weights: { from: "directory", directory },
      seed: 1,
      inputs: join(directory, "case.safetensors"),
      output,
    },
    meshSize(plan.mesh),
    { perNode },
  );
  return readTensor(output, "output");
}

async function errorOf(document: PlanDocument, perNode?: number[]): Promise<number> {
  return relativeL2(await forward(document, perNode), await readTensor(join(directory, "case.safetensors"), "output"));
}

describe("the golden DiT over TCP, where GPUs have NCCL", () => {
  // Limits as over peer memory; what rounds cannot be as exact as float32.
  const layouts: [string, number, number, PlanDocument][] = [
    ["cp2", 0, 1e-5, { mesh: { cp: 2 } }],
    ["tp2", 0, 1e-5, { mesh: { tp: 2 } }],
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
    const error = await errorOf({ ...plan, ring: { transport: "nccl" } });
    expect(error).toBeGreaterThanOrEqual(least);
    expect(error).toBeLessThan(most);
  });
});

describe("the golden DiT on several hosts", () => {
  const layouts: [string, PlanDocument, number[]][] = [
    ["cp2×tp2, keys and values between two hosts", { mesh: { cp: 2, tp: 2 } }, [2, 2]],
    ["cp3×tp2 of hosts with four and two ranks", { mesh: { cp: 3, tp: 2 } }, [4, 2]],
  ];
  it.for(layouts)("agrees with the reference under %s", async ([, plan, perNode]) => {
    expect(await errorOf(plan, perNode)).toBeLessThan(1e-5);
  });

  it("is refused over peer memory, with the group that spans them", async () => {
    const plan: PlanDocument = { name: "mine", mesh: { cp: 2 }, ring: { transport: "peer" } };
    await expect(forward(plan, [1, 1])).rejects.toThrow(
      /^Rank [01] \(.+\) failed: Plan mine has ring\.transport peer, but ranks 0, 1 of its cp group are on 2 hosts: use auto or nccl\.$/,
    );
  });
});

describe("a job over TCP", () => {
  it("ends with the cause when a rank dies in the middle of a message, and leaves nothing", async () => {
    const shared = readdirSync("/dev/shm");
    const task = {
      kind: "links",
      plan: { mesh: { cp: 3 }, ring: { transport: "nccl" } },
      sizes: [64],
      repetitions: 1,
    };
    const job = { id: "dies", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60, task };
    const died = runJob({
      ...{ job: jobSchema.parse(job), nproc: 3, port: 0, log: openLog("warn") },
      entry: fileURLToPath(new URL("fixtures/dies-sending.js", import.meta.url)),
    });
    await expect(died).rejects.toMatchObject({ code: "ERR_RANK_SIGNAL", rank: 1, signal: "SIGKILL", exitCode: 137 });
    expect(readdirSync("/dev/shm")).toEqual(shared);
  });
});
