import type { Axis, GroupName } from "../../models/walk/operation.js";
import type { Ground, Transport } from "../../models/walk/walk.js";
import { MOST_PEERS, MOST_RING_RANKS } from "../check.js";
import { meshSize, type Plan } from "../schema.js";
import type { Machine } from "./device.js";

/** The ranks along each axis, fastest first (worker/comm/mesh.ts): cp is a ring, and ulysses has one rank today. */
export function axesOf({ cfg, cp, tp }: Plan["mesh"]): readonly { readonly axis: Axis; readonly size: number }[] {
  return [
    { axis: "tp", size: tp },
    { axis: "ulysses", size: 1 },
    { axis: "ring", size: cp },
    { axis: "cfg", size: cfg },
  ];
}

/** Where a plan's groups lie on hosts. */
export interface Placement {
  /** Whether some group of it has ranks on several hosts. */
  readonly spans: Readonly<Record<GroupName, boolean>>;
  readonly transports: Readonly<Record<GroupName, Transport>>;
}

/** Workers of a host, ranks in order. */
export function workersPerHost({ mesh }: Plan, { hosts }: Pick<Machine, "hosts">): number {
  return Math.ceil(meshSize(mesh) / hosts);
}

/**
 * What carries each group's messages, as worker/comm/transport.ts chooses it: peer memory where all groups along an axis lie within
 * a host and are not too large, else NCCL.
 */
export function placementOf(plan: Plan, machine: Pick<Machine, "hosts">): Placement {
  const perHost = workersPerHost(plan, machine);
  const world = meshSize(plan.mesh);
  let stride = 1;
  const spans = { tp: false, ulysses: false, ring: false, cfg: false, world: world > perHost };
  const sizes = { tp: 1, ulysses: 1, ring: 1, cfg: 1, world };
  for (const { axis, size } of axesOf(plan.mesh)) {
    // Ranks of a group lie within blocks of stride · size ranks, which fill hosts without crossing them or do not.
    spans[axis] = size > 1 && world > perHost && perHost % (stride * size) !== 0;
    sizes[axis] = size;
    stride *= size;
  }
  const choose = (group: GroupName): Transport => {
    if (plan.ring.transport !== "auto") return plan.ring.transport;
    const most = group === "ring" ? MOST_RING_RANKS : MOST_PEERS;
    return spans[group] || sizes[group] > most ? "nccl" : "peer";
  };
  const transports = {
    ...{ tp: choose("tp"), ulysses: choose("ulysses"), ring: choose("ring"), cfg: choose("cfg") },
    world: choose("world"),
  };
  return { spans, transports };
}

/** What a walk asks of the machine. */
export function groundOf(placement: Placement, machine: Machine): Ground {
  const { name } = machine.device;
  const hopper = /H[12]00/.test(name);
  const isCpu = machine.device.processors === 1;
  return {
    transports: placement.transports,
    scalesByHead: (headDim) => isCpu || (hopper && headDim === 128),
  };
}
