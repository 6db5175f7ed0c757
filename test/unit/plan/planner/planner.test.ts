import { describe, expect, test } from "vitest";
import { type RecordedRun, recordedRuns } from "../../../../bench/planner/recorded.js";
import { loadModel } from "../../../../src/models/load.js";
import { traitsOf } from "../../../../src/models/registry.js";
import type { DitModel, LatentSize, Model, WanModel } from "../../../../src/models/schema.js";
import { checkPlan } from "../../../../src/plan/check.js";
import { choosePlan, comparedMs, rankPlans } from "../../../../src/plan/planner/choose.js";
import type { Machine } from "../../../../src/plan/planner/device.js";
import { devices, knownDevice } from "../../../../src/plan/planner/devices.js";
import { meshesOf } from "../../../../src/plan/planner/enumerate.js";
import { evaluate, settingOf } from "../../../../src/plan/planner/evaluate.js";
import { machineOf, usualMachine } from "../../../../src/plan/planner/machine.js";
import { placementOf } from "../../../../src/plan/planner/placement.js";
import { attentionRate, predict } from "../../../../src/plan/planner/predict.js";
import { singleDevicePlan } from "../../../../src/plan/resolve.js";
import { meshName, meshSize, type Plan, planSchema } from "../../../../src/plan/schema.js";
import { chooseTransports } from "../../../../src/worker/comm/transport.js";

const machine = usualMachine();
const bf16 = planSchema.parse({});
const fp8 = planSchema.parse({ linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } });

/** The same numbers in every run (Park and Miller, Communications of the ACM 31, 1988). */
function numbersFrom(seed: number) {
  let state = seed;
  const next = () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
  // The first few are small for all small seeds.
  for (let drawn = 0; drawn < 5; drawn++) next();
  const whole = (least: number, most: number) => least + Math.floor(next() * (most - least + 1));
  return { whole, of: <T>(...choices: readonly [T, ...T[]]): T => choices[whole(0, choices.length - 1)] ?? choices[0] };
}

interface Case {
  readonly model: Model;
  readonly size: LatentSize | undefined;
  readonly plan: Plan;
  readonly workers: number;
  readonly at: Machine;
}

function randomCase(seed: number): Case {
  const { whole, of } = numbersFrom(seed);
  const hosts = of(1, 1, 2, 4, 64);
  const perHost = of(1, 2, 4, 6, 8);
  const headDim = of(16, 32, 64, 96, 128);
  const heads = whole(1, 24);
  const dit: DitModel = {
    ...{ kind: "dit", name: "random", patch: 8, channels: 4, classes: 10 },
    ...{ imageSize: 8 * whole(3, 200), width: headDim * heads, depth: whole(1, 20), heads },
  };
  const wan: WanModel = {
    ...{ kind: "wan", name: "random", width: headDim * heads, ffn: 4 * headDim * heads, heads, layers: whole(1, 20) },
    ...{ channels: 16, patch: 2, freqDim: 256, textLength: 512, epsilon: 1e-6 },
    textEncoder: { vocabulary: 1000, width: 64, ffn: 128, heads: 24, headDim: 8, layers: 2 },
  };
  const size = { frames: whole(1, 21), height: 2 * whole(1, 45), width: 2 * whole(1, 60) };
  const isWan = whole(0, 1) === 1;
  const { device, links } = of(devices.h200, devices.h100);
  return {
    ...(isWan ? { model: wan, size } : { model: dit, size: undefined }),
    ...{ plan: of(bf16, fp8), workers: hosts * perHost, at: { device, links, hosts, devicesPerHost: perHost } },
  };
}

const cases = Array.from({ length: 20 }, (_, index) => randomCase(1000 + 77 * index));

describe("for any model, size and machine", () => {
  test.each(cases.map((each, index) => [index, each] as const))("case %i", (_, { model, size, plan, workers, at }) => {
    const { ranked, refused } = rankPlans({ model, plan, workers, machine: at, size });
    const tokens = traitsOf(model).tokens(size);
    // Each mesh is ranked or refused, once.
    const meshes = [...ranked, ...refused].map((each) => meshName(each.plan.mesh));
    expect(new Set(meshes).size).toBe(meshes.length);
    expect(meshes.toSorted()).toEqual(
      meshesOf(workers)
        .flatMap((mesh) => (mesh.cfg > 2 ? [] : [meshName(mesh)]))
        .toSorted(),
    );
    for (const { why } of refused) expect(why).toMatch(/\.$/);
    for (const [index, each] of ranked.entries()) {
      // The engine takes it.
      checkPlan(each.plan, model, tokens);
      expect(meshSize(each.plan.mesh)).toBe(workers);
      const one = evaluate(model, singleDevicePlan(each.plan), { ...at, hosts: 1 }, size);
      for (const part of [each.forward, each.step, each.decode]) {
        if (!part) continue;
        const { milliseconds, attention, products, elementwise, communication, hidden } = part;
        expect(milliseconds).toBeCloseTo(attention + products + elementwise + communication, 9);
        for (const value of [milliseconds, products]) expect(value).toBeGreaterThan(0);
        expect(Math.min(attention, elementwise, communication, hidden)).toBeGreaterThanOrEqual(0);
      }
      // Uneven shares and replicated work only lose: nothing is faster than an even share of one device's time.
      expect(comparedMs(each) * workers).toBeGreaterThan(0.97 * comparedMs(one));
      expect(each.leastBytes).toBeLessThanOrEqual(each.bytes);
      const before = ranked[index - 1];
      if (before) expect(comparedMs(each)).toBeGreaterThan(0.997 * comparedMs(before));
    }
  });

  test.each(cases.map((each, index) => [index, each] as const))("case %i is not slower on faster links", (_, each) => {
    const { model, size, plan, workers, at } = each;
    const { links } = at;
    const faster = (wire: typeof links.nccl) => ({ ...wire, gigabytesPerSecond: 2 * wire.gigabytesPerSecond });
    const better: Machine = {
      ...at,
      links: {
        ...{ source: "twice", peerReads: faster(links.peerReads), peerCopies: faster(links.peerCopies) },
        ...{ nccl: faster(links.nccl), network: faster(links.network) },
      },
    };
    for (const { plan: ranked, forward } of rankPlans({ model, plan, workers, machine: at, size }).ranked) {
      expect(evaluate(model, ranked, better, size).forward.milliseconds).toBeLessThanOrEqual(forward.milliseconds);
    }
  });
});

test("transports are those that workers choose", () => {
  for (const { workers, at } of cases) {
    for (const mesh of meshesOf(workers)) {
      const plan = planSchema.parse({ mesh });
      const hosts = Array.from({ length: workers }, (_, rank) => Math.floor((rank * at.hosts) / workers));
      const { ring, tp, cfg, world } = chooseTransports(plan, hosts);
      const found = placementOf(plan, at).transports;
      expect({ mesh, ring: found.ring, tp: found.tp, cfg: found.cfg, world: found.world }).toEqual({
        ...{ mesh, ring, tp, cfg, world },
      });
    }
  }
});

test("groups that span hosts go over the network", () => {
  const two = { hosts: 2 };
  const plan = planSchema.parse({ mesh: { cp: 4, tp: 2 } });
  expect(placementOf(plan, two)).toMatchObject({
    spans: { tp: false, ring: true },
    transports: { tp: "peer", ring: "nccl" },
  });
  const inside = planSchema.parse({ mesh: { cfg: 2, cp: 2, tp: 2 } });
  expect(placementOf(inside, two).spans).toEqual({ tp: false, ulysses: false, ring: false, cfg: true, world: true });
});

test("a ring's transfer is hidden by attention but for a share, and the rest of it shows", () => {
  const work = { kind: "attention", heads: 8, queries: 4096, keys: 16_384, headDim: 128, dtype: "bf16" } as const;
  const setting = settingOf(planSchema.parse({ mesh: { cp: 4 } }), machine);
  const ring = (messageBytes: number) =>
    predict([{ ...work, messageBytes, ranks: 4, times: 10, beside: false }], setting);
  const { gigabytesPerSecond, microseconds } = machine.links.peerCopies;
  const transferMs = (messageBytes: number) =>
    10 * ((3 * messageBytes) / (gigabytesPerSecond * 1e6) + microseconds / 1e3);
  for (const bytes of [2 ** 20, 2 ** 24, 2 ** 32]) {
    const { communication, hidden, attention } = ring(bytes);
    expect(communication + hidden).toBeCloseTo(transferMs(bytes), 6);
    expect(communication).toBeGreaterThan(0);
    expect(hidden).toBeLessThan(attention);
  }
  expect(ring(0)).toMatchObject({ communication: 0, hidden: 0 });
});

test.each(["dit", "wan-1.3b", "wan-14b"])(
  "more GPUs of a host are faster, and 512 are never 512 times as fast: %s",
  async (name) => {
    const model = await loadModel(name);
    const best = (workers: number, hosts = 1) => {
      const [first] = rankPlans({ model, plan: bf16, workers, machine: { ...machine, hosts } }).ranked;
      return first ? comparedMs(first) : Number.NaN;
    };
    const one = best(1);
    const times = [1, 2, 4, 8].map((workers) => best(workers));
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    for (const hosts of [2, 8, 64]) {
      expect(best(8 * hosts, hosts)).toBeGreaterThan(one / (8 * hosts));
      expect(best(8 * hosts, hosts)).toBeLessThan(one / 8);
    }
  },
);

describe("recorded runs (bench/planner.ts)", async () => {
  const runs = await recordedRuns();
  const predicted = ({ operations, setting }: RecordedRun) => predict(operations, setting).milliseconds;
  const today = runs.filter(({ old }) => old === undefined);

  test("with today's kernels are predicted within 10 %, 3 % in the mean", () => {
    const errors = today.map((run) => ({ ...run, error: predicted(run) / run.ms - 1 }));
    expect(errors.filter(({ error }) => Math.abs(error) > 0.1)).toEqual([]);
    expect(errors.reduce((sum, { error }) => sum + Math.abs(error), 0) / errors.length).toBeLessThan(0.03);
  });

  test.each([...new Set(runs.flatMap(({ group }) => group ?? []))])(
    "the fastest plan is first, or within 3 %%: %s",
    (name) => {
      const group = runs.filter((run) => run.group === name && !run.plan.startsWith("single"));
      expect(group.length).toBeGreaterThan(1);
      const [chosen] = group.toSorted((a, b) => predicted(a) - predicted(b));
      expect(chosen?.ms).toBeLessThanOrEqual(1.03 * Math.min(...group.map(({ ms }) => ms)));
    },
  );
});

describe("what is chosen", () => {
  test("Wan's guidance comes first, unless there is one forward a step", async () => {
    const model = await loadModel("wan-1.3b");
    const wanted = { model, plan: bf16, workers: 4, machine };
    expect(choosePlan(wanted).best.plan.mesh).toEqual({ cfg: 2, cp: 2, tp: 1 });
    const alone = choosePlan({ ...wanted, oneForward: true });
    expect(alone.best.plan.mesh.cfg).toBe(1);
    expect(alone.refused[0]?.why).toBe("Guidance 1 makes one forward a step, so cfg must be 1.");
  });

  test("what does not fit a GPU's memory is refused with both numbers, and only a larger tp is left", async () => {
    const model = await loadModel("wan-14b");
    const l40s = { ...devices.l40s, devicesPerHost: 2, hosts: 1, device: { ...devices.l40s.device, memoryGiB: 24 } };
    const { ranked, refused } = rankPlans({ model, plan: bf16, workers: 2, machine: l40s });
    expect(ranked.map(({ plan }) => meshName(plan.mesh))).toEqual(["tp2"]);
    expect(refused.map(({ why }) => why)).toContainEqual(
      expect.stringMatching(/^It needs [\d.]+ GiB of device memory, and a worker has 24\.0 GiB of the NVIDIA L40S: /),
    );
  });

  test("a device without fast kernels for a dtype is told of, and a mesh is chosen all the same", async () => {
    const model = await loadModel("dit");
    const wanted = { model, plan: fp8, workers: 4, machine: { ...devices.a100, devicesPerHost: 4, hosts: 1 } };
    expect(rankPlans(wanted).ranked).toEqual([]);
    expect(rankPlans(wanted).refused[0]?.why).toContain("has no fast kernels for e4m3");
    expect(meshSize(choosePlan(wanted).best.plan.mesh)).toBe(4);
  });

  test("workers that share a device take turns", async () => {
    const model = await loadModel("dit");
    const plan = planSchema.parse({ mesh: { cp: 8 } });
    const [apart, shared] = [8, 1].map((devicesPerHost) => evaluate(model, plan, { ...machine, devicesPerHost }));
    expect(shared?.forward.attention).toBeGreaterThan(7.5 * (apart?.forward.attention ?? Number.NaN));
  });

  test("no mesh at all is an error with the reason", async () => {
    const model = await loadModel("wan-tiny");
    expect(() =>
      choosePlan({ model, plan: bf16, workers: 997, machine, size: { frames: 1, height: 2, width: 2 } }),
    ).toThrow("No mesh of 997 workers fits wan-tiny, as cp997: wan-tiny has 1 token here");
  });
});

test("devices are known by what drivers call them, and others are taken for an A100", () => {
  expect(knownDevice("NVIDIA H100 80GB HBM3")?.device.name).toBe("NVIDIA H100");
  expect(knownDevice("NVIDIA H200")?.device.name).toBe("NVIDIA H200");
  expect(knownDevice("NVIDIA A100-SXM4-80GB")?.device.name).toBe("NVIDIA A100");
  const cuda = { kind: "cuda", perHost: 2, hosts: 1 } as const;
  expect(machineOf({ ...cuda, name: "NVIDIA GeForce RTX 5090" }).device.name).toBe("NVIDIA A100");
  expect(machineOf({ ...cuda, calibration: devices.h200 })).toMatchObject({ calibrated: true, devicesPerHost: 2 });
});

test("attention between head dimensions that are known is interpolated", () => {
  const rates = (headDim: number) => attentionRate(devices.h200.device, headDim, "bf16");
  expect(rates(96)).toBeCloseTo((rates(64) + rates(128)) / 2, 9);
  expect([rates(8), rates(256)]).toEqual([rates(32), rates(128)]);
});
