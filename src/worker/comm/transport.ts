import { DitrunError } from "../../failure.js";
import type { Plan } from "../../plan/schema.js";
import { MAX_KV_BLOCKS, MAX_PEERS } from "../runtime/abi.js";
import { type GroupName, groupAxes, groupNames, meshOf, ranksAlong } from "./mesh.js";

export type Transport = "peer" | "nccl";

/** In the order in which a group that spans hosts is named: the innermost says most. */
const namedFirst = ["tp", "cp", "cfg", "world"] as const satisfies readonly GroupName[];

/** Ranks that can share peer memory: one attention launch reads a block of keys from each rank of a ring. */
const mostPeers = (group: GroupName) => (group === "cp" || group === "ring" ? MAX_KV_BLOCKS : MAX_PEERS);

/**
 * What carries the messages of each group, the same on every rank. Where the plan leaves the choice: peer memory along an axis whose
 * groups each lie within one host and are not too large, else NCCL (TCP between CPUs). An axis is as fast as its slowest group, so one that spans hosts
 * decides for all of them.
 * @param hosts the number of each rank's host, by rank.
 * @throws DitrunError (usage) when the plan asks for peer memory and a group spans hosts.
 */
export function chooseTransports(
  { name, mesh: sizes, ring }: Pick<Plan, "name" | "mesh" | "ring">,
  hosts: readonly number[],
): Record<GroupName, Transport> {
  const mesh = meshOf(sizes);
  /** The ranks of the first group along these axes that spans hosts. */
  const spanning = (group: GroupName): number[] | undefined =>
    hosts
      .map((_, rank) => ranksAlong(groupAxes[group], mesh, rank))
      .find((ranks) => new Set(ranks.map((rank) => hosts[rank])).size > 1);
  const choose = (group: GroupName): Transport => {
    if (ring.transport !== "auto") return ring.transport;
    const tooMany = ranksAlong(groupAxes[group], mesh, 0).length > mostPeers(group);
    return spanning(group) || tooMany ? "nccl" : "peer";
  };
  const group = namedFirst.find(spanning);
  if (ring.transport === "peer" && group !== undefined) {
    const ranks = spanning(group) ?? [];
    const count = new Set(ranks.map((rank) => hosts[rank])).size;
    throw new DitrunError(
      "ERR_PLAN_TRANSPORT",
      `Plan ${name ?? "without a name"} has ring.transport peer, but ranks ${ranks.join(", ")} of its ${group} group are on ${count} hosts: use auto or nccl.`,
    );
  }
  const [world, cfg, cp, ringGroup, ulysses, tp] = groupNames.map(choose);
  if (!world || !cfg || !cp || !ringGroup || !ulysses || !tp) throw new Error("Every group has a transport.");
  return { world, cfg, cp, ring: ringGroup, ulysses, tp };
}
