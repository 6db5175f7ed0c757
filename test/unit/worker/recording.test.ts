import { afterAll, beforeAll, expect, test } from "vitest";
import { ditLayerRules, splitOf } from "../../../src/models/layer-rules.js";
import { builtKernels } from "../../../src/paths.js";
import { planSchema } from "../../../src/plan/schema.js";
import { Context } from "../../../src/worker/comm/context.js";
import { Dit } from "../../../src/worker/models/dit/dit.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { KeptWeights } from "../../../src/worker/weights/kept.js";
import { LoadMeter } from "../../../src/worker/weights/load-meter.js";
import { RandomWeights } from "../../../src/worker/weights/source.js";
import { makeStores } from "./in-process-ranks.js";

const small = {
  kind: "dit",
  name: "small",
  imageSize: 8,
  channels: 3,
  patch: 2,
  width: 32,
  depth: 2,
  heads: 2,
  classes: 3,
} as const;
let device: Device;
beforeAll(() => {
  device = Device.open(builtKernels("cpu"), 0);
});
afterAll(() => device.close());

test("a recording knows layers and blocks, and when it began by the clock of the host", async () => {
  const [store] = makeStores(1);
  if (!store) throw new Error("There is one rank.");
  const plan = planSchema.parse({ dtype: "fp32" });
  const context = await Context.create(device, store, plan);
  const source = new RandomWeights(device, 1);
  const dit = await Dit.load({ context, source, splitOf: (path) => splitOf(plan, ditLayerRules, path) }, small);
  await context.prepare(() => dit.forward());
  const micros = () => Number(process.hrtime.bigint()) / 1e3;
  const before = micros();
  const { events, spans, beganMicroseconds } = await device.record(() => dit.forward());
  const after = micros();
  expect(beganMicroseconds).toBeGreaterThanOrEqual(before);
  const ends = events.map(({ startMicroseconds, durationMicroseconds }) => startMicroseconds + durationMicroseconds);
  expect(beganMicroseconds + Math.max(...ends)).toBeLessThanOrEqual(after);

  expect(spans.map(({ name }) => name)).toEqual(["blocks.0", "blocks.1"]);
  for (const { name, startMicroseconds: start, durationMicroseconds } of spans) {
    const own = events.filter(({ layer }) => layer?.startsWith(`${name}.`) || layer === name);
    expect(own.map(({ layer }) => layer)).toContain(`${name}.attn.qkv`);
    for (const event of own) {
      expect(event.startMicroseconds).toBeGreaterThanOrEqual(start);
      const end = event.startMicroseconds + event.durationMicroseconds;
      expect(end).toBeLessThanOrEqual(start + durationMicroseconds + 1e-3);
    }
  }
  expect(events.filter(({ name }) => name === "gemm").map(({ layer }) => layer)).toContain("head");
  // What is not recorded costs no events.
  expect(device.span("none", () => 7)).toBe(7);
  await context.close();
});

test("a load is told as the rehearsal found it, and its time is loading's alone", async () => {
  const told: string[] = [];
  const meter = new LoadMeter();
  meter.begin(async ({ what, bytes, total }) => void told.push(`${what} ${bytes}/${total}`));
  const kept = new KeptWeights(device, meter);
  const load = async () => {
    for (const name of ["a", "b"]) {
      await kept.of(name, async () => ({ tensors: { w: device.allocatePersistent("bf16", [10, 10]) } }));
    }
  };
  meter.next("the encoder");
  await device.rehearse(load);
  expect([told, meter.loaded]).toEqual([[], { milliseconds: 0, bytes: 0 }]);
  await meter.during(load);
  expect(told.at(-1)).toBe("the encoder 400/400");
  expect(meter.loaded.bytes).toBe(400);
  expect(meter.loaded.milliseconds).toBeGreaterThan(0);
  // Of a second video nothing is left to load.
  meter.begin(async () => void told.push("again"));
  await meter.during(load);
  expect(meter.loaded.bytes).toBe(0);
  kept.free();
});
