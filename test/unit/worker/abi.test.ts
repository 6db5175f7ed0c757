import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { afterAll, describe, expect, it } from "vitest";
import { MOST_PEERS, MOST_RING_RANKS } from "../../../src/plan/check.js";
import * as abi from "../../../src/worker/runtime/abi.generated.js";
import { defineStructs } from "../../../src/worker/runtime/abi.js";

const headerFile = "kernels/include/ditrun.h";
const header = readFileSync(headerFile, "utf8");
const declared = [...header.matchAll(/^DITRUN_API [^(]*?\b(ditrun_\w+)\(/gm)].map(([, name]) => name).sort();

const folder = mkdtempSync(join(tmpdir(), "ditrun-abi-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function generate(root: string, ...flags: string[]) {
  return spawnSync("node", [join(root, "kernels/abi/generate.js"), ...flags], { encoding: "utf8" });
}

describe("the twins of the C ABI", () => {
  it("are what the generator makes of the header", () => {
    expect(generate(".", "--check")).toMatchObject({ status: 0, stderr: "" });
  });

  it("are stale after a change of the header, until they are written again", () => {
    for (const part of ["kernels/abi", "kernels/include", "test/gpu/ditrun_abi_generated.py"]) {
      cpSync(part, join(folder, part), { recursive: true });
    }
    cpSync("package.json", join(folder, "package.json"));
    mkdirSync(join(folder, "src/worker/runtime"), { recursive: true });
    const twin = "src/worker/runtime/abi.generated.ts";
    cpSync(twin, join(folder, twin));
    expect(generate(folder, "--check").status).toBe(0);
    writeFileSync(join(folder, headerFile), header.replace("int64_t lda, ldw,", "int64_t lda, ldx, ldw,"));
    const stale = generate(folder, "--check");
    expect(stale.status).toBe(1);
    expect(stale.stderr).toContain("abi.generated.ts is not what kernels/include/ditrun.h says");
    expect(stale.stderr).toContain("ditrun_abi_generated.py is not what kernels/include/ditrun.h says");
    expect(generate(folder).status).toBe(0);
    expect(generate(folder, "--check").status).toBe(0);
    expect(readFileSync(join(folder, twin), "utf8")).toContain("  readonly ldx: number;\n  readonly ldw: number;");
  });

  it("are not written of a header that the generator does not understand", () => {
    writeFileSync(join(folder, headerFile), header.replace("  float alpha;", "  float alpha[2];"));
    const { status, stderr } = generate(folder);
    expect(status).toBe(1);
    expect(stderr).toContain("in no form that the generator knows: float alpha[2]");
  });
});

const structs: [string, Readonly<Record<string, string>>][] = Object.entries(abi.structs);
const enums = {
  ...{ dtype: abi.deviceDtypes, activation: abi.activations, memory: abi.memoryKinds, random: abi.distributions },
  ...{ kernel: abi.attentionKernels, status: abi.statuses, stored: abi.storedKinds },
};

describe("the C ABI for TypeScript", () => {
  it("declares each function of the header", () => {
    const bound = Object.values(abi.prototypes).map((prototype) => /\b(ditrun_\w+)\(/.exec(prototype)?.[1]);
    expect(declared.length).toBeGreaterThan(40);
    expect(bound.sort()).toEqual(declared);
  });

  it("has functions, structs and limits as a C++ compiler reads them", () => {
    defineStructs();
    const layouts = structs.flatMap(([name, fields]) => [
      `static_assert(sizeof(${name}) == ${koffi.sizeof(name)});`,
      ...Object.entries(fields).flatMap(([field, type]) => [
        `static_assert(offsetof(${name}, ${field}) == ${koffi.offsetof(name, field)});`,
        // A list's elements may be const in the header, of which the twin says nothing.
        type.endsWith("*")
          ? `static_assert(std::is_convertible_v<${type}, decltype(${name}::${field})>);`
          : `static_assert(std::is_same_v<${type}, decltype(${name}::${field})>);`,
      ]),
    ]);
    const functions = Object.values(abi.prototypes).map((prototype) => {
      const [, result = "", name = "", list = ""] = /^(.*?)\s*(ditrun_\w+)\((.*)\)$/.exec(prototype) ?? [];
      // Bytes that are written to are uint8_t for koffi, and text or of any type in the header.
      const bytes = { ditrun_device_info: "char", ditrun_download: "void" }[name];
      const types = list.replace(/_Out_ uint8_t \*/, (out) => (bytes ? `${bytes} *` : out)).replace(/_Out_ /g, "");
      return `static_assert(std::is_same_v<decltype(${name}), ${result}(${types})>);`;
    });
    const limits = [...header.matchAll(/^#define DITRUN_(\w+) \d/gm)].map(([, name = ""]) => name);
    expect(limits.length).toBeGreaterThan(8);
    const values = limits.map((name) => `static_assert(DITRUN_${name} == ${Object(abi)[name]});`);
    const source = join(folder, "abi.cpp");
    const includes = ["#include <cstddef>", "#include <type_traits>", '#include "ditrun.h"'];
    writeFileSync(source, [...includes, ...layouts, ...functions, ...values].join("\n"));
    const compile = ["-std=c++20", "-fsyntax-only", "-Ikernels/include", source];
    expect(spawnSync("g++", compile, { encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
  });

  it.for(Object.entries(enums))("has each value of ditrun_%s, by its place", ([name, values]) => {
    const body = new RegExp(`^enum ditrun_${name} \\{([^}]*)\\}`, "m").exec(header)?.[1] ?? "";
    expect([...body.matchAll(/DITRUN_\w+ = (\d+)/g)].map(([, value]) => Number(value))).toEqual(Object.values(values));
  });

  it("has the words of plans and checkpoints for them", () => {
    expect(abi.deviceDtypes).toEqual({ fp32: 0, bf16: 1, e4m3: 2, fp16: 3, i32: 4, u8: 5 });
    expect(abi.activations).toEqual({ identity: 0, gelu: 1, geluTanh: 2, silu: 3 });
    expect(abi.memoryKinds).toEqual({ device: 0, peer: 1 });
    expect(abi.distributions).toEqual({ uniform: 0, normal: 1 });
    expect(abi.attentionKernels).toEqual({ auto: 0, generic: 1, sm80: 2, sm90: 3 });
    expect(abi.storedKinds).toMatchObject({ F32: 0, F8_E4M3: 4, Q8_0: 7, IQ4_XS: 18 });
    expect(abi.statuses).toMatchObject({ ok: 0, peerError: 6, fileError: 7 });
  });

  it("allows as many ring ranks and peers as plans do", () => {
    expect([abi.MAX_KV_BLOCKS, abi.MAX_PEERS]).toEqual([MOST_RING_RANKS, MOST_PEERS]);
  });

  for (const module of ["cpu", "cuda"]) {
    const file = `build/libditrun_${module}.so`;
    it.skipIf(!existsSync(file))(`is exported in full by the ${module} module, and nothing else is`, () => {
      const symbols = execFileSync("nm", ["-D", "--defined-only", file], { encoding: "utf8" });
      const exported = [...symbols.matchAll(/ T (\w+)$/gm)]
        .map(([, name]) => name)
        .filter((name) => name?.startsWith("ditrun"));
      expect(exported.sort()).toEqual(declared);
    });
  }
});

// Read as text: a machine that runs these tests may have no Python.
describe("the C ABI for Python", () => {
  const python = readFileSync("test/gpu/ditrun_abi_generated.py", "utf8");
  const className = (name: string) =>
    name.replace(/^ditrun_|_args$/g, "").replace(/(?:^|_)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  const pythonType = (type: string) => {
    const [, base = "", star] = /^(\w+)( \*)?$/.exec(type) ?? [];
    const plain = base.startsWith("ditrun_") ? className(base) : `c_${base.replace(/_t$/, "")}`;
    return star ? `POINTER(${plain})` : plain;
  };

  it("has the same structs", () => {
    const classes = [...python.matchAll(/^class (\w+)\(Structure\):\n {4}_fields_ = \[\n([\s\S]*?)\n {4}\]/gm)];
    const found = classes.map(([, name = "", body = ""]) => [
      name,
      [...body.matchAll(/\("(\w+)", (.+)\),/g)].map(([, field, type]) => [field, type]),
    ]);
    const expected = structs.map(([name, fields]) => [
      className(name),
      Object.entries(fields).map(([field, type]) => [field, pythonType(type)]),
    ]);
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
  });

  it("has as many parameters of every function that returns a status", () => {
    const table = /^SIGNATURES = \{([\s\S]*?)^\}/m.exec(python)?.[1] ?? "";
    const count = (list = "") => list.split(",").filter((item) => item.trim() !== "" && item !== "void").length;
    const found = [...table.matchAll(/"(\w+)": \[([^\]]*)\]/g)].map(([, name, types]) => [name, count(types)]);
    const describing = ["abi_version", "module", "last_error"];
    const expected = Object.values(abi.prototypes)
      .map((prototype) => /ditrun_(\w+)\((.*)\)$/.exec(prototype) ?? [])
      .filter(([, name = ""]) => !describing.includes(name))
      .map(([, name, list]) => [name, count(list)]);
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
  });
});
