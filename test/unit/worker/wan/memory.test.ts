import { expect, it } from "vitest";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { planMemory } from "../../../../src/worker/tasks/wan-memory.js";
import { soloStore } from "./golden.js";

it("loads the text encoder first on every rank where memory is short on one", async () => {
  const device = Device.open(builtKernels("cpu"), 0);
  const plan = planSchema.parse({});
  const store = soloStore();
  const context = await Context.create(device, store, plan);
  const models = { encoder: 3e9, others: 4e9 };
  const encoderFirst = async (limit: number, opinions: readonly string[]) => {
    const told = new Map(opinions.map((opinion, rank) => [`memory/${rank}`, opinion]));
    const others = {
      ...{ ...store, size: opinions.length },
      put: async (key: string, value: Uint8Array) => void told.set(key, new TextDecoder().decode(value)),
      get: async (key: string) => new TextEncoder().encode(told.get(key)),
    };
    return (await planMemory(context, others, models, limit)).encoderFirst;
  };
  expect(await encoderFirst(8e9, ["", "false", "false"])).toBe(false);
  expect(await encoderFirst(8e9, ["", "true", "false"])).toBe(true);
  expect(await encoderFirst(6e9, ["", "false", "false"])).toBe(true);
  await expect(encoderFirst(2e9, ["", "false"])).rejects.toThrow("even with one model at a time");
  await context.close();
  device.close();
});
