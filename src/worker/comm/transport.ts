import { DitrunError } from "../../failure.js";
import type { Plan } from "../../plan/schema.js";
import type { Store } from "../store.js";
import { type GroupName, groupAxes, groupNames, type Mesh, ranksAlong } from "./mesh.js";

export type Transport = "peer" | "nccl";

/** The host of every rank, by rank. */
export async function gatherHosts(store: Store, own: string): Promise<string[]> {
  await store.put(`host/${store.rank}`, new TextEncoder().encode(own));
  const hosts: string[] = [];
  for (let rank = 0; rank < store.size; rank++) hosts.push(new TextDecoder().decode(await store.get(`host/${rank}`)));
  return hosts;
}

/**
 * What carries the messages of each group, the same on every rank. Where the plan leaves the choice: peer copies along an axis whose
 * groups each lie within one host, else NCCL.
 * @param hosts of every rank.
 * @throws DitrunError (usage) when the plan asks for peer copies between hosts.
 */
export function chooseTransports(
  mesh: Mesh,
  hosts: readonly string[],
  wanted: Plan["ring"]["transport"],
): Record<GroupName, Transport> {
  const distinct = [...new Set(hosts)];
  if (wanted === "peer" && distinct.length > 1) {
    throw new DitrunError(
      "ERR_PLAN_TRANSPORT",
      `The plan's ring.transport is peer, but the ranks are on ${distinct.length} hosts (${distinct.join(", ")}): use nccl or auto.`,
    );
  }
  const choose = (name: GroupName): Transport => {
    if (wanted !== "auto") return wanted;
    const within = hosts.every((host, rank) => ranksAlong(groupAxes[name], mesh, rank).every((r) => hosts[r] === host));
    return within ? "peer" : "nccl";
  };
  const [world, cfg, cp, ring, ulysses, tp] = groupNames.map(choose);
  if (!world || !cfg || !cp || !ring || !ulysses || !tp) throw new Error("Every group has a transport.");
  return { world, cfg, cp, ring, ulysses, tp };
}
