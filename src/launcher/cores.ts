import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "./gpus.js";

/** torchrun's words (torch/numa/binding.py): a GPU's node, its socket, a part of the node for each rank, or one shared L3 cache. */
export const coreBindings = ["node", "socket", "exclusive", "core-complex"] as const;
export type CoreBinding = (typeof coreBindings)[number];

/** Cores of ranks, in the order of the GPUs given; undefined for a rank that may run anywhere. */
export interface BoundCores {
  readonly cores: readonly (string | undefined)[];
  /** What this host does not tell, where whole nodes stand for what was asked for. */
  readonly untold?: string;
}

/**
 * The cores that each rank keeps to, as the kernel writes them (`0-31,64-95`), of those that this process may use.
 * @param gpus of the ranks of this host, in order; undefined for one without.
 */
export function coresOf(binding: CoreBinding, gpus: readonly (Gpu | undefined)[], root = "/"): BoundCores {
  const host = new Topology(root);
  const nodes = gpus.map((gpu) => (gpu === undefined ? undefined : host.nodeOf(gpu)));
  const whole = nodes.map((node) => listOf(node === undefined ? [] : host.coresOfNode(node)));
  if (binding === "node") return { cores: whole };
  const parts = nodes.map((node, rank) => {
    if (node === undefined) return [];
    const sharing = nodes.flatMap((other, index) => (other === node ? [index] : []));
    return host.part(binding, node, sharing.indexOf(rank), sharing.length);
  });
  if (parts.every((part) => part !== undefined)) return { cores: parts.map((part) => listOf(part)) };
  return { cores: whole, untold: untold[binding] };
}

const untold = {
  socket: "this host does not tell its cores' sockets",
  exclusive: "a node has fewer cores than ranks, or this host does not tell them",
  "core-complex": "this host does not tell its cores' caches",
} as const;

/** What sysfs says of cores (Documentation/ABI/stable/sysfs-devices-system-cpu). */
class Topology {
  readonly #allowed: ReadonlySet<number> | undefined;

  constructor(private readonly root: string) {
    const [, list] = /^Cpus_allowed_list:\s*(\S+)/m.exec(this.#text("proc/self/status")) ?? [];
    this.#allowed = list === undefined ? undefined : new Set(coresIn(list));
  }

  /** Undefined where the host has one node, or does not say. */
  nodeOf({ address }: Gpu): number | undefined {
    const node = Number(this.#text(`sys/bus/pci/devices/${address}/numa_node`) || -1);
    return node < 0 ? undefined : node;
  }

  coresOfNode(node: number): number[] {
    return this.#usable(coresIn(this.#text(`sys/devices/system/node/node${node}/cpulist`)));
  }

  /** Of the rank that is the `index`-th of `count` at the node. Undefined where sysfs does not tell enough for it. */
  part(binding: Exclude<CoreBinding, "node">, node: number, index: number, count: number): number[] | undefined {
    const own = this.coresOfNode(node);
    if (own.length === 0) return [];
    switch (binding) {
      case "socket": {
        const socket = this.#of(own[0] ?? 0, "topology/physical_package_id");
        if (socket === "") return undefined;
        const all = coresIn(this.#text("sys/devices/system/cpu/online"));
        return this.#usable(all).filter((core) => this.#of(core, "topology/physical_package_id") === socket);
      }
      case "exclusive": {
        // The threads of a core stay together. The first ranks have one core more where they do not divide.
        const cores = this.#grouped(own, "topology/thread_siblings_list");
        if (cores === undefined || cores.length < count) return undefined;
        const least = Math.floor(cores.length / count);
        const more = cores.length % count;
        const from = index * least + Math.min(index, more);
        return cores.slice(from, from + least + (index < more ? 1 : 0)).flat();
      }
      case "core-complex": {
        const caches = this.#grouped(own, "cache/index3/shared_cpu_list");
        // The largest first: some of their cores may be kept from this process.
        return caches?.toSorted((a, b) => b.length - a.length)[index % caches.length];
      }
    }
  }

  /** The cores that have the same text there, in order. Undefined where one has none. */
  #grouped(cores: readonly number[], name: string): number[][] | undefined {
    const groups = new Map<string, number[]>();
    for (const core of cores) {
      const key = this.#of(core, name);
      if (key === "") return undefined;
      groups.set(key, [...(groups.get(key) ?? []), core]);
    }
    return [...groups.values()];
  }

  #of(core: number, name: string): string {
    return this.#text(`sys/devices/system/cpu/cpu${core}/${name}`);
  }

  #usable(cores: readonly number[]): number[] {
    return cores.filter((core) => this.#allowed?.has(core) ?? true);
  }

  #text(path: string): string {
    try {
      return readFileSync(join(this.root, path), "utf8").trim();
    } catch {
      return "";
    }
  }
}

/** The numbers of a list of the kernel's: `0-3,8`. */
function coresIn(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    return first === undefined
      ? []
      : Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index);
  });
}

function listOf(cores: readonly number[]): string | undefined {
  const ranges: [first: number, last: number][] = [];
  for (const core of [...cores].sort((a, b) => a - b)) {
    const range = ranges.at(-1);
    if (range?.[1] === core - 1) range[1] = core;
    else ranges.push([core, core]);
  }
  if (ranges.length === 0) return undefined;
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}
