import { waitFlags } from "../ops/peer.js";
import type { Address } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";

/** One rank's message, as this rank reads it. */
export interface Message {
  /** Of the group. */
  readonly rank: number;
  readonly address: Address;
  /** Where a word becomes 1 once the message is here: the launch that reads it waits for that itself. Without one it is here already. */
  readonly flag?: Address;
}

/** Messages that one launch reads. */
export interface Step {
  readonly messages: readonly Message[];
  /** To be called before the launch that reads them: holds the compute stream until those without a flag are here. */
  hold(): void;
  /** Runs the body, the launch that reads them, so that a recording knows whose messages it waits for inside. */
  reading<T>(body: () => T): T;
}

/** Every rank's message, on its way to every other. */
export interface Round {
  /** All messages in ring order: this rank's own first, then that of the rank before it, and so on. */
  readonly steps: readonly Step[];
  /** Once all that reads the messages is queued: lets the ranks send again, and this rank reuse its message's memory. */
  finish(): void;
}

/** Rounds of messages between the ranks of a group: each rank's message goes to all others, while the compute stream works on. */
export interface Ring {
  /**
   * Queues what moves the messages, behind what the compute stream holds.
   * @param message this rank's, in device memory. @param bytesOfRank the length of each rank's message, the same list on every rank.
   */
  start(message: Address, bytesOfRank: readonly number[]): Round;
}

/** Holds the compute stream until every message of a round is here, in place of the launches that read them. */
export function awaitRound(device: Device, { steps }: Round): void {
  for (const step of steps) {
    step.hold();
    for (const { flag } of step.messages) if (flag !== undefined) waitFlags(device, [flag], { reset: false });
  }
}
