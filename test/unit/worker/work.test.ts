import { afterAll, beforeAll, beforeEach, expect, it, test, vi } from "vitest";
import { builtKernels } from "../../../src/paths.js";
import { attention, softmaxRows } from "../../../src/worker/ops/attention.js";
import { conv3d } from "../../../src/worker/ops/conv.js";
import { copy, copyMatrix, copyRows, fillZero, transpose } from "../../../src/worker/ops/copy.js";
import { decode } from "../../../src/worker/ops/decode.js";
import {
  activate,
  add,
  addGated,
  addRows,
  addVector,
  cast,
  combine,
  countNonfinite,
  multiply,
  toBytes,
} from "../../../src/worker/ops/elementwise.js";
import {
  gatherRows,
  patchify,
  patchifyVideo,
  rope3d,
  sincos2d,
  sincosEmbedding,
  unpatchify,
  unpatchifyVideo,
} from "../../../src/worker/ops/embedding.js";
import { gemm } from "../../../src/worker/ops/gemm.js";
import { ncclAllGather, ncclAllReduce, ncclExchange } from "../../../src/worker/ops/nccl.js";
import { channelNorm, layerNorm, rmsNorm, rowSumSquares } from "../../../src/worker/ops/norm.js";
import { peerExchange, peerGather, peerSum, sumOf, waitFlags, writeFlags } from "../../../src/worker/ops/peer.js";
import { kvStatistics, quantizeKv, quantizeRows } from "../../../src/worker/ops/quantize.js";
import { random } from "../../../src/worker/ops/random.js";
import { notLaunched, prototypes, structs } from "../../../src/worker/runtime/abi.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { type DType, type Tensor, tensor } from "../../../src/worker/runtime/tensor.js";
import type { Work } from "../../../src/worker/runtime/work.js";

interface Launched extends Work {
  readonly kernel: string;
  readonly args: readonly unknown[];
}

// Operators say what they would launch; nothing is launched, so addresses may be any.
let device: Device;
const launched: Launched[] = [];
beforeAll(() => {
  device = Device.open(builtKernels("cpu"), 0);
  vi.spyOn(device, "launch").mockImplementation((kernel, { work, args }) => {
    launched.push({ kernel, args: args(), ...work() });
  });
});
beforeEach(() => {
  launched.length = 0;
});
afterAll(() => device.close());

let next = 1;
const of = (dtype: DType, ...shape: number[]): Tensor => tensor(1024 * next++, dtype, shape);
const scaled = (...shape: [number, number]): Tensor => ({ ...of("e4m3", ...shape), rowScale: of("fp32", shape[0]) });
const grid = { channels: 4, height: 32, width: 32, patch: 2 };
const memory = () => ({ rank: 0, blocks: [1, 2, 3, 4], signals: [5, 6, 7, 8] });
const message = (bytes: number) => ({ address: 1, bytes, rank: 1 });
const neighbour = {
  ...{ send: 1, receive: 2, theirEven: 3, theirOdd: 4, ownEven: 5, ownOdd: 6, theirSignals: 7, ownSignals: 8 },
};
const summed = { total: 96, first: 0, count: 96, dtype: "bf16" } as const;
const spaced = { address: 1, pitch: 64 };
const same = { stride: [1, 1, 1], pad: [1, 1, 1, 1], upsample: 1 } as const;

// By operator: what it launches, the bytes if every tensor crosses the memory once, and the operations of products and attention.
const cases: Record<string, { queue: () => void; kernel: string; bytes: number; flops?: number; shape?: string }> = {
  gemm: {
    queue: () =>
      gemm(device, of("fp32", 3, 10, 20), of("bf16", 10, 30), of("bf16", 3, 20, 30), {
        residual: of("fp32", 3, 10, 20),
        bias: of("fp32", 3, 20),
      }),
    ...{ kernel: "gemm", flops: 2 * 3 * 6000, shape: "10×3·20×30 bf16" },
    bytes: (10 * 30 + 3 * 20 * 30) * 2 + 3 * 10 * 20 * (4 + 4),
  },
  "gemm in e4m3": {
    queue: () => gemm(device, of("fp32", 10, 20), scaled(10, 30), scaled(20, 30)),
    ...{ kernel: "gemm", flops: 2 * 6000, shape: "10×20×30 e4m3", bytes: 10 * 30 + 20 * 30 + 10 * 20 * 4 },
  },
  attention: {
    queue: () => {
      const blocks = [7, 3].map((keys) => ({ k: of("bf16", keys, 16), v: of("bf16", keys, 16), flag: 0 }));
      attention(device, of("fp32", 5, 16), of("bf16", 5, 16), blocks, { heads: 2, kernel: 0 });
    },
    ...{ kernel: "attention", flops: 4 * 5 * 10 * 16, shape: "2×5×10×8 bf16" },
    bytes: 16 * (5 * (2 + 4) + 2 * 10 * 2),
  },
  conv3d: {
    queue: () => conv3d(device, of("bf16", 3, 4, 5, 8), of("bf16", 3, 4, 5, 2), of("bf16", 8, 3, 3, 3, 2), same),
    ...{ kernel: "conv3d", flops: 2 * 60 * 8 * 2 * 27, shape: "60×8×2·27 bf16" },
    bytes: (60 * 2 + 27 * 2 * 8 + 60 * 8) * 2,
  },
  "conv3d with a residual": {
    queue: () => {
      const options = { stride: [1, 2, 2], pad: [0, 1, 0, 1], upsample: 1, residual: of("fp16", 1, 2, 2, 8) } as const;
      conv3d(device, of("fp16", 1, 2, 2, 8), of("fp16", 1, 4, 4, 2), of("fp16", 8, 1, 3, 3, 2), options);
    },
    ...{ kernel: "conv3d", flops: 2 * 4 * 8 * 2 * 9, bytes: (16 * 2 + 9 * 2 * 8 + 2 * 4 * 8) * 2 },
  },
  softmaxRows: {
    queue: () => softmaxRows(device, of("bf16", 6, 16), of("fp32", 6, 16), 1),
    ...{ kernel: "softmaxRows", bytes: 96 * 6 },
  },
  layerNorm: {
    queue: () => layerNorm(device, of("bf16", 6, 16), of("fp32", 6, 16), { epsilon: 1e-6 }),
    ...{ kernel: "layerNorm", bytes: 96 * (4 + 2), shape: "6×16" },
  },
  "layerNorm in e4m3": {
    queue: () => layerNorm(device, scaled(6, 16), of("fp32", 6, 16), { epsilon: 1e-6 }),
    ...{ kernel: "layerNorm", bytes: 96 * (4 + 1) },
  },
  rmsNorm: {
    queue: () => rmsNorm(device, of("bf16", 6, 16), of("bf16", 6, 16), { rope: of("fp32", 6, 8), epsilon: 1e-6 }),
    ...{ kernel: "rmsNorm", bytes: 96 * 4 + 6 * 8 * 4 },
  },
  channelNorm: {
    queue: () => channelNorm(device, of("fp16", 2, 3, 16), of("fp16", 2, 3, 16), of("fp32", 16), "silu"),
    ...{ kernel: "rmsNorm", bytes: 96 * 4 },
  },
  rowSumSquares: {
    queue: () => rowSumSquares(device, of("fp32", 6), of("bf16", 6, 16)),
    ...{ kernel: "rowSumSquares", bytes: 96 * 2 },
  },
  activate: {
    queue: () => activate(device, of("bf16", 6, 16), of("bf16", 6, 16), "gelu"),
    ...{ kernel: "activate", bytes: 96 * 4, shape: "96" },
  },
  add: {
    queue: () => add(device, of("bf16", 96), of("bf16", 96), of("bf16", 96)),
    ...{ kernel: "add", bytes: 96 * 6 },
  },
  multiply: {
    queue: () => multiply(device, of("fp32", 96), of("fp32", 96), of("fp32", 96)),
    ...{ kernel: "multiply", bytes: 96 * 12 },
  },
  addRows: {
    queue: () => addRows(device, of("bf16", 6, 16), of("bf16", 6, 16), of("bf16", 6, 16), of("bf16", 16)),
    ...{ kernel: "addRows", bytes: 96 * 6 },
  },
  addVector: {
    queue: () => addVector(device, of("bf16", 5, 7), of("bf16", 5, 7), of("bf16", 7)),
    ...{ kernel: "addRows", bytes: 35 * 4 },
  },
  addGated: {
    queue: () => addGated(device, of("fp32", 6, 16), of("fp32", 6, 16), of("bf16", 6, 16), of("fp32", 16)),
    ...{ kernel: "addGated", bytes: 96 * 10 },
  },
  combine: {
    queue: () =>
      combine(
        device,
        of("fp32", 96),
        [1, 2, 3].map((coefficient) => ({ coefficient, x: of("fp32", 96) })),
      ),
    ...{ kernel: "combine", bytes: 96 * 16 },
  },
  cast: { queue: () => cast(device, of("fp32", 96), of("bf16", 96)), ...{ kernel: "cast", bytes: 96 * 6 } },
  toBytes: {
    queue: () => toBytes(device, of("u8", 96), of("bf16", 96), of("i32", 1)),
    ...{ kernel: "toBytes", bytes: 96 * 3 },
  },
  countNonfinite: {
    queue: () => countNonfinite(device, of("i32", 1), of("fp32", 96)),
    ...{ kernel: "countNonfinite", bytes: 96 * 4 },
  },
  quantizeRows: {
    queue: () => quantizeRows(device, scaled(6, 16), of("bf16", 6, 16)),
    ...{ kernel: "quantizeRows", bytes: 96 * 3 },
  },
  decode: {
    queue: () => decode(device, of("bf16", 6, 64), { kind: "Q4_0", rowBytes: 36, address: 64, scale: of("fp32", 6) }),
    ...{ kernel: "decode", bytes: 6 * (36 + 64 * 2) },
  },
  kvStatistics: {
    queue: () => kvStatistics(device, of("fp32", 2, 16), of("bf16", 2, 6, 16)),
    ...{ kernel: "kvStatistics", bytes: 96 * 4 },
  },
  quantizeKv: {
    queue: () => {
      const to = { k: of("e4m3", 6, 16), v: of("e4m3", 16, 128), kScale: of("fp32", 2, 1), vScale: of("fp32", 16) };
      const means = { statistics: of("fp32", 2, 16), totalRows: 6, heads: 2 };
      quantizeKv(device, to, of("bf16", 2, 6, 16), means);
    },
    ...{ kernel: "quantizeKv", bytes: 96 * 2 * 3 },
  },
  random: {
    queue: () =>
      random(device, of("bf16", 6, 16), {
        ...{ seed: 1n, tensorId: 2, fullColumns: 16, distribution: "normal", amplitude: 1, offset: 0 },
      }),
    ...{ kernel: "fillRandom", bytes: 96 * 2 },
  },
  patchify: {
    queue: () => patchify(device, of("bf16", 6, 16), of("fp32", 4, 32, 32), grid, 10),
    ...{ kernel: "patchify", bytes: 96 * 6 },
  },
  unpatchify: {
    queue: () => unpatchify(device, of("fp32", 4, 32, 32), of("bf16", 6, 16), grid, 10),
    ...{ kernel: "unpatchify", bytes: 96 * 6 },
  },
  patchifyVideo: {
    queue: () => patchifyVideo(device, of("bf16", 6, 16), of("fp32", 4, 9, 32, 32), 2, 10),
    ...{ kernel: "patchifyVideo", bytes: 96 * 6 },
  },
  unpatchifyVideo: {
    queue: () => unpatchifyVideo(device, of("fp32", 4, 9, 32, 32), of("bf16", 6, 16), 2, 10),
    ...{ kernel: "unpatchifyVideo", bytes: 96 * 6 },
  },
  gatherRows: {
    queue: () => gatherRows(device, of("fp32", 6, 16), of("bf16", 1000, 16), of("i32", 6)),
    ...{ kernel: "gatherRows", bytes: 96 * 6 },
  },
  sincosEmbedding: {
    queue: () => sincosEmbedding(device, of("bf16", 6, 16), of("fp32", 6)),
    ...{ kernel: "sincosEmbedding", bytes: 96 * 2 },
  },
  sincos2d: {
    queue: () => sincos2d(device, of("bf16", 6, 16), { gridWidth: 12, width: 64, firstToken: 24, firstColumn: 8 }),
    ...{ kernel: "sincos2d", bytes: 96 * 2 },
  },
  rope3d: {
    queue: () => rope3d(device, of("fp32", 6, 16), { gridHeight: 12, gridWidth: 12 }, 24),
    ...{ kernel: "rope3d", bytes: 96 * 4 },
  },
  copy: { queue: () => copy(device, of("u8", 100), of("u8", 100), 100), ...{ kernel: "copy", bytes: 200 } },
  copyMatrix: {
    queue: () => copyMatrix(device, of("bf16", 5, 10), of("bf16", 5, 10)),
    ...{ kernel: "copy", bytes: 200 },
  },
  "copyMatrix of strided rows": {
    queue: () => copyMatrix(device, of("bf16", 5, 10), tensor(64, "bf16", [5, 10], 30)),
    ...{ kernel: "copy2d", bytes: 200 },
  },
  copyRows: {
    queue: () => copyRows(device, spaced, spaced, { rows: 5, rowBytes: 16 }),
    ...{ kernel: "copy2d", bytes: 160 },
  },
  fillZero: { queue: () => fillZero(device, of("bf16", 50)), ...{ kernel: "fillZero", bytes: 100 } },
  transpose: {
    queue: () => transpose(device, of("fp32", 3, 8, 4), of("fp32", 3, 4, 8)),
    ...{ kernel: "transpose", bytes: 96 * 8 },
  },
  sumOf: {
    queue: () => sumOf(device, [4, 5, 6], "bf16", { out: of("fp32", 6, 16), base: of("fp32", 6, 16) }),
    ...{ kernel: "sum", bytes: 96 * (3 * 2 + 2 * 4) },
  },
  peerSum: {
    queue: () => peerSum(device, memory, { out: of("fp32", 6, 16), base: of("fp32", 6, 16) }, { ...summed, shots: 1 }),
    ...{ kernel: "peerSum", bytes: 96 * (4 * 2 + 2 * 4) },
  },
  "peerSum in two shots": {
    queue: () => peerSum(device, memory, { out: of("bf16", 6, 16) }, { ...summed, shots: 2 }),
    ...{ kernel: "peerSum", bytes: 96 * ((2 + 1 / 4) * 2 + 2) },
  },
  peerGather: {
    queue: () => peerGather(device, memory, of("u8", 96), [64, 32]),
    ...{ kernel: "peerGather", bytes: 96 * 2 },
  },
  peerExchange: {
    queue: () =>
      peerExchange(device, () => ({
        neighbours: [neighbour, neighbour],
        ...{ pitch: 64, rowBytes: 16, rows: 3, neighbourCount: 2 },
      })),
    ...{ kernel: "peerExchange", bytes: 48 * 4 * 2 },
  },
  writeFlags: { queue: () => writeFlags(device, [1], 1), ...{ kernel: "flagsWrite", bytes: 0 } },
  waitFlags: { queue: () => waitFlags(device, [1], { reset: true }), ...{ kernel: "flagsWait", bytes: 0 } },
  ncclAllReduce: {
    queue: () => ncclAllReduce(device, 9, of("bf16", 96)),
    ...{ kernel: "ncclAllReduce", bytes: 96 * 4 },
  },
  ncclAllGather: {
    queue: () => ncclAllGather(device, 9, of("fp32", 96), of("fp32", 24), { count: 24, ranks: 4 }),
    ...{ kernel: "ncclAllGather", bytes: 4 * 24 * 4 * 2 },
  },
  ncclExchange: {
    queue: () => ncclExchange(device, 9, [message(64), message(32)], [message(48)]),
    ...{ kernel: "ncclExchange", bytes: 64 + 32 + 48 },
  },
};

/** Waiting and signalling move nothing; every other launch is some work. */
const idle = ["flagsWait", "flagsWrite"];

it.for(Object.entries(cases))("%s states its own work", ([, { queue, bytes, flops = 0, kernel, shape }]) => {
  queue();
  expect(launched).toMatchObject([{ kernel, bytes, flops, ...(shape && { shape }) }]);
  expect(bytes === 0).toBe(idle.includes(kernel));
});

const structNames: readonly string[] = Object.keys(structs);
const fieldsOf = (name: string) => Object.entries(structs).find(([struct]) => struct === name)?.[1] ?? {};

it.for(Object.entries(cases))("%s fills every parameter and every field", ([, { queue, kernel }]) => {
  queue();
  const prototype = Object.entries(prototypes).find(([name]) => name === kernel)?.[1] ?? "";
  const parameters = (/\((.*), uint64_t stream\)/.exec(prototype)?.[1] ?? "").split(", ");
  const args = launched[0]?.args ?? [];
  expect(args).toHaveLength(parameters.length);
  for (const [index, parameter] of parameters.entries()) {
    const struct = parameter.split(" ")[1] ?? "";
    if (structNames.includes(struct)) expect(Object.keys(args[index] ?? {})).toEqual(Object.keys(fieldsOf(struct)));
  }
});

test("every kernel function that queues work is launched by an operator here", () => {
  const managing: readonly string[] = notLaunched;
  const queues = Object.entries(prototypes).flatMap(([name, prototype]) =>
    prototype.endsWith("uint64_t stream)") && !managing.includes(name) ? [name] : [],
  );
  expect([...new Set(Object.values(cases).map(({ kernel }) => kernel))].sort()).toEqual(queues.sort());
});

test("attention that waits for a ring's blocks says so", () => {
  const block = { k: of("bf16", 7, 16), v: of("bf16", 7, 16), flag: 0 };
  for (const waits of [{ waitNanoseconds: 64 }, {}]) {
    attention(device, of("bf16", 5, 16), of("bf16", 5, 16), [block], { heads: 2, kernel: 0, ...waits });
  }
  expect(launched.map(({ waits }) => waits)).toEqual([true, undefined]);
});
