import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import {
  type Engine,
  type EngineEvent,
  openEngine,
  type RunRequestOptions,
  type VideoRequest,
} from "../../src/index.js";
import { meanColours } from "../../src/worker/models/wan/vae/probe.js";

const engines: Engine[] = [];
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close().catch(() => undefined);
});

async function open(): Promise<Engine> {
  const engine = await openEngine({ model: "tiny", plan: "cp2", nproc: 2, device: "cpu", timeoutSeconds: 60 });
  engines.push(engine);
  return engine;
}

/** Makes a video. @returns the hash of its frames and what rank 0 holds. */
async function make(engine: Engine, request: VideoRequest, options: RunRequestOptions = {}) {
  const hash = createHash("sha256");
  const result = await engine.run(request, {
    ...options,
    onEvent: async (event) => {
      if (event.kind === "frame") hash.update(event.pixels);
      await options.onEvent?.(event);
    },
  });
  return { hash: hash.digest("hex"), held: result.ranks.map(({ heldMemoryBytes }) => heldMemoryBytes) };
}

/** Processes that this one started, and their resident memory in KiB. */
function workers(): { pid: number; kib: number }[] {
  return readdirSync("/proc").flatMap((name) => {
    try {
      const status = readFileSync(join("/proc", name, "status"), "utf8");
      const field = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
      const program = readFileSync(join("/proc", name, "cmdline"), "utf8");
      if (field("PPid") !== process.pid || !program.includes("worker/main.js")) return [];
      return [{ pid: Number(name), kib: field("VmRSS") }];
    } catch {
      return [];
    }
  });
}

const shapes: readonly VideoRequest[] = [
  { prompt: "A red car", steps: 2 },
  { prompt: "A blue boat", steps: 2, width: 64, height: 64, frames: 5, seed: 7 },
  { prompt: "Two cats", steps: 3, width: 64, height: 96, frames: 1, seed: 2n ** 63n },
];

test("twenty requests of three sizes: each video is that of a fresh engine, and memory does not grow", async () => {
  const fresh: string[] = [];
  for (const request of shapes) {
    const engine = await open();
    fresh.push((await make(engine, request)).hash);
    await engine.close();
  }
  const engine = await open();
  let held: readonly number[] = [];
  let resident = 0;
  for (let index = 0; index < 20; index++) {
    const request = shapes[index % 3] ?? shapes[0];
    if (!request) throw new Error("no shapes");
    const enough = new AbortController();
    const { signal } = enough;
    if (index === 7) {
      const onEvent: RunRequestOptions["onEvent"] = ({ kind }) => {
        if (kind === "step") enough.abort(new Error("seen"));
      };
      await expect(make(engine, { ...request, steps: 6 }, { signal, onEvent })).rejects.toThrow("seen");
    } else if (index === 9) {
      // Each rank asks one chunk ahead, so a video of few frames would be done before it can be stopped.
      let frames = 0;
      const onEvent: RunRequestOptions["onEvent"] = ({ kind }) => {
        if (kind === "frame" && frames++ === 0) enough.abort(new Error("shown"));
      };
      await expect(make(engine, { ...request, frames: 41 }, { signal, onEvent })).rejects.toThrow("shown");
      expect(frames).toBeLessThan(41);
    } else if (index === 11) {
      await expect(make(engine, { ...request, frames: 6 })).rejects.toMatchObject({ code: "ERR_VIDEO_SIZE" });
      await expect(make(engine, { ...request, prompt: "long ".repeat(900) })).rejects.toMatchObject({
        code: "ERR_PROMPT",
      });
    } else if (index === 13) {
      // The prediction is not finite where the guidance is beyond all numbers.
      const refused = make(engine, { ...request, guideScale: 3e38 });
      await expect(refused).rejects.toMatchObject({ code: "ERR_NOT_FINITE" });
    } else if (index === 15) {
      await expect(make(engine, { ...request, steps: 500 }, { deadlineMs: 400 })).rejects.toMatchObject({
        code: "ERR_DEADLINE",
      });
    } else {
      const made = await make(engine, request);
      expect(made.hash).toBe(fresh[index % 3]);
      // All three sizes are known by then, and one of more frames.
      if (index === 10) {
        held = made.held;
        resident = Math.max(...workers().map(({ kib }) => kib));
      }
      if (index === 19) {
        expect(made.held).toEqual(held);
        expect(Math.max(...workers().map(({ kib }) => kib))).toBeLessThan(resident + 24 * 1024);
      }
    }
  }
}, 120_000);

test("where memory is short the text encoder and the other weights take turns, for the same videos", async () => {
  const [first, second] = shapes;
  if (!first || !second) throw new Error("no shapes");
  const roomy = await open();
  const wanted = [await make(roomy, first), await make(roomy, second)];
  const options = { model: "tiny", plan: "cp2", nproc: 2, device: "cpu", timeoutSeconds: 60 } as const;
  const tight = await openEngine({ ...options, memoryBytes: 2 ** 29 });
  engines.push(tight);
  for (const [index, request] of [first, second, first].entries()) {
    const made = await make(tight, request);
    expect(made.hash).toBe(wanted[index % 2]?.hash);
    expect(Math.max(...made.held)).toBeLessThan(Math.max(...(wanted[index % 2]?.held ?? [0])));
  }
});

test("a preview of the last step is the video itself, small; of the same video as without, on every layout", async () => {
  const previews: Uint8Array[] = [];
  for (const plan of ["single", "cp2"]) {
    const engine = await openEngine({ model: "tiny", plan, device: "cpu", timeoutSeconds: 60 });
    engines.push(engine);
    const asked = { prompt: "A red circle moves right on a blue background", width: 96, height: 64, steps: 4, seed: 3 };
    const unseen = await make(engine, asked);
    const steps: number[] = [];
    const frames: Uint8Array[] = [];
    let last: Extract<EngineEvent, { kind: "preview" }> | undefined;
    let wanted = 0;
    const seen = await make(engine, asked, {
      // Of four steps, the second and the last.
      wantsPreview: () => ++wanted % 2 === 0,
      onEvent: (event) => {
        if (event.kind === "frame") frames.push(event.pixels);
        if (event.kind !== "preview") return;
        steps.push(event.step);
        last = event;
      },
    });
    expect([seen.hash, seen.held]).toEqual([unseen.hash, unseen.held]);
    expect(steps).toEqual([2, 4]);
    expect(last).toMatchObject({ frames: 5, width: 12, height: 8 });
    if (!last) throw new Error("no preview");
    previews.push(last.pixels);
    // Latent frame n stands for the frames 4n - 3 to 4n of the video.
    const video = [0, 4, 8, 12, 16].flatMap((frame) => [...meanColours(frames[frame] ?? new Uint8Array(), size)]);
    expect(correlation([...last.pixels], video)).toBeGreaterThan(0.7);
  }
  const [one, two] = previews;
  expect(correlation([...(one ?? [])], [...(two ?? [])])).toBeGreaterThan(0.999);
});

const size = { width: 12, height: 8 };

function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  const product = (x: readonly number[], y: readonly number[], mx: number, my: number) =>
    x.reduce((sum, value, at) => sum + (value - mx) * ((y[at] ?? 0) - my), 0);
  return product(a, b, meanA, meanB) / Math.sqrt(product(a, a, meanA, meanA) * product(b, b, meanB, meanB));
}

describe("an engine", () => {
  test("has requests wait for each other, and calls off one that waits", async () => {
    const engine = await open();
    const order: string[] = [];
    const [first, second] = shapes;
    if (!first || !second) throw new Error("no shapes");
    const waiting = new AbortController();
    const runs = [
      make(engine, first).then(() => order.push("first")),
      make(engine, first, { signal: waiting.signal }).catch((error: Error) => order.push(error.message)),
      make(engine, second).then(() => order.push("third")),
    ];
    waiting.abort(new Error("called off"));
    await Promise.all(runs);
    expect(order).toEqual(["called off", "first", "third"]);
  });

  test("names a rank that is stopped; ends with the first cause where one is killed while it waits, and can be opened again", async () => {
    const engine = await open();
    const [request] = shapes;
    if (!request) throw new Error("no shapes");
    const [victim] = workers();
    if (!victim) throw new Error("no workers");
    expect(await engine.silentRanks(10_000)).toEqual([]);
    process.kill(victim.pid, "SIGSTOP");
    const [, rank] = /\0RANK=(\d+)\0/.exec(readFileSync(`/proc/${victim.pid}/environ`, "latin1")) ?? [];
    expect(await engine.silentRanks(1000)).toEqual([Number(rank)]);
    process.kill(victim.pid, "SIGCONT");
    expect(await engine.silentRanks(10_000)).toEqual([]);
    process.kill(victim.pid, "SIGKILL");
    await expect(make(engine, request)).rejects.toMatchObject({
      code: "ERR_RANK_SIGNAL",
      signal: "SIGKILL",
      exitCode: 137,
    });
    expect(workers()).toEqual([]);
    await expect(make(await open(), request)).resolves.toBeDefined();
  });

  test("what onEvent throws ends the request alone", async () => {
    const engine = await open();
    const [request] = shapes;
    if (!request) throw new Error("no shapes");
    const onEvent = () => {
      throw new Error("the disk is full");
    };
    await expect(engine.run(request, { onEvent })).rejects.toThrow("the disk is full");
    await expect(make(engine, request)).resolves.toBeDefined();
  });
});
