import { expect, it } from "vitest";
import { builtKernels } from "../../src/paths.js";
import type { Group } from "../../src/worker/comm/group.js";
import { inE4m3 } from "../../src/worker/layers/attention/payload.js";
import { attention } from "../../src/worker/ops/attention.js";
import { kvStatistics } from "../../src/worker/ops/quantize.js";
import { Device } from "../../src/worker/runtime/device.js";
import { partOf, rowsOf, type Tensor } from "../../src/worker/runtime/tensor.js";
import { relativeL2 } from "../compare.js";
import { sequence } from "../kernels/module.js";

const heads = 2;
const columns = heads * 32;
/** Shares far apart: what is averaged over ranks instead of over tokens is another number. */
const tokensOfRank = [300, 20, 64];
const tokens = tokensOfRank.reduce((sum, count) => sum + count);

it("smooths the keys of all ranks by one mean, that of all tokens, however uneven the shares", async () => {
  const device = Device.open(builtKernels("cpu"), 0);
  try {
    const upload = async (shape: readonly number[], values: Float32Array) => {
      const x = device.allocatePersistent("fp32", shape);
      await device.upload(x, new Uint8Array(values.buffer));
      return x;
    };
    const draw = (length: number, seed: number) => Float32Array.from(sequence(length, 0, seed, 2));
    // Keys have an offset in common, several times their spread, and it grows along the tokens: every rank's own mean is another.
    const offset = draw(columns, 9);
    const k = draw(tokens * columns, 1).map(
      (value, i) => value + 8 * (offset[i % columns] ?? 0) * (1 + Math.floor(i / columns) / tokens),
    );
    const v = draw(tokens * columns, 2);
    const q = await upload([tokens, columns], draw(tokens * columns, 3));
    const starts = tokensOfRank.map((_, rank) => tokensOfRank.slice(0, rank).reduce((sum, count) => sum + count, 0));
    const kvOfRank: Tensor[] = [];
    for (const [rank, count] of tokensOfRank.entries()) {
      const from = (starts[rank] ?? 0) * columns;
      const kv = new Float32Array(2 * count * columns);
      kv.set(k.subarray(from, from + count * columns));
      kv.set(v.subarray(from, from + count * columns), count * columns);
      kvOfRank.push(await upload([2, count, columns], kv));
    }
    const groupOf = (rank: number): Group => ({
      rank,
      size: tokensOfRank.length,
      gatherPart: (rows, width, dtype) => device.allocate(dtype, [rows[rank] ?? 0, width]),
      allGather: (_part, _rows, out) => {
        for (const [r, kv] of kvOfRank.entries()) kvStatistics(device, rowsOf(out, 2 * r, 2), kv);
      },
      ...{ transport: "peer", partial: never, allReduce: never, reduceScatter: never, allToAll: never },
      ...{ ring: never, halo: never, barrier: never, close: never },
    });
    const smoothed = device.allocatePersistent("fp32", [tokens, columns]);
    const exact = device.allocatePersistent("fp32", [tokens, columns]);
    const body = () => {
      const payloads = kvOfRank.map((kv, rank) => {
        const own = rowsOf(q, starts[rank] ?? 0, tokensOfRank[rank] ?? 0);
        return inE4m3({ device, ring: groupOf(rank) }, heads)(own, kv, tokensOfRank);
      });
      for (const [rank, payload] of payloads.entries()) {
        const out = rowsOf(smoothed, starts[rank] ?? 0, tokensOfRank[rank] ?? 0);
        const blocks = payloads.map(({ address }, r) => payload.blockOf(address, tokensOfRank[r] ?? 0));
        attention(device, out, payload.q, blocks, { heads, kernel: 0, vScale: payload.vScale });
      }
      const blocks = kvOfRank.map((kv) => ({ k: partOf(kv, 0), v: partOf(kv, 1), flag: 0 }));
      attention(device, exact, q, blocks, { heads, kernel: 0 });
    };
    device.measure(body);
    device.backArena();
    body();
    const floats = async (x: Tensor) => new Float32Array((await device.download(x)).buffer);
    const error = relativeL2(await floats(smoothed), await floats(exact));
    // Of e4m3, which cannot be as exact as float32. A rank with another mean is off by all of the offset that its keys keep.
    expect(error).toBeLessThan(0.2);
    expect(error).toBeGreaterThan(1e-3);
  } finally {
    device.close();
  }
});

const never = (): never => {
  throw new Error("A payload needs nothing of its group but a gather.");
};
