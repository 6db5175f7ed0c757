import { readdirSync, readFileSync } from "node:fs";
import { expect, it, test } from "vitest";
import { deviceDtypes, prototypes, structs } from "../../../src/worker/runtime/abi.js";
import type { Struct } from "../../../src/worker/runtime/abi-arguments.js";
import type { Argument } from "../../../src/worker/runtime/kernels.js";
import { gatherWork, type LaunchedKernel, notLaunched, workOf } from "../../../src/worker/runtime/work.js";

const { fp32, bf16, e4m3, u8 } = deviceDtypes;
const stream = 99;

/** A struct of the ABI with 0 in every field that is not given. */
function struct(name: string, given: Record<string, number | number[] | object[]>): Struct {
  const zeros = Object.keys(structs[name] ?? {}).map((field) => [field, 0]);
  return Object.assign(Object.fromEntries(zeros), given);
}

// A launch of every kernel: bytes if every tensor crosses the memory once, floating-point operations of products and attention.
const tokens = { rows: 6, columns: 16 };
const video = { frames: 3, height: 4, width: 5, inChannels: 2, outChannels: 8, kernelT: 3, kernelH: 3, kernelW: 3 };
const same = { strideT: 1, strideH: 1, strideW: 1, padTop: 1, padBottom: 1, padLeft: 1, padRight: 1, upsample: 1 };
const launches: Record<LaunchedKernel, { args: Argument[]; bytes: number; flops?: number }> = {
  flagsWrite: { args: [[1], 1, 1], bytes: 0 },
  flagsWait: { args: [[1], 1, 1], bytes: 0 },
  copy: { args: [1, 2, 100], bytes: 200 },
  copy2d: { args: [1, 64, 2, 32, 16, 5], bytes: 160 },
  fillZero: { args: [1, 100], bytes: 100 },
  gemm: {
    args: [struct("ditrun_gemm_args", { m: 2, n: 3, k: 4, batch: 5, dtype: bf16, outDtype: fp32 })],
    bytes: (2 * 4 + 5 * 3 * 4) * 2 + 5 * 2 * 3 * 4,
    flops: 5 * 2 * 2 * 3 * 4,
  },
  attention: {
    args: [
      struct("ditrun_attention_args", {
        ...{ queries: 5, heads: 2, headDim: 8, dtype: bf16, oDtype: fp32 },
        blocks: [{ length: 7 }, { length: 3 }],
      }),
    ],
    bytes: 16 * (5 * (2 + 4) + 2 * 10 * 2),
    flops: 4 * 5 * 10 * 16,
  },
  conv3d: {
    args: [struct("ditrun_conv3d_args", { ...video, ...same, dtype: bf16 })],
    bytes: (60 * 2 + 27 * 2 * 8 + 60 * 8) * 2,
    flops: 2 * 60 * 8 * 2 * 27,
  },
  kvStatistics: { args: [1, 2, 3, 16, 4, 16, 6, 16, bf16], bytes: 96 * 4 },
  quantizeKv: {
    args: [struct("ditrun_quantize_kv_args", { rows: 6, heads: 2, headDim: 8, dtype: bf16 })],
    bytes: 96 * 2 * 3,
  },
  layerNorm: {
    args: [struct("ditrun_layer_norm_args", { ...tokens, out: 1, quantized: 2, xDtype: fp32, outDtype: bf16 })],
    bytes: 96 * (4 + 2 + 1),
  },
  rmsNorm: {
    args: [
      struct("ditrun_rms_norm_args", { ...tokens, ...{ headDim: 8, rope: 3, out: 1 }, xDtype: bf16, outDtype: bf16 }),
    ],
    bytes: 96 * 4 + 6 * 8 * 4,
  },
  softmaxRows: { args: [1, bf16, 2, fp32, 6, 16, 1], bytes: 96 * 6 },
  activate: { args: [1, 2, 96, bf16, 1], bytes: 96 * 4 },
  add: { args: [1, 2, 3, 96, bf16], bytes: 96 * 6 },
  multiply: { args: [1, 2, 3, 96, fp32], bytes: 96 * 12 },
  addRows: { args: [1, 2, 3, 4, 6, 16, bf16], bytes: 96 * 6 },
  addGated: { args: [1, 2, fp32, 3, bf16, 4, 6, 16], bytes: 96 * 10 },
  cast: { args: [1, fp32, 2, bf16, 96], bytes: 96 * 6 },
  combine: { args: [1, [1, 2, 3], [1, 1, 1], 3, 96], bytes: 96 * 16 },
  quantizeRows: { args: [1, 2, 3, 16, 6, 16, bf16], bytes: 96 * 3 },
  rowSumSquares: { args: [1, 2, 16, 6, 16, bf16], bytes: 96 * 2 },
  countNonfinite: { args: [1, 2, 96, fp32], bytes: 96 * 4 },
  transpose: { args: [1, 2, 3, 4, 8, fp32], bytes: 96 * 8 },
  toBytes: { args: [1, 2, 3, bf16, 96], bytes: 96 * 3 },
  fillRandom: { args: [struct("ditrun_random_args", { ...tokens, outDtype: bf16 })], bytes: 96 * 2 },
  gatherRows: { args: [1, fp32, 2, bf16, 1000, 3, 6, 16], bytes: 96 * 6 },
  patchify: { args: [1, bf16, 2, fp32, 4, 32, 32, 2, 10, 6], bytes: 96 * 6 },
  unpatchify: { args: [1, fp32, 2, bf16, 4, 32, 32, 2, 10, 6], bytes: 96 * 6 },
  patchifyVideo: { args: [1, bf16, 2, fp32, 4, 9, 32, 32, 2, 10, 6], bytes: 96 * 6 },
  unpatchifyVideo: { args: [1, fp32, 2, bf16, 4, 9, 32, 32, 2, 10, 6], bytes: 96 * 6 },
  sincosEmbedding: { args: [1, bf16, 2, 6, 64, 8, 16], bytes: 96 * 2 },
  sincos2d: { args: [1, bf16, 12, 24, 6, 64, 8, 16], bytes: 96 * 2 },
  rope3d: { args: [1, 12, 12, 24, 6, 16], bytes: 96 * 4 },
  sum: { args: [1, 2, 3, 16, [4, 5, 6], 3, 96, fp32, bf16], bytes: 96 * (3 * 2 + 2 * 4) },
  peerSum: {
    args: [
      struct("ditrun_peer_sum_args", {
        ...{ count: 96, columns: 16, ranks: 4, shots: 1, base: 1, dtype: fp32, sourceDtype: bf16 },
      }),
    ],
    bytes: 96 * (4 * 2 + 2 * 4),
  },
  peerGather: { args: [1, [2, 3], [64, 32], [4, 5], 0, 2], bytes: 96 * 2 },
  peerExchange: {
    args: [struct("ditrun_peer_exchange_args", { neighbours: [{}, {}], rows: 3, rowBytes: 16, neighbourCount: 2 })],
    bytes: 48 * 4 * 2,
  },
  ncclAllReduce: { args: [1, 2, 2, 96, bf16], bytes: 96 * 4 },
  ncclAllGather: { args: [1, 2, 3, 24, fp32], bytes: 4 * 24 * 4 * 2 },
  ncclExchange: { args: [1, [2, 3], [64, 32], [0, 1], 2, [4], [48], [1], 1], bytes: 64 + 32 + 48 },
};

const isLaunched = (name: string): name is LaunchedKernel => name in launches;

test("every kernel function that queues work has a cost, and is one of these", () => {
  const queues = Object.entries(prototypes).flatMap(([name, prototype]) =>
    prototype.endsWith("uint64_t stream)") ? [name] : [],
  );
  const managing: readonly string[] = notLaunched;
  expect(Object.keys(launches).sort()).toEqual(queues.filter((name) => !managing.includes(name)).sort());
});

it.for(Object.keys(launches).filter(isLaunched))("states the work of %s", (name) => {
  const { args, bytes, flops = 0 } = launches[name];
  const work = name === "ncclAllGather" ? gatherWork(4 * 24 * 4) : workOf(name, [...args, stream]);
  expect(work).toMatchObject({ bytes, flops });
  expect(work.shape === "").toBe(bytes === 0);
});

test("attention that waits for a ring's blocks says so", () => {
  const args = { ...{ queries: 5, heads: 2, headDim: 8 }, blocks: [{ length: 7 }] };
  const waiting = struct("ditrun_attention_args", { ...args, waitNanoseconds: 64 });
  expect(workOf("attention", [waiting, stream]).waits).toBe(true);
  expect(workOf("attention", [struct("ditrun_attention_args", args), stream]).waits).toBeUndefined();
});

test("a launch whose arguments do not say its work is refused without it", () => {
  expect(() => workOf("ncclAllGather", launches.ncclAllGather.args)).toThrow("whoever launches it says its work");
});

test("whatever the worker launches is one of these, and dtypes have the sizes that were counted with", () => {
  const files = readdirSync("src/worker", { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  const launched = files.flatMap((file) =>
    [...readFileSync(`src/worker/${file}`, "utf8").matchAll(/\.launch\(\s*(?:"\w+"|phase),\s*"(\w+)"/g)].map(
      ([, name = ""]) => name,
    ),
  );
  expect(launched.length).toBeGreaterThan(40);
  expect(launched.filter((name) => !isLaunched(name))).toEqual([]);
  expect(workOf("cast", [1, e4m3, 2, u8, 10, stream]).bytes).toBe(20);
});
