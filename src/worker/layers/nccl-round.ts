import type { NcclGroup } from "../comm/nccl-group.js";
import type { Address, Handle } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";

/** One rank's message, here once the compute stream has waited for the mark; this rank's own is here from the start. */
export interface HeldMessage {
  /** Of the group. */
  readonly rank: number;
  readonly address: Address;
  readonly bytes: number;
  readonly arrival?: Handle;
}

/**
 * Queues a round of messages over NCCL on the copy stream, behind what the compute stream holds: at each step a rank passes the
 * message that it holds to the next rank and receives one from the rank before. The messages live in the arena.
 * @param bytesOfRank each rank's message.
 * @returns all messages in the order of their arrival: this rank's own, then that of the rank before, and so on.
 */
export function passRound(
  device: Device,
  group: Pick<NcclGroup, "rank" | "size" | "exchange">,
  message: Address,
  bytesOfRank: readonly number[],
): HeldMessage[] {
  const { rank, size } = group;
  let last: HeldMessage = { rank, address: message, bytes: bytesOfRank[rank] ?? 0 };
  const held = [last];
  device.waitFor("copy", device.mark("compute"));
  for (let step = 1; step < size; step++) {
    const from = (rank - step + size) % size;
    const bytes = bytesOfRank[from] ?? 0;
    const { address } = device.allocate("u8", [bytes]);
    group.exchange(
      [{ address: last.address, bytes: last.bytes, rank: (rank + 1) % size }],
      [{ address, bytes, rank: (rank - 1 + size) % size }],
      "copy",
    );
    last = { rank: from, address, bytes, arrival: device.mark("copy") };
    held.push(last);
  }
  return held;
}
