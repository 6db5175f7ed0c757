// Tables of docs/memory.md: what the engine itself says that each model and plan needs. A worker's own code goes through loading and
// one forward with a kernel module that only counts memory, so no GPU, no weights and no memory are needed.
import { parameterCount } from "../../dist/models/cost.js";
import { loadModel } from "../../dist/models/load.js";
import { presetOf } from "../../dist/models/wan/presets.js";
import { latentOf, parseSize } from "../../dist/models/wan/video-size.js";
import { resolvePlan } from "../../dist/plan/resolve.js";
import { meshSize } from "../../dist/plan/schema.js";
import { Device } from "../../dist/worker/runtime/device.js";
import { Frame } from "../../dist/worker/tasks/frame.js";
import { withSession } from "../../dist/worker/tasks/session.js";
import { table } from "./table.js";

const GIB = 2 ** 30;
/** What Budget.refuse says. */
const NEEDS = /needs ([\d.]+) (MiB|GiB) of device memory/;

/** A kernel module that succeeds at everything and computes nothing; of memory it keeps count. */
function countingKernels() {
  const sizes = new Map();
  let [now, peak, next] = [0, 0, 2 ** 20];
  const info = {
    ...{ name: "none", module: "cuda", computeCapability: "9.0", multiprocessors: 132, clockMHz: 1980 },
    ...{ memoryBytes: 2 ** 50, freeBytes: 2 ** 50, peakTflops: { f32: null, bf16: null, e4m3: null } },
    ...{ peakGBs: null, libraries: {} },
  };
  return {
    module: "cuda",
    deviceInfo: () => info,
    memoryUsed: () => ({ now, peak }),
    queue() {},
    async callBlocking() {},
    createBlocking: async () => 0,
    call(name, address) {
      if (name !== "free") return;
      now -= sizes.get(address) ?? 0;
      sizes.delete(address);
    },
    create(name, bytes, kind) {
      if (name === "deviceCount") return 1;
      if (name !== "malloc") return 0;
      const address = next;
      next += Math.ceil(bytes / 1024) * 1024 + 1024;
      // Memory of the host is not the device's.
      if (kind !== 1) {
        sizes.set(address, bytes);
        now += bytes;
        peak = Math.max(peak, now);
      }
      return address;
    },
  };
}

/** The store of rank 0, in which every other rank says what it says. */
function mirroringStore(size) {
  const values = new Map();
  const own = (key) => key.replace(/\/\d+(?=\/|$)/, "/0");
  return {
    ...{ rank: 0, size },
    put: async (key, value) => void values.set(key, value),
    get: async (key) => values.get(key) ?? values.get(own(key)),
    ...{
      barrier: async () => undefined,
      largest: async (_name, value) => value,
      emit: async () => undefined,
      fault: async () => undefined,
    },
  };
}

/** A worker's frame, upon memory that is only counted. */
function countingFrame() {
  const kernels = countingKernels();
  return { frame: new Frame(new Device(kernels), false), kernels };
}

/** Bytes of rank 0 for one forward of the DiT. */
async function ditBytes(model, plan) {
  const { frame, kernels } = countingFrame();
  const task = { kind: "profile", model, plan, weights: { from: "random", seed: 0 }, seed: 0 };
  let bytes = 0;
  await withSession(frame, task, mirroringStore(meshSize(plan.mesh)), async () => {
    bytes = kernels.memoryUsed().peak;
  });
  return bytes;
}

/** What OpenWan says that a video needs with so much memory: in bytes, or why it cannot be made. */
async function prepared(task, memoryBytes) {
  const { frame } = countingFrame();
  const store = mirroringStore(meshSize(task.plan.mesh));
  try {
    const wan = await frame.openWan(task, store);
    const { memory, program } = await wan.prepare({ ...task, memoryBytes }, store);
    if (!program) await wan.program({ ...task, memoryBytes }, store);
    return { bytes: memory.neededBytes };
  } catch (error) {
    const [, number, unit] = NEEDS.exec(error.message) ?? [];
    if (number === undefined) throw error;
    return { least: (Number(number) + 0.01) * (unit === "GiB" ? GIB : 2 ** 20) };
  }
}

/**
 * Bytes of rank 0 for a video: with all models at once, and the least, with one model at a time. The text encoder is refused first,
 * then what makes the video.
 */
async function videoBytes(task) {
  const { bytes } = await prepared(task, 2 ** 50);
  const encoder = await prepared(task, 1);
  const video = await prepared(task, encoder.least);
  return { all: bytes, least: video.least ?? encoder.least };
}

const gib = (bytes) => `${(bytes / GIB).toFixed(1)} GiB`;

async function ditTable() {
  const model = await loadModel("dit");
  const rows = [];
  for (const plan of ["single", "single-fp8", "cp2", "tp2", "cp4-tp2", "cp8"]) {
    rows.push([`\`${plan}\``, gib(await ditBytes(model, await resolvePlan({ plan }, model, undefined, 1)))]);
  }
  return table(["Plan", "Each GPU"], rows);
}

const cases = [
  ["1.4B", "832*480", ["single", "cfg2-cp4", "cp4-tp2"]],
  ["14B", "832*480", ["single", "single-fp8", "cfg2-cp4", "cp4-tp2", "cp4-tp2-fp8"]],
  ["14B", "1280*720", ["single", "single-fp8", "cfg2-cp4", "cp4-tp2"]],
  ["2.2-T2V-A14B", "832*480", ["single", "single-fp8"]],
  ["2.2-T2V-A14B", "1280*720", ["single", "single-fp8", "cfg2-cp4", "cp4-tp2"]],
];

const low = ({ boundary }) => (boundary === undefined ? {} : { low: { boundary, guideScale: 5 } });

async function videoTable() {
  const rows = [];
  for (const [name, size, plans] of cases) {
    const model = await loadModel(presetOf(name).config);
    const latent = latentOf(parseSize(size), 81);
    for (const plan of plans) {
      const task = {
        ...{ kind: "wan-generate", model, weights: { from: "random", seed: 0 }, size: latent, seed: 0 },
        ...{
          ids: { prompt: [1], negative: [1] },
          sampling: { solver: "unipc", steps: 50, shift: 5, guideScale: 5, ...low(model) },
        },
        plan: await resolvePlan({ plan }, model, undefined, 1),
      };
      const { all, least } = await videoBytes(task);
      rows.push([name, size.replace("*", "×"), `\`${plan}\``, gib(all), gib(least)]);
    }
  }
  return table(["Model", "Video", "Plan", "All at once", "At least"], rows);
}

/** Weights of umT5's encoder and of the VAE, as the published files store them. */
const others = { "text encoder": ["bf16", 11.36e9], VAE: ["fp32", 0.51e9] };

async function diskTable() {
  const rows = [];
  for (const name of ["1.4B", "14B", "2.2-T2V-A14B"]) {
    const model = await loadModel(presetOf(name).config);
    const transformer = parameterCount(model) * 4 * (model.boundary === undefined ? 1 : 2);
    const parts = [transformer, ...Object.values(others).map(([, bytes]) => bytes)];
    const gb = (bytes) => `${(bytes / 1e9).toFixed(1)} GB`;
    rows.push([name, ...parts.map(gb), gb(parts.reduce((sum, bytes) => sum + bytes, 0))]);
  }
  return table(["Model", "Transformer (fp32)", "Text encoder (bf16)", "VAE (fp32)", "Together"], rows);
}

export const memoryTables = { "memory of a video": videoTable, "memory of the DiT": ditTable, disk: diskTable };
