import { readFileSync } from "node:fs";

/** What the process may do, of proc_pid_limits(5): a number, or Infinity; undefined where nobody says. */
export function processLimit(name: string, text = limitsText()): number | undefined {
  const [, soft] = new RegExp(`^${name} +(\\S+)`, "m").exec(text) ?? [];
  return soft === undefined ? undefined : soft === "unlimited" ? Number.POSITIVE_INFINITY : Number(soft);
}

function limitsText(): string {
  try {
    return readFileSync("/proc/self/limits", "utf8");
  } catch {
    return "";
  }
}
