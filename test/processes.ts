import { readdirSync, readFileSync } from "node:fs";

/** The processes that run with this in their environment, as `NAME=value`, this one excepted. */
export function processesWith(variable: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      try {
        const runs = !/\) [ZX] /.test(readFileSync(`/proc/${name}/stat`, "utf8"));
        return runs && readFileSync(`/proc/${name}/environ`, "utf8").split("\0").includes(variable);
      } catch {
        return false;
      }
    })
    .map(Number);
}
