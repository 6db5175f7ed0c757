import { expect, test } from "vitest";
import { walkDit } from "../../../src/models/dit/walk.js";
import { loadModel } from "../../../src/models/load.js";
import { isWan } from "../../../src/models/registry.js";
import type { DitModel, WanModel } from "../../../src/models/schema.js";
import { flopsOf, type Operation } from "../../../src/models/walk/operation.js";
import { oneHost } from "../../../src/models/walk/walk.js";
import { walkWan } from "../../../src/models/wan/walk.js";
import { builtKernels } from "../../../src/paths.js";
import { type PlanDocument, planSchema } from "../../../src/plan/schema.js";
import type { TraceEvent } from "../../../src/protocol/results.js";
import { Context } from "../../../src/worker/comm/context.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { buildDit } from "../../../src/worker/tasks/session.js";
import { buildForward } from "../../../src/worker/tasks/wan-profile.js";
import { makeStores } from "../worker/in-process-ranks.js";

const cpu = { ...oneHost, scalesByHead: () => true };
const dit: DitModel = {
  ...{ kind: "dit", name: "small", imageSize: 128, channels: 4, patch: 8, width: 128, depth: 2, heads: 4, classes: 10 },
};
const size = { frames: 3, height: 8, width: 12 };

/** What a forward of one worker launches. */
async function launches(
  plan: ReturnType<typeof planSchema.parse>,
  build: (context: Context) => Promise<() => void>,
): Promise<readonly TraceEvent[]> {
  const device = Device.open(builtKernels("cpu"), 0);
  const [store] = makeStores(1);
  if (!store) throw new Error("There is one rank.");
  const context = await Context.create(device, store, plan);
  const forward = await build(context);
  await context.allocate();
  forward();
  const { events } = await device.record(forward);
  await context.close();
  device.close();
  return events;
}

/** Sums by kind: what was launched, and what stands on paper. */
function compared(events: readonly TraceEvent[], operations: readonly Operation[]) {
  const launched = (phase: TraceEvent["phase"], of: (event: TraceEvent) => number) =>
    events.filter((event) => event.phase === phase).reduce((sum, event) => sum + of(event), 0);
  const written = (kind: Operation["kind"], of: (operation: Operation) => number) =>
    operations.filter((each) => each.kind === kind).reduce((sum, each) => sum + each.times * of(each), 0);
  const bytes = (each: Operation) => ("bytes" in each ? each.bytes : 0);
  return {
    attention: written("attention", flopsOf) / launched("attention", ({ flops }) => flops),
    products: written("product", flopsOf) / launched("gemm", ({ flops }) => flops),
    productBytes: written("product", bytes) / launched("gemm", (event) => event.bytes),
    passBytes: written("pass", bytes) / launched("elementwise", (event) => event.bytes),
  };
}

const fp8: PlanDocument = { linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } };
const documents: [string, PlanDocument][] = [
  ["bf16", {}],
  ["fp8", fp8],
  ["fp16", { attention: { dtype: "fp16" } }],
];

test.each(documents)("the DiT's work on paper is what a forward launches, %s", async (_, document) => {
  const plan = planSchema.parse(document);
  const weights = { from: "random", seed: 0 } as const;
  const task = { kind: "profile", model: dit, plan, weights, seed: 0, warmup: 0, iterations: 1, trace: false } as const;
  const events = await launches(plan, async (context) => {
    const model = await buildDit(context, task);
    return () => model.forward();
  });
  const { attention, ...others } = compared(events, walkDit(dit, plan, cpu).operations);
  expect(attention).toBe(1);
  // The time's embedding, of one row, is not on paper.
  for (const ratio of Object.values(others)) expect(Math.abs(ratio - 1)).toBeLessThan(0.06);
});

test.each(documents.slice(0, 2))("Wan's work on paper is what a forward launches, %s", async (_, document) => {
  const loaded = await loadModel("wan-tiny");
  if (!isWan(loaded)) throw new Error("wan-tiny is no Wan model.");
  const model: WanModel = { ...loaded, layers: 2 };
  const plan = planSchema.parse(document);
  const task = { kind: "wan-profile", model, plan, size, seed: 0, warmup: 0, iterations: 1, trace: false } as const;
  const events = await launches(plan, async (context) => {
    const { transformer, latent, output } = await buildForward(context, task);
    return () => transformer.forward("cond", latent, output);
  });
  const { attention, ...others } = compared(events, walkWan(model, plan, size, cpu).operations);
  expect(attention).toBe(1);
  for (const ratio of Object.values(others)) expect(Math.abs(ratio - 1)).toBeLessThan(0.06);
});
