import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { MOST_PEERS, MOST_RING_RANKS } from "../../../src/plan/resolve.js";
import {
  ABI_VERSION,
  ATTENTION_WORKSPACE,
  activations,
  attentionKernels,
  deviceDtypes,
  distributions,
  FP8_KEYS,
  HANDLE_BYTES,
  memoryKinds,
  NCCL_ID_BYTES,
  PEER_BLOCKS,
  PEER_ERROR,
  prototypes,
  SHARE_UNIT,
  STATISTICS_PARTS,
  structs,
} from "../../../src/worker/runtime/abi.js";

// The header, the TypeScript binding and both modules must name the same functions.
const header = readFileSync("kernels/include/ditrun.h", "utf8");
const declared = [...header.matchAll(/^DITRUN_API [^(]*?\b(ditrun_\w+)\(/gm)].map(([, name]) => name).sort();

/** C declarations with white space, parameter directions and line breaks normalised. */
const normalised = (prototype: string) =>
  prototype
    .replace(/\b_Out_\s+/g, "")
    .replace(/\s+/g, " ")
    .replace(/\s*([(),*;])\s*/g, "$1")
    .replace(/;$/, "");

/** Of each struct of the header: its fields in order, with their C types. */
const structsOfHeader = new Map(
  [...header.matchAll(/^typedef struct \{([\s\S]*?)^\} (ditrun_\w+);/gm)].map(([, body = "", name = ""]) => {
    const declarations = body.replace(/\/\*[\s\S]*?\*\//g, "").split(";");
    const fields = declarations.flatMap((declaration) => {
      const [, type = "", names = ""] = /^\s*(?:const )?(\w+(?: \*)?)\s*([\w, \n]+)$/.exec(declaration) ?? [];
      return names
        .split(",")
        .flatMap((field): [string, string][] => (field.trim() === "" ? [] : [[field.trim(), type]]));
    });
    return [name, fields];
  }),
);

/** Names and values of an enum of the header, without DITRUN_. */
function enumOfHeader(name: string): [string, number][] {
  const body = new RegExp(`^enum ${name} \\{([^}]*)\\}`, "m").exec(header)?.[1] ?? "";
  const values = [...body.matchAll(/DITRUN_(\w+) = (\d+)/g)];
  expect(values.length).toBeGreaterThan(1);
  return values.map(([, word = "", value]) => [word, Number(value)]);
}

/** GemmArgs and KvBlock are ditrun_gemm_args and ditrun_kv_block, Conv3dArgs and Gemm as well. */
function cName(name: string): string {
  return `ditrun_${name.replace(/\B[A-Z]/g, (letter) => `_${letter}`).toLowerCase()}`;
}

/** How abi-arguments.ts writes a C type: addresses by that name, lists where the struct points to several. */
function typeScriptOf(type: string, field: string): string {
  if (type === "uint64_t") return field === "seed" ? "bigint" : "Address";
  if (type === "uint64_t *") return "Address[]";
  if (!type.endsWith(" *")) return "number";
  return `${type.replace(/^ditrun_| \*$/g, "").replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())}[]`;
}

describe("the C ABI", () => {
  it("declares functions", () => {
    expect(declared.length).toBeGreaterThan(40);
  });

  it("is bound in full by kernels.ts", () => {
    const bound = Object.values(prototypes).map((prototype) => /\b(ditrun_\w+)\(/.exec(prototype)?.[1]);
    expect(bound.sort()).toEqual(declared);
  });

  it("has the same parameters in the header and in kernels.ts", () => {
    const inHeader = new Set(
      [...header.matchAll(/^DITRUN_API ([^;]*);/gm)].map(([, declaration]) =>
        normalised(declaration ?? "").replace("void*destination", "uint8_t*destination"),
      ),
    );
    for (const prototype of Object.values(prototypes)) {
      const same = normalised(prototype).replace("char*json", "uint8_t*json");
      expect([...inHeader].map((text) => text.replace("char*json", "uint8_t*json"))).toContain(same);
    }
  });

  it("has the same structs in the header and in abi.ts", () => {
    expect(structsOfHeader.size).toBeGreaterThan(8);
    const bound = new Map(Object.entries(structs).map(([name, fields]) => [name, Object.entries(fields)]));
    expect(bound).toEqual(structsOfHeader);
  });

  it("has the same fields in the header and in abi-arguments.ts, lists where C has pointers", () => {
    const source = readFileSync("src/worker/runtime/abi-arguments.ts", "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
    const interfaces = [...source.matchAll(/export interface (\w+) \{([\s\S]*?)\n\}/g)];
    const found = interfaces.map(([, name = "", body = ""]) => {
      const fields = [...body.matchAll(/^ {2}(\w+): ([\w[\]]+);$/gm)].map(([, field, type]) => [field, type]);
      return [cName(name), fields];
    });
    const expected = [...structsOfHeader].map(([name, fields]) => [
      name,
      fields.map(([field, type]) => [field, typeScriptOf(type, field)]),
    ]);
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
  });

  it("has the same constants", () => {
    const constant = (name: string) => Number(new RegExp(`^#define DITRUN_${name} (\\d+)`, "m").exec(header)?.[1]);
    const inTypeScript = {
      ...{ ABI_VERSION, ATTENTION_WORKSPACE, FP8_KEYS, HANDLE_BYTES, NCCL_ID_BYTES, PEER_BLOCKS, SHARE_UNIT },
      ...{ STATISTICS_PARTS, MAX_PEERS: MOST_PEERS, MAX_KV_BLOCKS: MOST_RING_RANKS },
    };
    expect(inTypeScript).toEqual(Object.fromEntries(Object.keys(inTypeScript).map((name) => [name, constant(name)])));
  });

  // The header's names are shorter and in capitals: DITRUN_F32 is fp32.
  const enums = {
    ditrun_dtype: { F32: "fp32", BF16: "bf16", E4M3: "e4m3", F16: "fp16", I32: "i32", U8: "u8" },
    ditrun_activation: { IDENTITY: "identity", GELU: "gelu", GELU_TANH: "geluTanh", SILU: "silu" },
    ditrun_memory: { DEVICE_MEMORY: "device", PEER_MEMORY: "peer" },
    ditrun_random: { UNIFORM: "uniform", NORMAL: "normal" },
  };
  const inTypeScript = {
    ditrun_dtype: deviceDtypes,
    ditrun_activation: activations,
    ditrun_memory: memoryKinds,
    ditrun_random: distributions,
  };

  it.for(["ditrun_dtype", "ditrun_activation", "ditrun_memory", "ditrun_random"] as const)(
    "has the same %s",
    (name) => {
      const names: Record<string, string> = enums[name];
      const expected = enumOfHeader(name).map(([word, value]) => [names[word] ?? word, value]);
      expect(inTypeScript[name]).toEqual(Object.fromEntries(expected));
    },
  );

  it("has the same status for a peer that cannot be reached, and the same kernels of attention", () => {
    expect(Object.fromEntries(enumOfHeader("ditrun_status"))).toMatchObject({ OK: 0, PEER_ERROR });
    const listed =
      /int32_t kernel; *\/\* (0 the fastest that fits, [^*]*)\*\/\n {2}float scale;/.exec(header)?.[1] ?? "";
    const numbers = [...listed.matchAll(/(?:^|, )(\d) (the fastest|\w+)/g)].map(([, value, name = ""]) => [
      name === "the fastest" ? "auto" : name.replace("_", ""),
      Number(value),
    ]);
    expect(attentionKernels).toEqual(Object.fromEntries(numbers));
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
describe("the C ABI for Python, test/gpu/ditrun_abi.py", () => {
  const python = readFileSync("test/gpu/ditrun_abi.py", "utf8");
  const inPython: Record<string, string> = {
    ...{ uint64_t: "c_uint64", int64_t: "c_int64", int32_t: "c_int32", uint32_t: "c_uint32", float: "c_float" },
    "uint64_t *": "POINTER(c_uint64)",
  };
  const classOf = (type: string) => pascal(type.replace(/^ditrun_/, "").replace(/_args$/, ""));
  const pascal = (name: string) => name.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());

  it("has the same structs", () => {
    const classes = [...python.matchAll(/^class (\w+)\(Structure\):\n([\s\S]*?)\n\n/gm)];
    const found = classes.map(([, name = "", body = ""]) => {
      const runs = [...body.matchAll(/fields\("([^"]*)", (\w+|POINTER\(\w+\))\)|\("(\w+)", (\w+|POINTER\(\w+\))\)/g)];
      const fields = runs.flatMap(([, names, kind, single, type]) =>
        single === undefined ? (names ?? "").split(" ").map((field) => [field, kind]) : [[single, type]],
      );
      return [name, fields];
    });
    const expected = [...structsOfHeader].map(([name, fields]) => [
      classOf(name),
      fields.map(([field, type]) => [field, inPython[type] ?? `POINTER(${classOf(type.replace(/ \*$/, ""))})`]),
    ]);
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
  });

  it("has the same enums", () => {
    const lines = [...python.matchAll(/^([A-Z][A-Z0-9_, ]+) = range\((\d+)\)$/gm)];
    const found = lines.map(([, names = "", count]) => {
      const all = names.split(", ");
      expect(all).toHaveLength(Number(count));
      return all;
    });
    const expected = ["ditrun_dtype", "ditrun_activation", "ditrun_memory", "ditrun_random"].map((name) =>
      enumOfHeader(name).map(([word, value], index) => {
        expect(value).toBe(index);
        return word.replace(/_MEMORY$/, "");
      }),
    );
    expect(found).toEqual(expected);
  });

  it("has the same parameters, of all functions but those that describe the module", () => {
    const short: Record<string, string> = {
      ...{
        uint64_t: "U",
        int64_t: "L",
        int: "I",
        float: "c_float",
        uint32_t: "c_uint32",
        "float *": "POINTER(c_float)",
      },
      ...{ "uint64_t *": "POINTER(U)", "int64_t *": "POINTER(L)", "int *": "POINTER(I)", "void *": "c_void_p" },
      ...{ "uint8_t *": "c_char_p", "char *": "c_char_p" },
    };
    const expected = [...header.matchAll(/^DITRUN_API int ditrun_(\w+)\(([^;]*)\);/gm)].map(([, name, list = ""]) => {
      const parameters = list === "void" ? [] : list.split(",");
      const types = parameters.map((parameter) => {
        const [, type = "", star] = /^\s*(?:const )?(\w+) (\*?)\w+$/.exec(parameter) ?? [];
        const c = star ? `${type} *` : type;
        return short[c] ?? `POINTER(${classOf(type)})`;
      });
      return [name, types.join(", ")];
    });
    const table = /^SIGNATURES = \{([\s\S]*?)^\}/m.exec(python)?.[1] ?? "";
    const found = [...table.matchAll(/"(\w+)": \[([^\]]*)\]/g)].map(([, name, types]) => [name, types]);
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected.filter(([name]) => name !== "abi_version")));
  });
});
