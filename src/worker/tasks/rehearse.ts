import type { RehearseTask } from "../../protocol/job.js";
import type { MemoryNeed, RehearseRank } from "../../protocol/results.js";
import type { Store } from "../store.js";
import type { Frame } from "./frame.js";
import { buildDit } from "./session.js";
import { buildForward } from "./wan-profile.js";

/** Goes through a task's loading and forwards with no weights loaded and nothing launched. */
export async function runRehearsal(frame: Frame, { of }: RehearseTask, store: Store): Promise<RehearseRank> {
  return { rank: store.rank, device: frame.device.info.name, memory: await memoryOf(frame, of, store) };
}

async function memoryOf(frame: Frame, of: RehearseTask["of"], store: Store): Promise<MemoryNeed> {
  switch (of.kind) {
    case "profile":
    case "forward":
      return frame.rehearse(of.plan, store, (context) => buildDit(context, of));
    case "wan-profile":
      return frame.rehearse(of.plan, store, (context) => buildForward(context, of));
    case "wan-generate":
      return (await frame.openWan(of, store)).rehearse(of, store);
  }
}
