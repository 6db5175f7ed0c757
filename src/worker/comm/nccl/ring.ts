import type { Address } from "../../runtime/abi.js";
import type { Message, Ring, Round, Step } from "../ring.js";
import type { Communicator } from "./communicator.js";

/**
 * Over NCCL: a step for each message. On the copy stream each rank passes the message that it holds to the next rank and receives
 * one from the rank before, while the compute stream reads the one before. The messages live in the arena.
 */
export class NcclRing implements Ring {
  constructor(private readonly comm: Pick<Communicator, "device" | "rank" | "size" | "exchange">) {}

  start(message: Address, bytesOfRank: readonly number[]): Round {
    const { device, rank, size } = this.comm;
    let held: Message = { rank, address: message };
    const reading = <T>(body: () => T) => body();
    const steps: Step[] = [{ messages: [held], hold: () => {}, reading }];
    const bytesOf = (r: number) => bytesOfRank[r] ?? 0;
    device.waitFor("copy", device.mark("compute"));
    for (let step = 1; step < size; step++) {
      const from = (rank - step + size) % size;
      const { address } = device.allocate("u8", [bytesOf(from)]);
      this.comm.exchange(
        [{ address: held.address, bytes: bytesOf(held.rank), rank: (rank + 1) % size }],
        [{ address, bytes: bytesOf(from), rank: (rank - 1 + size) % size }],
        "copy",
      );
      held = { rank: from, address };
      const arrived = device.mark("copy");
      steps.push({ messages: [held], hold: () => device.waitFor("compute", arrived), reading });
    }
    // The compute stream has waited for the last exchange, and with it for every send.
    return { steps, finish: () => {} };
  }
}
