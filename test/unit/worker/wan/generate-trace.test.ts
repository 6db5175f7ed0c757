import { expect, test } from "vitest";
import { loadWanModel } from "../../../../src/models/load.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import { jobSchema } from "../../../../src/protocol/job.js";
import { wanGenerateResultSchema } from "../../../../src/protocol/results.js";
import { runTask } from "../../../../src/worker/tasks/index.js";
import { checkpointOf, soloStore, weightsOf } from "./golden.js";

test("a video's trace has its stages and steps, and the second step kernel by kernel", async () => {
  const task = {
    ...{ kind: "wan-generate", model: await loadWanModel(await checkpointOf("diffusers")), seed: 1, trace: true },
    ...{ plan: planSchema.parse({ dtype: "fp32" }), size: { frames: 2, height: 8, width: 12 } },
    weights: await weightsOf("diffusers"),
    ids: { prompt: [5, 6, 1], negative: [7, 1] },
    sampling: { solver: "unipc", steps: 3, shift: 5, guideScale: 5 },
  };
  const job = jobSchema.parse({ id: "test", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 30, task });
  const { recording, stepsMs } = wanGenerateResultSchema.parse(await runTask(job, soloStore()));
  if (!recording) throw new Error("Nothing was recorded.");
  const { spans, trace, step, recordedMs, kernels, clock, memory } = recording;
  expect([step, stepsMs.length]).toEqual([2, 3]);
  const named = (kind: string) => spans.flatMap((span) => (span.kind === kind ? [span] : []));
  expect(named("step").map(({ name }) => name)).toEqual(["step 1", "step 2", "step 3"]);
  expect(
    named("stage")
      .map(({ name }) => name)
      .slice(-2),
  ).toEqual(["sample", "decode"]);
  expect(memory.map(({ after }) => after)).toEqual(["getting ready", "encoding", "sampling", "decoding"]);
  // All kernels, and the host's launches of them, lie within the second step; a block is within a forward.
  const [, second] = named("step");
  const ends = ({
    startMicroseconds,
    durationMicroseconds,
  }: {
    startMicroseconds: number;
    durationMicroseconds: number;
  }) => startMicroseconds + durationMicroseconds;
  if (!second) throw new Error("There is no second step.");
  // The device's clock is fitted to the host's to less than a millisecond.
  const slack = 1000;
  for (const event of [...trace, ...trace.map(({ queued }) => queued)]) {
    expect(event.startMicroseconds).toBeGreaterThan(second.startMicroseconds - slack);
    expect(ends(event)).toBeLessThan(ends(second) + slack);
  }
  const blocks = named("block");
  const forwards = named("forward");
  expect(blocks.length).toBeGreaterThan(1);
  for (const block of blocks) {
    const around = forwards.filter(
      (forward) => forward.startMicroseconds <= block.startMicroseconds && ends(forward) >= ends(block),
    );
    expect(around).toHaveLength(1);
  }
  expect(kernels.reduce((sum, { launches }) => sum + launches, 0)).toBeGreaterThan(20);
  expect(recordedMs).toBeGreaterThan(0);
  expect(clock?.residualMicroseconds).toBeLessThan(1e6);
  expect(trace.some(({ arenaBytes }) => arenaBytes > 0)).toBe(true);
});
