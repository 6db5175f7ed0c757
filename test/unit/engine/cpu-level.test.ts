import { describe, expect, test } from "vitest";
import { cpuLevelOf, thisCpuLevel } from "../../../src/engine/cpu-level.js";

const cpuinfo = (flags: string) => `processor\t: 0\nmodel name\t: One\nflags\t\t: ${flags}\nbugs\t\t: spectre_v1\n`;
const nehalem = "fpu sse sse2 ht syscall nx lm pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm";
const haswell = `${nehalem} fma movbe xsave avx f16c abm bmi1 avx2 bmi2`;

describe("the level of an x86-64 processor", () => {
  test.each([
    ["v3 with all that Haswell has", haswell, "x86-64-v3"],
    ["v3 with more than that", `${haswell} avx512f amx_tile`, "x86-64-v3"],
    ["v3 where a virtual machine hides lzcnt, which no module uses", haswell.replace(" abm", ""), "x86-64-v3"],
    ["v2 without one of v3's", haswell.replace(" fma", ""), "x86-64-v2"],
    ["v2 where a name only begins like one of v3's", haswell.replace(" avx2", " avx2_vnni"), "x86-64-v2"],
    ["v2 with all that Nehalem has", nehalem, "x86-64-v2"],
  ])("is %s", (_, flags, level) => {
    expect(cpuLevelOf(cpuinfo(flags))).toEqual({ level, lacks: [] });
  });

  test("is none below v2, and what it lacks is told", () => {
    const flags = haswell.replace(" sse4_2", "").replace(" popcnt", "");
    expect(cpuLevelOf(cpuinfo(flags))).toEqual({ level: undefined, lacks: ["popcnt", "sse4_2"] });
    expect(cpuLevelOf("Features\t: fp asimd\n").level).toBeUndefined();
  });

  test.runIf(process.arch === "x64")("can be told of this host", () => {
    expect(thisCpuLevel().level).toMatch(/^x86-64-v[23]$/);
  });
});
