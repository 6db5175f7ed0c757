import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bf16ToFloat32, float32ToBf16 } from "../../../../src/formats/numbers.js";
import { builtKernels } from "../../../../src/paths.js";
import { NcclGroup } from "../../../../src/worker/comm/nccl/group.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import type { Tensor } from "../../../../src/worker/runtime/tensor.js";
import { makeStores } from "../in-process-ranks.js";

// On the CPU module, where TCP stands for NCCL.

interface Rank {
  readonly device: Device;
  readonly group: NcclGroup;
}

async function makeRanks(count: number): Promise<Rank[]> {
  const ranks = Array.from({ length: count }, (_, rank) => rank);
  return Promise.all(
    makeStores(count).map(async (store, rank) => {
      const device = Device.open(builtKernels("cpu"), rank);
      return { device, group: await NcclGroup.create("test", device, store, ranks, rank) };
    }),
  );
}

function close(ranks: readonly Rank[]): void {
  for (const { group, device } of ranks) {
    group.close();
    device.close();
  }
}

const encode = (dtype: Tensor["dtype"], values: Float32Array) =>
  new Uint8Array(dtype === "fp32" ? values.slice().buffer : float32ToBf16(values).buffer);
const decode = (dtype: Tensor["dtype"], { buffer }: Uint8Array) =>
  dtype === "fp32" ? new Float32Array(buffer) : bf16ToFloat32(new Uint16Array(buffer));

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => void vi.useRealTimers());

describe("a group over NCCL", () => {
  it("adds what ranks hold in bf16 in float32: 256 and two ones are 258", async () => {
    const ranks = await makeRanks(3);
    const results = await Promise.all(
      ranks.map(async ({ device, group }, rank) => {
        const out = device.allocatePersistent("fp32", [1, 8]);
        const queue = () => {
          const partial = group.partial(1, 8, "bf16");
          return { partial, sum: () => group.allReduce(partial, { out }) };
        };
        device.measure(() => queue().sum());
        device.backArena();
        const { partial, sum } = queue();
        await device.upload(partial, encode("bf16", new Float32Array(8).fill(rank === 0 ? 256 : 1)));
        sum();
        return new Float32Array((await device.download(out)).buffer);
      }),
    );
    // In bf16 256 + 1 is 256 again, whatever comes after.
    for (const result of results) expect([...result]).toEqual(Array(8).fill(258));
    close(ranks);
  });

  // At once, and in shares: one element more than 32 KiB, so that the shares are uneven.
  it.for([
    ["fp32", 5],
    ["fp32", 8193],
    ["bf16", 7],
    ["bf16", 16_385],
  ] as const)("sums %s [%i] in place in rank order, in float32, rounded once", async ([dtype, count]) => {
    const ranks = await makeRanks(3);
    const values = ranks.map((_, rank) => {
      const drawn = Float32Array.from({ length: count }, (_, i) => Math.sin(i * 37 + rank * 101) * 2 ** (i % 9));
      return dtype === "fp32" ? drawn : bf16ToFloat32(float32ToBf16(drawn));
    });
    const sums = Float32Array.from({ length: count }, (_, i) =>
      values.reduce((sum, each) => Math.fround(sum + (each[i] ?? Number.NaN)), 0),
    );
    const want = decode(dtype, encode(dtype, sums));
    const results = await Promise.all(
      ranks.map(async ({ device, group }, rank) => {
        const x = device.allocatePersistent(dtype, [count]);
        await device.upload(x, encode(dtype, values[rank] ?? new Float32Array()));
        group.sumInPlace(x);
        return decode(dtype, await device.download(x));
      }),
    );
    for (const result of results) expect(result).toEqual(want);
    close(ranks);
  });

  it("names a rank that is gone to who waits for it, and to who looks", async () => {
    const [here, gone] = await makeRanks(2);
    if (!here || !gone) throw new Error("Two ranks were asked for.");
    gone.group.close();
    here.group.barrier();
    const said = /^Rank 1 of a group of 2 \(127\.0\.0\.1:\d+\) is gone: /;
    await expect(here.device.synchronize()).rejects.toThrow(said);
    // What is queued later has no use for the connections either, and a stream may wait where nobody looks.
    here.group.barrier();
    await expect(here.device.synchronize()).rejects.toMatchObject({ code: "ERR_PEER_LOST" });
    expect(() => vi.advanceTimersByTime(1000)).toThrow(said);
    here.group.close();
    expect(vi.getTimerCount()).toBe(0);
    gone.device.close();
    here.device.close();
  });
});
