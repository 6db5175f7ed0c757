import { messageOf } from "../../failure.js";
import type { Allocation } from "../../launcher/cluster/allocation.js";
import { checkPort } from "../../launcher/free-port.js";
import { defineCheck, type Finding } from "../check.js";
import { isUnset } from "../environment.js";
import { allocationOf } from "../host.js";

interface Facts {
  /** MASTER_PORT; null where it is not set. */
  readonly chosen: string | null;
  /** Where host 0 of several listens; null where this is none. */
  readonly leading: number | null;
  /** Why nobody can listen there. */
  readonly failure: string | null;
}

/** The port of the rendezvous, by listening there. */
export const port = defineCheck({
  ...{ name: "port", section: "network", what: "Port", deadline: 5 },
  async look(host): Promise<Facts> {
    const { MASTER_PORT } = host.environment;
    const chosen = isUnset(MASTER_PORT) ? null : MASTER_PORT;
    const leading = leadingPort(allocationOf(host));
    const number = leading ?? Number(chosen ?? 0);
    const failure = isPort(number) ? await failureOf(number, leading === null ? "127.0.0.1" : "0.0.0.0") : null;
    return { chosen, leading, failure };
  },
  judge({ chosen, leading, failure }): Finding {
    const number = leading ?? Number(chosen ?? 0);
    const by = leading === null && chosen !== null ? `MASTER_PORT=${chosen}` : `${number}`;
    if (!isPort(number))
      return { state: "problem", value: `${by} is no port`, wayOut: "Unset it, or give it a number from 1 to 65535." };
    if (failure !== null) {
      const wayOut = chosen === null ? "Give another with --master-port." : "Unset MASTER_PORT, or give it another.";
      return { state: "problem", value: `${by} is not free: ${failure}`, wayOut };
    }
    if (number === 0) return { state: "ok", value: "any free one, opened" };
    return { state: "ok", value: `${by}, opened${leading === null ? "" : ", where this host leads"}` };
  },
});

const isPort = (number: number) => Number.isInteger(number) && number >= 0 && number <= 65_535;

async function failureOf(number: number, address: string): Promise<string | null> {
  try {
    await checkPort(number, address);
    return null;
  } catch (error) {
    // The message of Node.js within the launcher's: `listen EADDRINUSE: address already in use 127.0.0.1:29500`.
    return /\((?:listen )?(.*)\)/.exec(messageOf(error))?.[1] ?? messageOf(error);
  }
}

function leadingPort(allocation: Allocation | undefined): number | null {
  const { nodes = 1, nodeRank, port: number } = allocation ?? {};
  return nodes > 1 && nodeRank === 0 ? (number ?? null) : null;
}
