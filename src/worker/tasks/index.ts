import type { Job } from "../../protocol/job.js";
import type { Server } from "../life.js";
import type { Store } from "../store.js";
import { runCalibration } from "./calibrate.js";
import { runForward } from "./forward.js";
import { Frame } from "./frame.js";
import { runLinks } from "./links.js";
import { runProfile } from "./profile.js";
import { runRehearsal } from "./rehearse.js";
import { runWanAccuracy } from "./wan-accuracy.js";
import { runWanConvert } from "./wan-convert.js";
import { runWanForward } from "./wan-forward.js";
import { runWanGenerate, runWanLoad } from "./wan-generate.js";
import { runWanProfile } from "./wan-profile.js";
import { runWanVae } from "./wan-vae.js";

/** Runs tasks on this rank's device, which is opened with the first. Results are plain JSON (src/protocol/results.ts). */
export class Tasks implements Server {
  #frame: Frame | undefined;

  run(job: Job, store: Store): Promise<unknown> {
    this.#frame ??= Frame.open(job);
    const frame = this.#frame;
    const { task } = job;
    switch (task.kind) {
      case "profile":
        return runProfile(frame, task, store);
      case "forward":
        return runForward(frame, task, store);
      case "wan-forward":
        return runWanForward(frame, task, store);
      case "wan-generate":
        return runWanGenerate(frame, task, store);
      case "wan-load":
        return runWanLoad(frame, task, store);
      case "wan-profile":
        return runWanProfile(frame, task, store);
      case "wan-accuracy":
        return runWanAccuracy(frame, task, store);
      case "wan-vae":
        return runWanVae(frame, task, store);
      case "wan-convert":
        return runWanConvert(frame, task, store);
      case "links":
        return runLinks(frame, task, store);
      case "calibrate":
        return runCalibration(frame, task, store);
      case "rehearse":
        return runRehearsal(frame, task, store);
    }
  }

  async close(): Promise<void> {
    await this.#frame?.close();
  }
}

/** Runs one task, and gives the device back. */
export async function runTask(job: Job, store: Store): Promise<unknown> {
  const tasks = new Tasks();
  const result = await tasks.run(job, store);
  await tasks.close();
  return result;
}
