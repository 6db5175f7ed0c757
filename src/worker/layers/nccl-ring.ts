import type { NcclGroup } from "../comm/nccl-group.js";
import { attention } from "../ops/attention.js";
import type { Device } from "../runtime/device.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import type { KeyValuePayload } from "./kv-payload.js";
import { passRound } from "./nccl-round.js";
import { RingOfPayloads, type RingSettings } from "./ring-of-payloads.js";

/**
 * Over NCCL: blocks go round from neighbour to neighbour, and while one is on its way a rank attends to the one before; partial
 * results merge by log-sum-exp in float32 in the attention kernel's epilogue.
 */
export class NcclRing extends RingOfPayloads {
  constructor(
    device: Device,
    private readonly cp: Pick<NcclGroup, "rank" | "size" | "exchange">,
    settings: RingSettings,
  ) {
    super(device, settings);
  }

  protected queue(o: Tensor, payload: KeyValuePayload, tokensOfRank: readonly number[]): void {
    const { device } = this;
    const { heads, kernel } = this.settings;
    const { vScale } = payload;
    const partial = {
      o: device.allocate("fp32", o.shape),
      lse: device.allocate("fp32", [heads, matrixShape(o).rows]),
    };
    const bytesOfRank = tokensOfRank.map((tokens) => payload.bytes(tokens));
    const held = passRound(device, this.cp, payload.address, bytesOfRank);
    held.forEach(({ rank, address, arrival }, step) => {
      if (arrival !== undefined) device.waitFor("compute", arrival);
      const last = step === held.length - 1;
      attention(device, last ? o : partial.o, payload.q, [payload.blockOf(address, tokensOfRank[rank] ?? 0)], {
        heads,
        kernel,
        vScale,
        lse: last ? undefined : partial.lse,
        previous: step > 0 ? partial : undefined,
      });
    });
  }
}
