import type { NcclGroup } from "../comm/nccl-group.js";
import type { Address } from "../device/abi.js";
import type { Device } from "../device/device.js";
import { attention } from "../device/ops.js";
import { matrixShape, type Tensor } from "../device/tensor.js";
import type { KeyValuePayload } from "./kv-payload.js";
import { RingOfPayloads, type RingSettings } from "./ring-of-payloads.js";

/**
 * Over NCCL: at each step a rank passes the block it holds to the next rank and receives one from the rank before, while it
 * attends to the block of the step before; partial results merge by log-sum-exp in float32 in the attention kernel's epilogue.
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
    const { rank, size } = this.cp;
    const { heads, kernel } = this.settings;
    const { vScale } = payload;
    const partial = {
      o: device.allocate("fp32", o.shape),
      lse: device.allocate("fp32", [heads, matrixShape(o).rows]),
    };
    const messageOf = (address: Address, step: number) => {
      const tokens = tokensOfRank[(rank - step + size) % size] ?? 0;
      return { address, tokens, bytes: payload.bytes(tokens) };
    };
    const own = messageOf(payload.address, 0);
    const held = [own];
    const arrivals: number[] = [];
    device.waitFor("copy", device.mark("compute"));
    for (let step = 1; step < size; step++) {
      const { address } = device.allocate("u8", [messageOf(0, step).bytes]);
      const arriving = messageOf(address, step);
      const sends = [{ ...(held.at(-1) ?? own), rank: (rank + 1) % size }];
      const receives = [{ ...arriving, rank: (rank - 1 + size) % size }];
      this.cp.exchange(sends, receives, "copy");
      arrivals.push(device.mark("copy"));
      held.push(arriving);
    }
    held.forEach(({ address, tokens }, step) => {
      const arrival = arrivals[step - 1];
      if (arrival !== undefined) device.waitFor("compute", arrival);
      const last = step === size - 1;
      attention(device, last ? o : partial.o, payload.q, [payload.blockOf(address, tokens)], {
        heads,
        kernel,
        vScale,
        lse: last ? undefined : partial.lse,
        previous: step > 0 ? partial : undefined,
      });
    });
  }
}
