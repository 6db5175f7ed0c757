import type { PeerGroup } from "../comm/peer-group.js";
import type { PeerHeap } from "../comm/peer-heap.js";
import { attention } from "../ops/attention.js";
import type { Device } from "../runtime/device.js";
import type { Tensor } from "../runtime/tensor.js";
import type { KeyValuePayload } from "./kv-payload.js";
import { PeerRounds } from "./peer-round.js";
import { RingOfPayloads, type RingSettings } from "./ring-of-payloads.js";

/**
 * Over peer memory: one round of messages a layer, and one attention launch that walks over the blocks in ring order, waiting on a
 * flag for each: one softmax state, no merge (ring order of arXiv 2310.01889; direct sends need no forwarding, since every pair of
 * GPUs of a host is linked).
 */
export class PeerRing extends RingOfPayloads {
  readonly #rounds: PeerRounds;
  #waits: Tensor | undefined;

  constructor(
    heap: PeerHeap,
    device: Device,
    private readonly cp: PeerGroup,
    settings: RingSettings,
  ) {
    super(device, settings);
    this.#rounds = new PeerRounds(heap, device, cp);
  }

  protected queue(o: Tensor, payload: KeyValuePayload, tokensOfRank: readonly number[]): void {
    const { device } = this;
    const { rank, size } = this.cp;
    const tokensOf = (r: number) => tokensOfRank[r] ?? 0;
    const { arrivals, finish } = this.#rounds.start(
      payload.address,
      tokensOfRank.map((tokens) => payload.bytes(tokens)),
    );
    const own = payload.blockOf(payload.address, tokensOf(rank));
    const others = arrivals.map(({ rank: r, address, flag }) => payload.blockOf(address, tokensOf(r), flag));
    if (!this.#waits) {
      this.#waits = device.allocatePersistent("i32", [size, 2]);
      device.clear(this.#waits);
    }
    const { heads, kernel } = this.settings;
    const { vScale } = payload;
    attention(device, o, payload.q, [own, ...others], { heads, kernel, vScale, waitNanoseconds: this.#waits.address });
    finish();
  }

  override async takeWaits(): Promise<number[]> {
    if (!this.#waits) return [];
    const { device } = this;
    const words = await device.download(this.#waits);
    device.clear(this.#waits);
    return [...new BigUint64Array(words.buffer)].map((nanoseconds) => Number(nanoseconds) / 1e6);
  }
}
