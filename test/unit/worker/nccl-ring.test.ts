import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { builtKernels } from "../../../src/paths.js";
import type { Group } from "../../../src/worker/comm/group.js";
import { asTheyAre, inE4m3, type KeyValuePayload, type MakePayload } from "../../../src/worker/layers/kv-payload.js";
import { NcclRing } from "../../../src/worker/layers/nccl-ring.js";
import type { RingSettings } from "../../../src/worker/layers/ring-of-payloads.js";
import { attention } from "../../../src/worker/ops/attention.js";
import { copyBytes } from "../../../src/worker/ops/copy.js";
import { cast } from "../../../src/worker/ops/elementwise.js";
import type { Message } from "../../../src/worker/ops/nccl.js";
import { kvStatistics } from "../../../src/worker/ops/quantize.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { matrixShape, rowsOf, type Tensor, tensorBytes } from "../../../src/worker/runtime/tensor.js";
import { relativeL2 } from "../../compare.js";
import { sequence } from "../../kernels/module.js";

// The CPU module has no NCCL. Here one process plays all ranks, one after the other, and this test hands over the messages.

const heads = 3;
const columns = heads * 32;
const tokensOfRank = [150, 33, 129];
const ranks = tokensOfRank.length;

let device: Device;
beforeEach(() => {
  device = Device.open(builtKernels("cpu"), 0);
});
afterEach(() => device.close());

async function uploaded(shape: readonly number[], seed: number): Promise<Tensor> {
  const x = device.allocatePersistent("fp32", shape);
  const values = Float32Array.from(
    sequence(
      shape.reduce((a, b) => a * b),
      0,
      seed,
      2,
    ),
  );
  await device.upload(x, new Uint8Array(values.buffer));
  return x;
}

/** The same in fp16. */
async function rounded(shape: readonly number[], seed: number): Promise<Tensor> {
  const x = device.allocatePersistent("fp16", shape);
  cast(device, x, await uploaded(shape, seed));
  return x;
}

const at = <T>(list: readonly T[], index: number): T => {
  const item = list[index];
  if (item === undefined) throw new RangeError(`There is no item ${index}.`);
  return item;
};

const never = (): never => {
  throw new Error("The ring does not need this of its group.");
};

/** The cp group of one rank, where the parts that are gathered are the statistics of every rank's keys and values. */
function groupOf(rank: number, kvOfRank: readonly Tensor[]): Group {
  return {
    rank,
    size: ranks,
    gatherPart: (rows, width, dtype) => device.allocate(dtype, [at(rows, rank), width]),
    allGather: (_part, _rows, out) => {
      for (const [r, kv] of kvOfRank.entries()) kvStatistics(device, rowsOf(out, 2 * r, 2), kv);
    },
    ...{ partial: never, allReduce: never, reduceScatter: never, barrier: never },
  };
}

const dtypes: [string, number, (rank: number, kvOfRank: readonly Tensor[]) => MakePayload][] = [
  // Merging adds a few float32 roundings.
  ["fp32", 1e-6, () => asTheyAre],
  // As e4m3 below, with probabilities of 11 bits.
  ["fp16", 1e-3, () => asTheyAre],
  // Each step rounds its probabilities against its own largest score: the errors of two such runs, 2 % each at most, differ.
  ["e4m3", 0.04, (rank, kvOfRank) => inE4m3({ device, cp: groupOf(rank, kvOfRank) }, heads)],
];

describe("the ring over NCCL", () => {
  it.each(dtypes)(
    "passes %s messages on and merges to what one launch over all blocks gives",
    async (dtype, tolerance, makeFor) => {
      const qOfRank: Tensor[] = [];
      const kvOfRank: Tensor[] = [];
      const operand = dtype === "fp16" ? rounded : uploaded;
      for (const [rank, tokens] of tokensOfRank.entries()) {
        qOfRank.push(await operand([tokens, columns], 2 * rank + 1));
        kvOfRank.push(await operand([2, tokens, columns], 2 * rank + 2));
      }
      const made = (rank: number): KeyValuePayload =>
        makeFor(rank, kvOfRank)(at(qOfRank, rank), at(kvOfRank, rank), tokensOfRank);

      const body = () => {
        const payloads = tokensOfRank.map((_, rank) => made(rank));
        const messages = payloads.map(({ address, bytes }, rank) => {
          const message = device.allocate("u8", [bytes(at(tokensOfRank, rank))]);
          copyBytes(device, message.address, address, tensorBytes("u8", message.shape));
          return message;
        });
        const sent: { as: number; from: Tensor }[] = [];
        const results = payloads.map((payload, rank) => {
          let step = 0;
          const exchange = ([send]: readonly Message[], [receive]: readonly Message[]) => {
            step += 1;
            if (!send || !receive) throw new Error("A step sends one message and receives one.");
            expect([send.rank, receive.rank]).toEqual([(rank + 1) % ranks, (rank + ranks - 1) % ranks]);
            const passedOn = (rank - step + 1 + ranks) % ranks;
            const arriving = at(messages, (rank - step + ranks) % ranks);
            expect(send.bytes).toBe(at(messages, passedOn).shape[0]);
            expect(receive.bytes).toBe(arriving.shape[0]);
            // Not from the arena: the ring gives its part back.
            const kept = device.allocatePersistent("u8", [send.bytes]);
            copyBytes(device, kept.address, send.address, send.bytes);
            sent.push({ as: passedOn, from: kept });
            copyBytes(device, receive.address, arriving.address, receive.bytes);
          };
          const settings: RingSettings = {
            heads,
            outDtype: "fp32",
            kernel: 0,
            makePayload: () => payload,
            queryDtype: "fp32",
          };
          const ring = new NcclRing(device, { rank, size: ranks, exchange }, settings);
          const q = at(qOfRank, rank);
          const attended = ring.attend(q, at(kvOfRank, rank), tokensOfRank);
          const whole = device.allocate("fp32", q.shape);
          const blocks = messages.map(({ address }, r) => payload.blockOf(address, at(tokensOfRank, r)));
          attention(device, whole, payload.q, blocks, { heads, kernel: 0, vScale: payload.vScale });
          return { ring: attended, whole };
        });
        return { messages, results, sent };
      };
      device.measure(body);
      device.backArena();
      const { messages, results, sent } = body();
      await device.synchronize();

      for (const { ring, whole } of results) {
        expect(matrixShape(ring)).toEqual(matrixShape(whole));
        const [x, y] = [await floats(ring), await floats(whole)];
        expect(relativeL2(x, y)).toBeLessThan(tolerance);
      }
      expect(sent).toHaveLength(ranks * (ranks - 1));
      for (const { as, from } of sent) {
        expect(Buffer.compare(await device.download(from), await device.download(at(messages, as)))).toBe(0);
      }
      const total = messages.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
      const keys = tokensOfRank.reduce((a, b) => a + b);
      // e4m3: a byte for each number, up to a group of zeros for each channel, and a scale for each head and group.
      if (dtype === "e4m3") expect(total).toBe(keys * columns + (256 + 128 + 256) * columns + 5 * heads * 4);
      else expect(total).toBe(2 * keys * columns * (dtype === "fp16" ? 2 : 4));
    },
  );
});

async function floats(x: Tensor): Promise<Float32Array> {
  return new Float32Array((await device.download(x)).buffer);
}
