import { type Plan, planSchema } from "../../plan/schema.js";
import type { CalibrateTask } from "../../protocol/job.js";
import type { CalibrateRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import { makeAttention } from "../layers/attention/choose.js";
import { copy } from "../ops/copy.js";
import { gemm } from "../ops/gemm.js";
import { quantizeRows } from "../ops/quantize.js";
import type { Device } from "../runtime/device.js";
import { freeGraph, launchGraph } from "../runtime/graph.js";
import { type DType, partOf, type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { fillRandom } from "../weights/source.js";
import type { Frame } from "./frame.js";
import { tell } from "./stage-clock.js";

/** Shapes that fill the device, and how long each is measured: long enough for a GPU to come to the clock that it holds. */
const settings = {
  cuda: { rows: 16_384, width: 4096, tokens: 16_384, columns: 2048, milliseconds: 400, mostRuns: 400 },
  cpu: { rows: 128, width: 512, tokens: 512, columns: 256, milliseconds: 60, mostRuns: 20 },
};

const headDims = [32, 64, 128];
const dtypes = ["fp32", "bf16", "fp16", "e4m3"] as const;
type Rated = (typeof dtypes)[number];
/** Launches of nothing to speak of, in one graph. */
const LAUNCHES = 100;

/** What is measured: a body that is queued, and what it does in operations or bytes. */
interface Case {
  readonly queue: () => void;
  readonly amount: number;
  readonly found: (perSecond: number, seconds: number) => void;
}

/** Times products, attention, copies and launches on this rank's device, on random numbers: zeros would take less power. */
export function runCalibration(frame: Frame, task: CalibrateTask, store: Store): Promise<CalibrateRank> {
  return frame.alone(task.plan, store, async (context) => {
    const { device } = context;
    const setting = settings[device.info.module];
    const products: CalibrateRank["products"] = [];
    const attention: CalibrateRank["attention"] = [];
    const measured = { passGBs: 0, launchMicroseconds: 0, activationPicoseconds: 0 };
    const cases = [
      ...productCases(device, setting, products, measured),
      ...attentionCases(context, setting, attention),
      ...passCases(device, setting, measured),
    ];
    await context.prepare(() => {
      for (const { queue } of cases) device.arena.scope(queue);
    });
    for (const [index, each] of cases.entries()) {
      const seconds = await time(device, setting, () => device.arena.scope(each.queue));
      each.found(each.amount / seconds, seconds);
      await tell(store, { stage: "case", done: index + 1, total: cases.length, milliseconds: seconds * 1e3 });
    }
    const { memoryBytes, multiprocessors, name } = device.info;
    return { rank: store.rank, device: name, memoryBytes, multiprocessors, products, attention, ...measured };
  });
}

type Setting = (typeof settings)["cuda"];

/** Random numbers of a device tensor that stays. */
function randomTensor(device: Device, name: string, dtype: "fp32" | "bf16", shape: readonly number[]): Tensor {
  const out = device.allocatePersistent(dtype, shape);
  const columns = shape.at(-1) ?? 1;
  const matrix = tensor(out.address, dtype, [tensorBytes("u8", shape) / columns, columns]);
  fillRandom(device, { out: matrix, seed: 0, name, fullColumns: columns, init: { kind: "normal", std: 1 } });
  return out;
}

function productCases(
  device: Device,
  { rows, width }: Setting,
  products: CalibrateRank["products"],
  measured: { activationPicoseconds: number },
): Case[] {
  const flops = 2 * rows * width * width;
  const factors = (dtype: "fp32" | "bf16") => ({
    a: randomTensor(device, `a ${dtype}`, dtype, [rows, width]),
    w: randomTensor(device, `w ${dtype}`, dtype, [width, width]),
  });
  const plain = { fp32: factors("fp32"), bf16: factors("bf16") };
  const quantised = (x: Tensor): Tensor => {
    const [count = 1] = x.shape;
    const out = {
      ...device.allocatePersistent("e4m3", x.shape),
      rowScale: device.allocatePersistent("fp32", [count]),
    };
    quantizeRows(device, out, x);
    return out;
  };
  const low = { a: quantised(plain.bf16.a), w: quantised(plain.bf16.w) };
  const product = (dtype: "fp32" | "bf16" | "e4m3", activation: "identity" | "geluTanh" = "identity") => {
    const { a, w } = dtype === "e4m3" ? low : plain[dtype];
    return () => gemm(device, device.allocate(dtype === "fp32" ? "fp32" : "bf16", [rows, width]), a, w, { activation });
  };
  let without = 0;
  return [
    ...(["fp32", "e4m3", "bf16"] as const).map((dtype) => ({
      queue: product(dtype),
      amount: flops,
      found: (perSecond: number, seconds: number) => {
        products.push({ dtype, tflops: perSecond / 1e12 });
        without = seconds;
      },
    })),
    {
      queue: product("bf16", "geluTanh"),
      amount: rows * width,
      found: (_, seconds) => {
        measured.activationPicoseconds = Math.max(0, ((seconds - without) / (rows * width)) * 1e12);
      },
    },
  ];
}

/** What the engine itself queues for attention of one device, quantising included. */
function attentionCases(context: Context, { tokens, columns }: Setting, found: CalibrateRank["attention"]): Case[] {
  const { device } = context;
  const planOf = (dtype: Rated): Plan => planSchema.parse(dtype === "fp32" ? { dtype } : { attention: { dtype } });
  const operands = new Map<DType, Tensor>();
  const source = randomTensor(device, "x", "bf16", [tokens, columns]);
  const weights = randomTensor(device, "qkv", "bf16", [3, columns, columns]);
  const qkvOf = (dtype: Rated) => {
    const held = dtype === "e4m3" ? "bf16" : dtype;
    const known = operands.get(held);
    if (known) return known;
    const made =
      held === "fp32"
        ? randomTensor(device, "qkv fp32", "fp32", [3, tokens, columns])
        : device.allocatePersistent(held, [3, tokens, columns]);
    // Products of random numbers, scaled to about one.
    if (held !== "fp32") gemm(device, made, source, weights, { alpha: columns ** -0.5 });
    operands.set(held, made);
    return made;
  };
  return headDims.flatMap((headDim) =>
    dtypes.map((dtype): Case => {
      const qkv = qkvOf(dtype);
      const kv = tensor(partOf(qkv, 1).address, qkv.dtype, [2, tokens, columns]);
      const attention = makeAttention(context.withPlan(planOf(dtype)), columns / headDim);
      return {
        queue: () => void attention.attend(partOf(qkv, 0), kv, [tokens]),
        amount: 4 * tokens * tokens * columns,
        found: (perSecond) => found.push({ headDim, dtype, tflops: perSecond / 1e12 }),
      };
    }),
  );
}

function passCases(
  device: Device,
  { rows, width }: Setting,
  measured: { passGBs: number; launchMicroseconds: number },
): Case[] {
  const x = randomTensor(device, "pass", "fp32", [rows, width]);
  const bytes = tensorBytes(x.dtype, x.shape);
  const small = device.allocatePersistent("fp32", [64]);
  return [
    {
      queue: () => copy(device, device.allocate("fp32", x.shape), x, bytes),
      amount: 2 * bytes,
      found: (perSecond) => {
        measured.passGBs = perSecond / 1e9;
      },
    },
    {
      queue: () => {
        for (let launch = 0; launch < LAUNCHES; launch++) copy(device, device.allocate("fp32", [64]), small, 256);
      },
      amount: LAUNCHES,
      found: (perSecond) => {
        measured.launchMicroseconds = 1e6 / perSecond;
      },
    },
  ];
}

/** Seconds of one run of the body, in a graph. */
async function time(device: Device, { milliseconds, mostRuns }: Setting, body: () => void): Promise<number> {
  // The first also loads kernels and picks algorithms, none of which a capture may do.
  body();
  await device.synchronize();
  const graph = device.capture(body);
  const run = async () => {
    const elapsed = device.time(() => launchGraph(device, graph));
    await device.synchronize();
    return elapsed();
  };
  await run();
  const times: number[] = [];
  for (let spent = 0; times.length < 3 || (spent < milliseconds && times.length < mostRuns); ) {
    const each = await run();
    times.push(each);
    spent += each;
  }
  freeGraph(device, graph);
  // A GPU's clock comes down to what it holds; a CPU is disturbed by whoever else is there.
  if (device.info.module === "cpu") return Math.min(...times) / 1e3;
  const later = times.slice(Math.floor(times.length / 2)).sort((a, b) => a - b);
  return (later[Math.floor(later.length / 2)] ?? 0) / 1e3;
}
