import type { LeaderMessage } from "../../protocol/node-messages.js";

/** A follower that has registered. */
export interface Member {
  readonly node: number;
  readonly host: string;
  /** `Host b (node 1)`. */
  readonly name: string;
  /** Workers that the host was asked for. */
  readonly workers: number | undefined;
  /** JSON about the host. */
  readonly offer: string;
  readonly lost: boolean;
  send(message: LeaderMessage): void;
}
