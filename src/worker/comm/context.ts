import { hostname } from "node:os";
import { DitrunError } from "../../failure.js";
import type { Plan } from "../../plan/schema.js";
import type { Device } from "../runtime/device.js";
import type { Store } from "../store.js";
import type { Group } from "./group.js";
import { NcclGroup } from "./nccl-group.js";
import { PeerGroup } from "./peer-group.js";
import { PeerHeap } from "./peer-heap.js";
import { SoloGroup } from "./solo-group.js";

/** The axes of the mesh; tp is the fastest, so its ranks sit closest. */
export const axes = ["world", "cfg", "cp", "tp"] as const;
export type Axis = (typeof axes)[number];

/** World ranks of the group along one axis that `rank` belongs to: rank = (cfgRank · cp + cpRank) · tp + tpRank. */
export function ranksAlong(axis: Axis, mesh: Plan["mesh"], rank: number): number[] {
  const { cfg, cp, tp } = mesh;
  const run = (count: number, start: number, stride: number) =>
    Array.from({ length: count }, (_, i) => start + i * stride);
  switch (axis) {
    case "world":
      return run(cfg * cp * tp, 0, 1);
    case "tp":
      return run(tp, rank - (rank % tp), 1);
    case "cp":
      return run(cp, rank - (rank % (cp * tp)) + (rank % tp), tp);
    case "cfg":
      return run(cfg, rank % (cp * tp), cp * tp);
  }
}

/** What every layer is given: the device, the plan, and the groups along each axis of the mesh. */
export class Context {
  private constructor(
    readonly device: Device,
    readonly plan: Plan,
    readonly heap: PeerHeap,
    readonly transport: "peer" | "nccl",
    private readonly groups: Readonly<Record<Axis, Group>>,
  ) {}

  get world(): Group {
    return this.groups.world;
  }
  get cfg(): Group {
    return this.groups.cfg;
  }
  get cp(): Group {
    return this.groups.cp;
  }
  get tp(): Group {
    return this.groups.tp;
  }

  /** Makes the groups. @throws DitrunError when the plan asks for peer copies between hosts, or NCCL fails. */
  static async create(device: Device, store: Store, plan: Plan): Promise<Context> {
    const transport = await chooseTransport(store, plan.ring.transport);
    const heap = new PeerHeap(device, store);
    const make = async (axis: Axis): Promise<Group> => {
      const ranks = ranksAlong(axis, plan.mesh, store.rank);
      const rank = ranks.indexOf(store.rank);
      if (ranks.length === 1) return new SoloGroup(device);
      if (transport === "nccl") return NcclGroup.create(axis, device, store, ranks, rank);
      return new PeerGroup(axis, device, heap, ranks, rank);
    };
    // One after the other: NCCL must see every rank make its groups in the same order.
    const world = await make("world");
    const cfg = await make("cfg");
    const cp = await make("cp");
    const tp = await make("tp");
    return new Context(device, plan, heap, transport, { world, cfg, cp, tp });
  }

  /** The same device and groups for layers of another plan with the same mesh. */
  withPlan(plan: Plan): Context {
    return new Context(this.device, plan, this.heap, this.transport, this.groups);
  }

  /** Runs the body once for its memory, then gives the arena and the peer heap theirs. */
  async prepare(body: () => void): Promise<void> {
    this.measure(body);
    await this.allocate();
  }

  /** Runs the body for its memory only. Until the memory is allocated it may need more than any before. */
  measure(body: () => void): void {
    this.device.measure(() => {
      this.world.barrier();
      body();
    });
  }

  /** Bytes that `allocate` will take, but for what other ranks need more of. */
  get measuredBytes(): number {
    return this.device.arena.peak + this.heap.reservedBytes;
  }

  /** Gives the arena and the peer heap what has been measured. */
  async allocate(): Promise<void> {
    this.device.backArena();
    await this.heap.open();
  }

  async close(): Promise<void> {
    await this.heap.close();
    for (const group of Object.values(this.groups)) if (group instanceof NcclGroup) group.close();
  }
}

/** Peer copies if every rank is on this host and the plan leaves the choice, NCCL if the ranks span hosts. */
async function chooseTransport(store: Store, wanted: Plan["ring"]["transport"]): Promise<"peer" | "nccl"> {
  if (wanted === "nccl") return "nccl";
  await store.put(`host/${store.rank}`, new TextEncoder().encode(hostname()));
  const hosts = new Set<string>();
  for (let rank = 0; rank < store.size; rank++) hosts.add(new TextDecoder().decode(await store.get(`host/${rank}`)));
  if (hosts.size === 1) return "peer";
  if (wanted === "auto") return "nccl";
  throw new DitrunError(
    "ERR_PLAN_TRANSPORT",
    `The plan's ring.transport is peer, but the ranks are on ${hosts.size} hosts (${[...hosts].join(", ")}): use nccl or auto.`,
  );
}
