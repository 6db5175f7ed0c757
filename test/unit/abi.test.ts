import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  ABI_VERSION,
  ATTENTION_WORKSPACE,
  FP8_KEYS,
  PEER_BLOCKS,
  prototypes,
  SHARE_UNIT,
  STATISTICS_PARTS,
  structs,
} from "../../src/worker/device/abi.js";

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

  it("has the same structs in the header and in kernels.ts", () => {
    const typedefs = header.matchAll(/^typedef struct \{([\s\S]*?)^\} (ditrun_\w+);/gm);
    const inHeader = [...typedefs].map(([, body = "", name]) => {
      const declarations = body.replace(/\/\*[\s\S]*?\*\//g, "").split(";");
      const fields = declarations.flatMap((declaration) => {
        const [, type = "", names = ""] = /^\s*(?:const )?(\w+(?: \*)?)\s*([\w, \n]+)$/.exec(declaration) ?? [];
        return names.split(",").flatMap((field) => (field.trim() === "" ? [] : [[field.trim(), type]]));
      });
      return [name, fields];
    });
    const bound = Object.entries(structs).map(([name, fields]) => [name, Object.entries(fields)]);
    expect(inHeader).toHaveLength(bound.length);
    for (const struct of bound) expect(inHeader).toContainEqual(struct);
  });

  it("has the same constants", () => {
    const constant = (name: string) => Number(new RegExp(`^#define ${name} (\\d+)`, "m").exec(header)?.[1]);
    expect([ABI_VERSION, ATTENTION_WORKSPACE, FP8_KEYS, STATISTICS_PARTS, PEER_BLOCKS, SHARE_UNIT]).toEqual(
      ["ABI_VERSION", "ATTENTION_WORKSPACE", "FP8_KEYS", "STATISTICS_PARTS", "PEER_BLOCKS", "SHARE_UNIT"].map((name) =>
        constant(`DITRUN_${name}`),
      ),
    );
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
