import { readFileSync } from "node:fs";

/** Levels of x86-64 that a release has a CPU module for, the fastest first (x86-64 psABI, micro-architecture levels). */
export const cpuLevels = ["x86-64-v3", "x86-64-v2"] as const;
export type CpuLevel = (typeof cpuLevels)[number];

/**
 * What each level adds to the one below, as Linux names it in /proc/cpuinfo: "pni" is SSE3. lzcnt ("abm") is left out of v3:
 * virtual machines may hide it, and the modules are compiled without it (kernels/cpu/CMakeLists.txt).
 */
const added: Readonly<Record<CpuLevel, readonly string[]>> = {
  "x86-64-v2": ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"],
  "x86-64-v3": ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"],
};

/**
 * The highest level that a processor has, and what it lacks for the lowest.
 * @param cpuinfo the text of /proc/cpuinfo: its first line of flags counts, since all cores of an x86-64 host have the same.
 */
export function cpuLevelOf(cpuinfo: string): {
  readonly level: CpuLevel | undefined;
  readonly lacks: readonly string[];
} {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.trim().split(/\s+/) ?? []);
  const missing = (level: CpuLevel) => added[level].filter((flag) => !flags.has(flag));
  const lacks = missing("x86-64-v2");
  if (lacks.length > 0) return { level: undefined, lacks };
  return { level: missing("x86-64-v3").length === 0 ? "x86-64-v3" : "x86-64-v2", lacks };
}

/** As cpuLevelOf, of this host. */
export function thisCpuLevel(): ReturnType<typeof cpuLevelOf> {
  return cpuLevelOf(readFileSync("/proc/cpuinfo", "utf8"));
}
