import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels } from "../../src/paths.js";
import { jobSchema } from "../../src/protocol/job.js";

/** Runs the worker of fixtures/peer-group.js, whose ranks check their own results. */
function check(ranks: number, transport: "peer" | "nccl"): Promise<unknown[]> {
  const plan = { mesh: { tp: ranks }, ring: { transport } };
  const task = { kind: "links", plan, sizes: [64], repetitions: 1 };
  return runJob({
    job: jobSchema.parse({ id: "sums", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60, task }),
    nproc: ranks,
    port: 0,
    log: openLog("warn"),
    entry: fileURLToPath(new URL("fixtures/peer-group.js", import.meta.url)),
  });
}

const expected = (ranks: number) => {
  // One shape in each of three pairs of dtypes.
  const twoShots = ranks === 2 ? 0 : 3;
  return Array.from({ length: ranks }, () => ({ checked: 18 * 3 * 3, twoShots, failures: [] }));
};

describe("sums, gathers and all-to-all over peer memory", () => {
  it.for([2, 3, 4, 8])(
    "give %i ranks every bit, of sums those of additions in float32, call after call",
    async (ranks) => {
      expect(await check(ranks, "peer")).toEqual(expected(ranks));
    },
  );
});

describe("sums, gathers and all-to-all over TCP", () => {
  it.for([2, 3])("give %i ranks every bit, of sums those of additions in float32, call after call", async (ranks) => {
    expect(await check(ranks, "nccl")).toEqual(expected(ranks));
  });
});
