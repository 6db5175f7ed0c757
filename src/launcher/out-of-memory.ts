import { readFileSync } from "node:fs";

/** Processes that the kernel of this host has killed for want of memory since it started; undefined where it does not say. */
export function outOfMemoryKills(vmstat = "/proc/vmstat"): number | undefined {
  try {
    const [, count] = /^oom_kill (\d+)$/m.exec(readFileSync(vmstat, "utf8")) ?? [];
    return count === undefined ? undefined : Number(count);
  } catch {
    return undefined;
  }
}
