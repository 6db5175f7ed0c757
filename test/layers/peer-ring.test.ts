import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { builtKernels } from "../../src/paths.js";
import { PeerHeap } from "../../src/worker/comm/peer/heap.js";
import { Peers } from "../../src/worker/comm/peer/peers.js";
import { PeerRing } from "../../src/worker/comm/peer/ring.js";
import { asTheyAre } from "../../src/worker/layers/attention/payload.js";
import { RingAttention } from "../../src/worker/layers/attention/ring.js";
import { attention } from "../../src/worker/ops/attention.js";
import { copy } from "../../src/worker/ops/copy.js";
import { Device } from "../../src/worker/runtime/device.js";
import { freeGraph, launchGraph } from "../../src/worker/runtime/graph.js";
import { partOf, type Tensor, tensorBytes } from "../../src/worker/runtime/tensor.js";
import { sequence } from "../kernels/module.js";
import { makeStores } from "../unit/worker/in-process-ranks.js";

const heads = 1;
const columns = 32;
/** The first rank is done in no time, the second has a lot to do: it still reads the first's message when the next one could come. */
const tokensOfRank = [16, 1200];
const settings = { heads, outDtype: "fp32", kernel: 0, makePayload: asTheyAre, queryDtype: "fp32" } as const;

interface Rank {
  readonly device: Device;
  readonly heap: PeerHeap;
  readonly q: Tensor;
  /** What the ring's graph reads, and what it will hold from the second forward on. */
  readonly kv: Tensor;
  readonly later: Tensor;
  readonly out: Tensor;
  readonly graph: number;
}

async function uploaded(device: Device, shape: readonly number[], seed: number): Promise<Tensor> {
  const x = device.allocatePersistent("fp32", shape);
  const count = shape.reduce((a, b) => a * b);
  await device.upload(x, new Uint8Array(Float32Array.from(sequence(count, 0, seed, 2)).buffer));
  return x;
}

/** As a word that is quick to compare. */
async function contents(device: Device, x: Tensor): Promise<string> {
  return createHash("sha256")
    .update(await device.download(x))
    .digest("hex");
}

function makeRanks(): Promise<Rank[]> {
  return Promise.all(
    makeStores(tokensOfRank.length).map(async (store, rank) => {
      const device = Device.open(builtKernels("cpu"), rank);
      const heap = new PeerHeap(device, store, [0, 1]);
      const ring = new RingAttention(device, new PeerRing(new Peers("cp", device, heap, [0, 1], rank)), settings);
      const tokens = tokensOfRank[rank] ?? 0;
      const q = await uploaded(device, [tokens, columns], 3 * rank + 1);
      const kv = await uploaded(device, [2, tokens, columns], 3 * rank + 2);
      const later = await uploaded(device, [2, tokens, columns], 3 * rank + 3);
      const out = device.allocatePersistent("fp32", [tokens, columns]);
      const forward = () => ring.attend(q, kv, tokensOfRank, { out });
      device.measure(forward);
      device.backArena();
      await heap.open();
      // Of one layer: each forward receives into the buffers of the one before.
      return { device, heap, q, kv, later, out, graph: device.capture(forward) };
    }),
  );
}

describe("the ring over peer memory", () => {
  it("sends nothing over what its receiver still reads, forward after forward", async () => {
    const ranks = await makeRanks();
    const [quick, slow] = ranks;
    if (!quick || !slow) throw new Error("There are two ranks.");
    const launch = ({ device, graph }: Rank) => launchGraph(device, graph);
    /** One launch over both ranks' blocks, this rank's first. */
    const expected = async ({ device, q }: Rank, blocks: readonly Tensor[]) => {
      const whole = device.allocatePersistent("fp32", q.shape);
      const both = blocks.map((kv) => ({ k: partOf(kv, 0), v: partOf(kv, 1), flag: 0 }));
      attention(device, whole, q, both, { heads, kernel: 0 });
      return contents(device, whole);
    };
    const first = await expected(slow, [slow.kv, quick.kv]);
    const second = await expected(slow, [slow.kv, quick.later]);

    launch(slow);
    launch(quick);
    copy(quick.device, quick.kv, quick.later, tensorBytes("fp32", quick.kv.shape));
    launch(quick);
    expect(await contents(slow.device, slow.out)).toEqual(first);
    launch(slow);
    expect(await contents(slow.device, slow.out)).toEqual(second);
    expect(await contents(quick.device, quick.out)).toEqual(await expected(quick, [quick.later, slow.kv]));

    // Only after success: a ring that failed holds streams that wait for ever.
    await Promise.all(ranks.map(({ heap }) => heap.close()));
    for (const { device, graph } of ranks) {
      freeGraph(device, graph);
      device.close();
    }
  });
});
