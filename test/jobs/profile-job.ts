import { type Job, jobSchema } from "../../src/protocol/job.js";

/** A job for fixture workers, which look at nothing but its kind. */
export function profileJob(timeoutSeconds: number): Job {
  return jobSchema.parse({
    id: "test",
    device: "cpu",
    kernels: "none.so",
    timeoutSeconds,
    task: {
      kind: "profile",
      model: { kind: "dit", name: "m", imageSize: 16, channels: 1, patch: 8, width: 8, depth: 1, heads: 1, classes: 1 },
      plan: {},
      weights: { from: "random", seed: 0 },
      seed: 0,
      warmup: 0,
      iterations: 1,
      trace: false,
    },
  });
}
