import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../failure.js";
import { addressesOf, isLoopback, isOwnAddress, outsideAddresses } from "../cluster/addresses.js";
import type { Allocation } from "../cluster/allocation.js";
import type { Common } from "./followers.js";
import { curvePairs, makeJobKey } from "./job-key.js";
import { Leader } from "./leader.js";
import type { Located } from "./leader-link.js";
import { readMeeting, writeMeeting } from "./meeting-file.js";

/** How the hosts of an allocation find each other. */
export interface MeetOptions {
  readonly allocation: Allocation;
  /** That all hosts were given, and by which option or variable. */
  readonly key: { readonly value: string; readonly by: string } | undefined;
  /** A file that all hosts can read, where no key was given: node 0 writes a key into it, and where it is. */
  readonly meeting: string | undefined;
  /** This host's address for the others; else the one that they know, or all. */
  readonly localAddress: string | undefined;
  readonly timeoutSeconds: number;
}

const RETRY_MILLISECONDS = 500;
/** How long one of several addresses is tried. */
const TURN_MILLISECONDS = 2000;

/** Opens node 0's end. @throws DitrunError where it cannot listen, or the meeting cannot be written. */
export async function lead(
  options: MeetOptions,
  common: Common & { readonly host: string; readonly warn: (sentence: string) => void },
): Promise<{ readonly leader: Leader; readonly close: () => Promise<void> }> {
  const { allocation, meeting, timeoutSeconds, key = { value: makeJobKey(), by: "The job's key" } } = options;
  const address = await listeningAddress(options, common.warn);
  const keys = curvePairs(key.value, key.by);
  const port = meeting === undefined ? (allocation.port ?? 0) : 0;
  const leader = await Leader.open({ ...common, address, port, keys, timeoutSeconds });
  if (meeting === undefined) return { leader, close: async () => leader.close() };
  try {
    const addresses = address === "0.0.0.0" || address === "::" ? outsideAddresses() : [address];
    await writeMeeting(meeting, { addresses, port: leader.port, key: key.value });
  } catch (error) {
    leader.close();
    throw error;
  }
  return {
    leader,
    async close() {
      leader.close();
      await rm(meeting, { force: true }).catch(() => undefined);
    },
  };
}

/** Where a follower finds node 0, looked for anew whenever it is asked. */
export function locator({ allocation, key, meeting }: MeetOptions): () => Promise<Located> {
  const since = performance.now();
  let pairs: { readonly of: string; readonly keys: ReturnType<typeof curvePairs> } | undefined;
  return async () => {
    const found = meeting === undefined ? undefined : await readMeeting(meeting);
    const addresses = found?.addresses ?? (await addressesOf(allocation.leader ?? ""));
    const turn = Math.floor((performance.now() - since) / TURN_MILLISECONDS);
    const value = found?.key ?? key?.value ?? "";
    if (pairs?.of !== value) pairs = { of: value, keys: curvePairs(value, key?.by ?? meeting ?? "The job's key") };
    return {
      host: addresses[turn % addresses.length] ?? "",
      port: found?.port ?? allocation.port ?? 0,
      keys: pairs.keys,
      mayChange: found !== undefined,
    };
  };
}

/**
 * Node 0 listens at the address that the others were told, where that is its own; else at all of its addresses: behind a service's
 * address, or where its name leads to its own loopback, as Debian's /etc/hosts has it.
 */
async function listeningAddress(
  { allocation: { leader }, localAddress, meeting, timeoutSeconds }: MeetOptions,
  warn: (sentence: string) => void,
): Promise<string> {
  if (localAddress !== undefined) return localAddress;
  const all = outsideAddresses().some((address) => address.includes(".")) ? "0.0.0.0" : "::";
  if (leader === undefined) return all;
  // Whoever reads the meeting needs no name.
  const deadline = performance.now() + (meeting === undefined ? timeoutSeconds * 1000 : 0);
  for (;;) {
    try {
      const addresses = await addressesOf(leader);
      const own = addresses.find((address) => isOwnAddress(address));
      if (own === undefined) {
        warn(`${leader} is ${addresses.join(", ")}, which is no address of this host: it listens at all that it has.`);
        return all;
      }
      const named = leader === own || leader === "localhost";
      return isLoopback(own) && !named ? all : own;
    } catch (error) {
      // Its own name may be known only later, in Kubernetes for instance.
      if (performance.now() > deadline) {
        if (meeting === undefined)
          warn(`The name ${leader} is not known here (${messageOf(error)}): node 0 listens at all of its addresses.`);
        return all;
      }
      await sleep(RETRY_MILLISECONDS);
    }
  }
}

/** Whether an address of node 0 is this host's. */
export async function leaderIsHere(leader: string): Promise<boolean> {
  return (await addressesOf(leader)).some((address) => isOwnAddress(address));
}
