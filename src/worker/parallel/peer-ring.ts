import type { PeerGroup } from "../comm/peer-group.js";
import type { PeerHeap } from "../comm/peer-heap.js";
import type { Device } from "../device/device.js";
import { attention } from "../device/ops.js";
import type { Tensor } from "../device/tensor.js";
import type { KeyValuePayload } from "./kv-payload.js";
import { RingOfPayloads, type RingSettings } from "./ring-of-payloads.js";

/**
 * Over peer memory, with copy engines only: every rank pushes its message straight to each peer, to the next rank
 * first, so that at step s each rank receives from the one s before it and no link carries two blocks at once. One attention
 * launch walks over the blocks in that order, waiting on a flag for each: one softmax state, no merge (ring order of
 * arXiv 2310.01889; direct sends need no forwarding, since every pair of GPUs of a host is linked).
 * Buffers of even and odd layers take turns, so a peer may still read layer l while layer l + 1 arrives.
 */
export class PeerRing extends RingOfPayloads {
  #layer = 0;
  #waits: Tensor | undefined;

  constructor(
    private readonly heap: PeerHeap,
    device: Device,
    private readonly cp: PeerGroup,
    settings: RingSettings,
  ) {
    super(device, settings);
  }

  protected queue(o: Tensor, payload: KeyValuePayload, tokensOfRank: readonly number[]): void {
    const { device, heap } = this;
    const { rank, size } = this.cp;
    const slotBytes = payload.bytes(Math.max(...tokensOfRank));
    const buffers = [this.#buffers(0, slotBytes), this.#buffers(1, slotBytes)] as const;
    const { slots, full, free } = buffers[this.#layer++ % 2 === 0 ? 0 : 1];
    const world = (r: number) => this.cp.worldRank(r);
    const at = <T>(list: readonly T[], r: number): T => {
      const item = list[r];
      if (item === undefined) throw new RangeError(`The ring has no rank ${r}.`);
      return item;
    };
    const here = world(rank);
    const ownTokens = at(tokensOfRank, rank);

    device.waitFor("copy", device.mark("compute"));
    const bytes = payload.bytes(ownTokens);
    for (let step = 1; step < size; step++) {
      const to = (rank + step) % size;
      const credit = heap.flagAddress(at(free, to), here);
      const destination = heap.blockAddress(at(slots, rank), world(to));
      const arrived = heap.flagAddress(at(full, rank), world(to));
      device.launch("communication", "flagsWait", () => [[credit], 1, 1], "copy");
      device.launch("communication", "copy", () => [destination, payload.address, bytes], "copy");
      device.launch("communication", "flagsWrite", () => [[arrived], 1, 1], "copy");
    }
    const sent = device.mark("copy");

    const sources = Array.from({ length: size - 1 }, (_, i) => (rank - i - 1 + size) % size);
    const own = payload.blockOf(payload.address, ownTokens);
    const others = sources.map((r) => {
      const slot = heap.blockAddress(at(slots, r), here);
      return payload.blockOf(slot, at(tokensOfRank, r), heap.flagAddress(at(full, r), here));
    });
    if (!this.#waits) {
      this.#waits = device.allocatePersistent("i32", [size, 2]);
      device.kernels.call("fillZero", this.#waits.address, size * 8, device.streams.compute);
    }
    const { heads, kernel } = this.settings;
    const { vScale } = payload;
    attention(device, o, payload.q, [own, ...others], { heads, kernel, vScale, waitNanoseconds: this.#waits.address });

    const reset = sources.map((r) => heap.flagAddress(at(full, r), here));
    device.launch("communication", "flagsWrite", () => [reset, reset.length, 0]);
    const credits = sources.map((r) => heap.flagAddress(at(free, rank), world(r)));
    device.launch("communication", "flagsWrite", () => [credits, credits.length, 1]);
    // The message lies in the arena: nothing may overwrite it before it has been sent.
    device.waitFor("compute", sent);
  }

  /** What even (0) or odd (1) layers receive into: a slot for each rank's block, and the flags that guard it. */
  #buffers(turn: 0 | 1, slotBytes: number) {
    const { heap } = this;
    const ranks = Array.from({ length: this.cp.size }, (_, r) => r);
    return {
      slots: ranks.map((r) => heap.block(`ring/${turn}/${r}`, slotBytes)),
      /** full[r] here: rank r's block has arrived. */
      full: ranks.map((r) => heap.flag(`ring/${turn}/full/${r}`)),
      /** free[r] here: rank r has read what this rank sent it (a credit). */
      free: ranks.map((r) => heap.flag(`ring/${turn}/free/${r}`, true)),
    };
  }

  override async takeWaits(): Promise<number[]> {
    if (!this.#waits) return [];
    const { device } = this;
    const words = await device.download(this.#waits);
    device.kernels.call("fillZero", this.#waits.address, words.byteLength, device.streams.compute);
    return [...new BigUint64Array(words.buffer)].map((nanoseconds) => Number(nanoseconds) / 1e6);
  }
}
