import type { Plan } from "../../plan/schema.js";
import type { Device } from "../runtime/device.js";
import type { Store } from "../store.js";
import type { Group } from "./group.js";
import { type GroupName, groupAxes, groupNames, meshOf, ranksAlong } from "./mesh.js";
import { NcclGroup } from "./nccl/group.js";
import { PeerGroup } from "./peer/group.js";
import { PeerHeap } from "./peer/heap.js";
import { Peers } from "./peer/peers.js";
import { SoloGroup } from "./solo/group.js";
import { chooseTransports } from "./transport.js";

/** What every layer is given: the device, the plan, and the groups along the axes of the mesh. */
export class Context {
  private constructor(
    readonly device: Device,
    readonly plan: Plan,
    private readonly heap: PeerHeap,
    private readonly groups: ReadonlyMap<GroupName, Group>,
    /** The number of each rank's host. */
    private readonly hosts: readonly number[],
    /** Whether the groups' communicators are its own, and not those of the context that it was made from. */
    private readonly owner: boolean,
  ) {}

  /** All ranks. */
  get world(): Group {
    return this.#group("world");
  }
  /** Guidance parallel: each half computes one text's forward. */
  get cfg(): Group {
    return this.#group("cfg");
  }
  /** Context parallel: the ranks that share the tokens, along ring and ulysses. */
  get cp(): Group {
    return this.#group("cp");
  }
  /** Those of cp between which keys and values go round. */
  get ring(): Group {
    return this.#group("ring");
  }
  /** Those of cp that exchange tokens for heads. */
  get ulysses(): Group {
    return this.#group("ulysses");
  }
  /** Tensor parallel: the ranks that share heads and columns. */
  get tp(): Group {
    return this.#group("tp");
  }

  #group(name: GroupName): Group {
    const group = this.groups.get(name);
    if (!group) throw new Error(`There is no group ${name}.`);
    return group;
  }

  /**
   * Makes the groups, each over its own transport.
   * @param hosts the number of each rank's host, by rank; all are on one unless told. Only ranks of one host can read each other's memory.
   * @throws DitrunError when the plan asks for peer copies between hosts, or NCCL fails.
   */
  static async create(
    device: Device,
    store: Store,
    plan: Plan,
    hosts: readonly number[] = Array<number>(store.size).fill(0),
  ): Promise<Context> {
    if (hosts.length !== store.size) throw new Error(`${store.size} ranks have ${hosts.length} hosts.`);
    return Context.#make(device, store, plan, hosts);
  }

  /** The same mesh on a peer heap of its own, for work with memory of its own. NCCL's communicators are shared. */
  another(store: Store): Promise<Context> {
    return Context.#make(this.device, store, this.plan, this.hosts, this.groups);
  }

  static async #make(
    device: Device,
    store: Store,
    plan: Plan,
    hosts: readonly number[],
    shared?: ReadonlyMap<GroupName, Group>,
  ): Promise<Context> {
    const mesh = meshOf(plan.mesh);
    const { rank: own } = store;
    const transports = chooseTransports(plan, hosts);
    const host = hosts[own];
    const heap = new PeerHeap(
      device,
      store,
      hosts.flatMap((each, rank) => (each === host ? [rank] : [])),
    );
    const make = async (name: GroupName): Promise<Group> => {
      const ranks = ranksAlong(groupAxes[name], mesh, own);
      const rank = ranks.indexOf(own);
      if (ranks.length === 1) return new SoloGroup(device);
      const known = shared?.get(name);
      if (known && transports[name] === "nccl") return known;
      if (transports[name] === "nccl") return NcclGroup.create(name, device, store, ranks, rank);
      return new PeerGroup(new Peers(name, device, heap, ranks, rank));
    };
    const groups = new Map<GroupName, Group>();
    // One after the other: NCCL must see every rank make its groups in the same order.
    for (const name of groupNames) {
      const whole = name === "ring" || name === "ulysses" ? groups.get("cp") : undefined;
      const [size] = mesh.flatMap(({ axis, size }) => (axis === name ? [size] : []));
      groups.set(name, whole && whole.size === size ? whole : await make(name));
    }
    return new Context(device, plan, heap, groups, hosts, shared === undefined);
  }

  /** The same device and groups for layers of another plan with the same mesh. */
  withPlan(plan: Plan): Context {
    return new Context(this.device, plan, this.heap, this.groups, this.hosts, false);
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

  /** Gives the arena and the peer heap what has been measured. Weights that are still read have come then. */
  async allocate(): Promise<void> {
    await this.device.reader.settle();
    this.device.backArena();
    await this.heap.open();
  }

  /** Gives back the peer heap and what the groups hold; the device must be idle. */
  async close(): Promise<void> {
    await this.heap.close();
    if (this.owner) for (const group of new Set(this.groups.values())) group.close();
  }
}
