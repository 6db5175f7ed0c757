import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DitrunError } from "../../../src/failure.js";
import { openGguf, readGgufValues } from "../../../src/formats/gguf.js";
import { toFloat32 } from "../../../src/formats/numbers.js";
import { openTensors } from "../../../src/formats/open-tensors.js";
import { type GgufTensor, ggmlTypes, gguf } from "../../gguf-files.js";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-gguf-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function written(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, bytes);
  return path;
}

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const vector: GgufTensor = { type: ggmlTypes.F32, shape: [3], data: floats(1, 2, 3) };
const rows: GgufTensor = {
  type: ggmlTypes.Q8_0,
  shape: [3, 64],
  data: Uint8Array.from({ length: 3 * 68 }, (_, i) => i),
};

test.each([2, 3])("version %i: dimensions are slowest first, and rows of blocks are read", async (version) => {
  const patch: GgufTensor = { type: ggmlTypes.F32, shape: [2, 1, 1, 2, 2], data: floats(1, 2, 3, 4, 5, 6, 7, 8) };
  const file = await openGguf(await written("good.gguf", gguf({ vector, rows, patch }, undefined, version)));
  expect(file.about).toMatchObject({ format: "GGUF" });
  expect(file.about.metadata.get("general.architecture")).toBe("wan");
  expect(file.info("rows")).toMatchObject({ dtype: "Q8_0", shape: [3, 64], byteLength: 204 });
  expect(file.info("patch").shape).toEqual([2, 1, 1, 2, 2]);
  expect([...toFloat32("F32", await file.read("patch", { dim: 0, start: 1, end: 2 }))]).toEqual([5, 6, 7, 8]);
  expect(await file.read("rows", { dim: 0, start: 1, end: 2 })).toEqual(rows.data.slice(68, 136));
  expect(await file.read("rows", { dim: 1, start: 32, end: 64 })).toEqual(
    Uint8Array.from([0, 1, 2].flatMap((row) => [...rows.data.slice(68 * row + 34, 68 * row + 68)])),
  );
  await expect(file.read("rows", { dim: 1, start: 16, end: 64 })).rejects.toThrow(/cuts a block of 32/);
  await file.close();
});

test("a shape that was stored elsewhere, and lists of the metadata", async () => {
  const metadata = {
    "comfy.gguf.orig_shape.rows": { ints: [3, 4, 16] },
    tokens: ["<pad>", "▁a"],
    scores: { floats: [0, -1.5] },
  };
  const path = await written("shaped.gguf", gguf({ rows }, metadata));
  const file = await openTensors(path);
  expect(file.info("rows")).toMatchObject({ shape: [3, 4, 16], byteLength: 204 });
  expect([...file.about.metadata.keys()]).toEqual([]);
  await file.close();
  const values = await readGgufValues(path, ["tokens", "scores"]);
  expect(values.get("tokens")).toEqual(["<pad>", "▁a"]);
  expect(values.get("scores")).toEqual([0, -1.5]);
});

describe("damaged and foreign files are one sentence", () => {
  const good = gguf({ vector });
  const changed = (at: number, ...bytes: number[]) =>
    Buffer.concat([good.subarray(0, at), Buffer.from(bytes), good.subarray(at + bytes.length)]);
  const cases: [string, Uint8Array, RegExp][] = [
    ["another beginning", changed(0, 0x58), /does not begin with GGUF/],
    ["version 1", gguf({ vector }, {}, 1), /is GGUF of version 1, .* versions 2 and 3 are read/],
    ["billions of tensors", changed(8, 0, 0, 0, 0, 1), /announces 4294967296 tensors, and at most 100000/],
    ["billions of values", changed(16, 0, 0, 0, 0, 1), /announces 4294967296 values/],
    ["a key without end", changed(24, 0, 0, 0, 0, 1), /the name of a value takes 4294967296 bytes/],
    ["a value of no type", changed(24 + 8 + 20, 77), /has the type 77, which is none/],
    ["cut off in its header", good.subarray(0, 60), /it ends at byte 60, in the middle of its header/],
    ["cut off in its data", good.subarray(0, good.length - 32), /is truncated: tensor vector ends at byte/],
    [
      "a type that is not read",
      gguf({ vector: { ...vector, type: ggmlTypes.IQ2_XXS } }),
      /has ggml's type IQ2_XXS, .* take a file in Q8_0/,
    ],
    ["rows that are no blocks", gguf({ rows: { ...rows, shape: [4, 51] } }), /rows are no multiple of a block of 32/],
    ["six dimensions", gguf({ vector: { ...vector, shape: [1, 1, 1, 1, 1, 3] } }), /has 6 dimensions; at most 5/],
    [
      "a shape of other numbers",
      gguf({ vector }, { "comfy.gguf.orig_shape.vector": { ints: [4] } }),
      /is F32 \[3\], but comfy.gguf.orig_shape.vector is \[4\]/,
    ],
  ];
  test.each(cases)("%s", async (name, bytes, message) => {
    const error: unknown = await openGguf(await written(name.replaceAll(" ", "-"), bytes)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DitrunError);
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain("\n");
  });
});

test("a file's kind is told by its beginning, not by its name", async () => {
  const file = await openTensors(await written("gguf.safetensors", gguf({ vector })));
  expect(file.about.format).toBe("GGUF");
  await file.close();
  await expect(openTensors(await written("some.dat", Buffer.alloc(64, 1)))).rejects.toThrow(/is no file of weights/);
});
