import type { DitModel, LatentSize, WanModel } from "../../../src/models/schema.js";
import { builtKernels } from "../../../src/paths.js";
import { meshSize, type Plan } from "../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../src/protocol/job.js";
import { Context } from "../../../src/worker/comm/context.js";
import { Device } from "../../../src/worker/runtime/device.js";
import type { Store } from "../../../src/worker/store.js";
import { Frame } from "../../../src/worker/tasks/frame.js";
import { buildDit } from "../../../src/worker/tasks/session.js";
import { buildForward } from "../../../src/worker/tasks/wan-profile.js";

// What the engine itself says of a rank's memory: its own loading and forward, rehearsed in this process.

/** The store of a rank whose others say what it says. */
function alikeStore(rank: number, size: number): Store {
  const values = new Map<string, Uint8Array>();
  return {
    ...{ rank, size },
    put: async (key, value) => void values.set(key, value),
    get: async (key) => values.get(key.replace(/\/\d+(?=\/|$)/, `/${rank}`)) ?? new Uint8Array(),
    barrier: async () => undefined,
    largest: async (_name, value) => value,
    emit: async () => undefined,
    step: () => async () => ({ preview: false }),
    time: async () => 0,
    fault: async (error) => {
      throw error;
    },
  };
}

async function rehearsed(plan: Plan, rank: number, build: (context: Context) => Promise<unknown>): Promise<number> {
  const device = Device.open(builtKernels("cpu"), 0);
  const context = await Context.create(device, alikeStore(rank, meshSize(plan.mesh)), plan);
  const kept = await device.rehearse(async () => {
    await build(context);
  });
  const bytes = kept + context.measuredBytes;
  device.close();
  return bytes;
}

/** Bytes that one rank needs for a forward of the DiT. */
export function ditBytes(model: DitModel, plan: Plan, rank = 0): Promise<number> {
  const weights = { from: "random", seed: 0 } as const;
  const task = { kind: "profile", model, plan, weights, seed: 0, warmup: 0, iterations: 1, trace: false } as const;
  return rehearsed(plan, rank, (context) => buildDit(context, task));
}

/** Bytes that one rank needs for `ditrun wan profile`. */
export function wanBytes(model: WanModel, plan: Plan, size: LatentSize, rank = 0): Promise<number> {
  const task = { kind: "wan-profile", model, plan, size, seed: 0, warmup: 0, iterations: 1, trace: false } as const;
  return rehearsed(plan, rank, (context) => buildForward(context, task));
}

/** Bytes that the fullest rank needs for a whole video with all models at once, as a dry run tells them. */
export async function videoBytes(model: WanModel, plan: Plan, size: LatentSize): Promise<number> {
  const frame = Frame.open({ kernels: builtKernels("cpu"), firstDevice: 0 });
  const request: WanGenerateTask = {
    ...{ kind: "wan-generate", model, plan, size, seed: 0, memoryBytes: 2 ** 50 },
    weights: { from: "random", seed: 0 },
    ids: { prompt: [1], negative: [1] },
    sampling: { solver: "unipc", steps: 10, shift: 5, guideScale: 5 },
  };
  const needed: number[] = [];
  for (let rank = 0; rank < meshSize(plan.mesh); rank++) {
    const store = alikeStore(rank, meshSize(plan.mesh));
    const task = { ...request, model: { ...model, name: `${model.name} ${rank}` } };
    needed.push((await (await frame.openWan(task, store)).rehearse(task, store)).neededBytes);
  }
  await frame.close();
  return Math.max(...needed);
}
