import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { runJob } from "../../src/launcher/agent.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels } from "../../src/launcher/paths.js";
import { jobSchema } from "../../src/protocol/job.js";

/** Runs the worker of fixtures/peer-group.js, whose ranks check their own results. */
function check(ranks: number): Promise<unknown[]> {
  const task = { kind: "links", plan: { mesh: { tp: ranks } }, sizes: [64], repetitions: 1 };
  return runJob({
    job: jobSchema.parse({ id: "sums", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60, task }),
    nproc: ranks,
    port: 0,
    log: openLog("warn"),
    entry: fileURLToPath(new URL("fixtures/peer-group.js", import.meta.url)),
  });
}

describe("sums and gathers over peer memory", () => {
  it.for([2, 3, 4, 8])("give %i ranks every bit of the additions in float32, call after call", async (ranks) => {
    const results = await check(ranks);
    // One shape in each of three pairs of dtypes.
    const twoShots = ranks === 2 ? 0 : 3;
    expect(results).toEqual(Array.from({ length: ranks }, () => ({ checked: 17 * 3 * 3, twoShots, failures: [] })));
  });
});
