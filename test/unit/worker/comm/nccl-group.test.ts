import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { float32ToBf16 } from "../../../../src/formats/numbers.js";
import { builtKernels } from "../../../../src/paths.js";
import { NcclGroup } from "../../../../src/worker/comm/nccl/group.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { standInEnvironment } from "../../../jobs/nccl.js";
import { makeStores } from "../in-process-ranks.js";

// Through the stand-in for NCCL.

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

beforeEach(() => {
  vi.stubEnv("DITRUN_CPU_NCCL", standInEnvironment.DITRUN_CPU_NCCL);
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

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
        const bits = float32ToBf16(new Float32Array(8).fill(rank === 0 ? 256 : 1));
        await device.upload(partial, new Uint8Array(bits.buffer));
        sum();
        return new Float32Array((await device.download(out)).buffer);
      }),
    );
    // In bf16 256 + 1 is 256 again, whatever comes after.
    for (const result of results) expect([...result]).toEqual(Array(8).fill(258));
    for (const { group, device } of ranks) {
      group.close();
      device.close();
    }
  });

  it("tells of a rank that is gone, and is then aborted: what waits for that rank ends", async () => {
    const [here, gone] = await makeRanks(2);
    if (!here || !gone) throw new Error("Two ranks were asked for.");
    gone.group.close();
    here.group.barrier();
    const ended = here.device.synchronize().then(
      () => "done",
      (error: Error) => error.message,
    );
    const noticed = () => vi.advanceTimersByTime(1000);
    await vi.waitFor(() => expect(noticed).toThrow(/^An NCCL operation failed: remote process exited/), 5000);
    expect(await Promise.race([ended, "it waits on"])).toBe("it waits on");
    here.group.close();
    expect(await ended).toMatch(/^ncclAllReduce failed: .*The communicator was aborted/);
    expect(vi.getTimerCount()).toBe(0);
    gone.device.close();
    here.device.close();
  });
});
