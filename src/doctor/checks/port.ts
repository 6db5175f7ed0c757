import type { Allocation } from "../../launcher/cluster/allocation.js";
import { defineCheck, type Finding } from "../check.js";
import { isUnset } from "../environment.js";
import { allocationOf } from "../host.js";
import { networkFailure, tryListening } from "../try-network.js";

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
    const by =
      leading === null && chosen !== null ? `MASTER_PORT=${chosen}` : number === 0 ? "a free port" : `${number}`;
    if (!isPort(number))
      return { state: "problem", value: `${by} is no port`, wayOut: "Unset it, or give it a number from 1 to 65535." };
    if (failure !== null) {
      const wayOut = chosen === null ? "Give another with --master-port." : "Unset MASTER_PORT, or give it another.";
      return { state: "problem", value: `${by} cannot be opened: ${failure}`, wayOut };
    }
    if (number === 0) return { state: "ok", value: "any free one, opened" };
    return { state: "ok", value: `${by}, opened${leading === null ? "" : ", where this host leads"}` };
  },
});

const isPort = (number: number) => Number.isInteger(number) && number >= 0 && number <= 65_535;

async function failureOf(number: number, address: string): Promise<string | null> {
  try {
    await tryListening(address, number);
    return null;
  } catch (error) {
    return networkFailure(error);
  }
}

function leadingPort(allocation: Allocation | undefined): number | null {
  const { nodes = 1, nodeRank, port: number } = allocation ?? {};
  return nodes > 1 && nodeRank === 0 ? (number ?? null) : null;
}
