import type { Job } from "../../protocol/job.js";
import type { Store } from "../store.js";
import { runForward } from "./forward.js";
import { runLinks } from "./links.js";
import { runProfile } from "./profile.js";
import { runWanAccuracy } from "./wan-accuracy.js";
import { runWanForward } from "./wan-forward.js";
import { runWanGenerate } from "./wan-generate.js";
import { runWanProfile } from "./wan-profile.js";
import { runWanVae } from "./wan-vae.js";

/** Runs the job's task on this rank and returns its plain-JSON result (src/protocol/results.ts). */
export function runTask(job: Job, store: Store): Promise<unknown> {
  const { task } = job;
  switch (task.kind) {
    case "profile":
      return runProfile(job, task, store);
    case "forward":
      return runForward(job, task, store);
    case "wan-forward":
      return runWanForward(job, task, store);
    case "wan-generate":
      return runWanGenerate(job, task, store);
    case "wan-profile":
      return runWanProfile(job, task, store);
    case "wan-accuracy":
      return runWanAccuracy(job, task, store);
    case "wan-vae":
      return runWanVae(job, task, store);
    case "links":
      return runLinks(job, task, store);
  }
}
