import { join } from "node:path";
import { type Host, textOf } from "./host.js";

type Controller = "memory" | "cpu" | "pids";

/**
 * The folders of this process's control groups for a controller, its own first and then those above it, of version 2 or 1.
 * In a container the root is all that can be seen.
 */
function foldersOf(host: Pick<Host, "root">, controller: Controller): string[] {
  const groups = textOf(host, "proc/self/cgroup") ?? "";
  const [, two] = /^0::(.*)$/m.exec(groups) ?? [];
  const [, one] = new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(.*)$`, "m").exec(groups) ?? [];
  const upwards = (base: string, path: string): string[] => {
    const parts = path.split("/").filter((part) => part !== "");
    return Array.from({ length: parts.length + 1 }, (_, index) => join(base, ...parts.slice(0, parts.length - index)));
  };
  return [
    ...(two === undefined ? [] : upwards("sys/fs/cgroup", two)),
    ...(one === undefined ? [] : upwards(`sys/fs/cgroup/${controller}`, one)),
  ];
}

/** The smallest number that a file has in any of the groups, of those that limit anything. */
function least(host: Pick<Host, "root">, controller: Controller, read: (folder: string) => number): number | null {
  const found = foldersOf(host, controller).map(read);
  const limits = found.filter((value) => Number.isFinite(value) && value > 0);
  return limits.length === 0 ? null : Math.min(...limits);
}

const numberIn = (host: Pick<Host, "root">, path: string) => Number.parseFloat(textOf(host, path) ?? "");

/** Bytes of memory that the groups still allow; null where they do not limit it. Cached files count as free. */
export function memoryLeft(host: Pick<Host, "root">): number | null {
  return least(host, "memory", (folder) => {
    const [most, used] = [
      ["memory.max", "memory.current"],
      ["memory.limit_in_bytes", "memory.usage_in_bytes"],
    ]
      .map((names) => names.map((name) => numberIn(host, join(folder, name))))
      .find(([limit]) => Number.isFinite(limit)) ?? [Number.NaN];
    const files = Number(
      /^(?:total_)?inactive_file (\d+)$/m.exec(textOf(host, join(folder, "memory.stat")) ?? "")?.[1] ?? 0,
    );
    // Version 1 writes almost 2^63 for no limit.
    if (most === undefined || used === undefined || most > 2 ** 60) return Number.NaN;
    return Math.max(1, most - used + files);
  });
}

/** Cores that the groups allow at once, as 1.5; null where they do not limit them. */
export function coresAllowed(host: Pick<Host, "root">): number | null {
  return least(host, "cpu", (folder) => {
    const [quota, period] = (textOf(host, join(folder, "cpu.max")) ?? "").split(" ").map(Number);
    if (quota && period) return quota / period;
    return numberIn(host, join(folder, "cpu.cfs_quota_us")) / numberIn(host, join(folder, "cpu.cfs_period_us"));
  });
}

/** Threads and processes that the groups allow, and that are there in that group; null where they do not limit them. */
export function threadsAllowed(host: Pick<Host, "root">): { readonly most: number; readonly used: number } | null {
  const limits = foldersOf(host, "pids")
    .map((folder) => ({
      most: numberIn(host, join(folder, "pids.max")),
      used: numberIn(host, join(folder, "pids.current")),
    }))
    .filter(({ most, used }) => most > 0 && used > 0);
  return limits.toSorted((a, b) => a.most - a.used - (b.most - b.used))[0] ?? null;
}
