import { mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DitrunError } from "../../../src/failure.js";
import { toFloat32 } from "../../../src/formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../../src/formats/safetensors.js";
import { expectShape, type Slice } from "../../../src/formats/tensor-file.js";

const golden = new URL("../../golden/data/", import.meta.url).pathname;
let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-safetensors-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** Writes header and data bytes as they are, valid or not. */
async function raw(name: string, header: unknown, data: Uint8Array, length?: number): Promise<string> {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(length ?? json.byteLength));
  const path = join(dir, name);
  await writeFile(path, Buffer.concat([prefix, json, data]));
  return path;
}

async function short(name: string, data: Uint8Array): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, data);
  return path;
}

/** The slice of a row-major array, element by element: the plain way. */
function sliceOf(values: readonly number[], shape: readonly number[], { dim, start, end }: Slice): number[] {
  const inner = shape.slice(dim + 1).reduce((a, b) => a * b, 1);
  const size = shape[dim] ?? 0;
  return values.filter((_, i) => {
    const index = Math.floor(i / inner) % size;
    return start <= index && index < end;
  });
}

describe("reading", () => {
  test("a file written elsewhere: names, dtypes, shapes, values", async () => {
    const file = await openSafetensors(join(golden, "dit/case.safetensors"));
    expect(file.names()).toContain("output");
    expect(file.info("img")).toMatchObject({ dtype: "F32", shape: [1, 4, 128, 128], byteLength: 4 * 4 * 128 * 128 });
    expect(file.info("y")).toMatchObject({ dtype: "I64", shape: [1], byteLength: 8 });
    // pos[0, :] is the embedding of row 0, column 0: sines are 0, cosines are 1 (two halves of 32 + 32).
    const pos = toFloat32("F32", await file.read("pos", { dim: 0, start: 0, end: 1 }));
    const half = [...Array(32).fill(0), ...Array(32).fill(1)];
    expect([...pos]).toEqual([...half, ...half]);
    await file.close();
  });

  test("slices along every dimension, in every dtype width, equal the plain ones", async () => {
    const shape = [3, 4, 5];
    const values = Array.from({ length: 60 }, (_, i) => i);
    const path = join(dir, "widths.safetensors");
    await writeSafetensors(path, {
      bytes: { dtype: "U8", shape, data: Uint8Array.from(values) },
      shorts: { dtype: "BF16", shape, data: Uint16Array.from(values) },
      floats: { dtype: "F32", shape, data: Float32Array.from(values) },
      doubles: { dtype: "F64", shape, data: Float64Array.from(values) },
    });
    const views = { bytes: Uint8Array, shorts: Uint16Array, floats: Float32Array, doubles: Float64Array };
    const file = await openSafetensors(path);
    let compared = 0;
    for (const [name, View] of Object.entries(views))
      for (const [dim, size] of shape.entries())
        for (let start = 0; start <= size; start++)
          for (let end = start; end <= size; end++) {
            const bytes = await file.read(name, { dim, start, end });
            expect([...new View(bytes.slice().buffer)]).toEqual(sliceOf(values, shape, { dim, start, end }));
            compared++;
          }
    expect(compared).toBe(4 * (10 + 15 + 21));
    await file.close();
  });

  test("a column slice that needs several chunks, and one whose runs are long", async () => {
    // 3000 rows of 3000 floats: 36 MB, row stride 12 kB; 3 rows of 300000: runs above the limit for gathering.
    for (const [rows, columns] of [
      [3000, 3000],
      [3, 300_000],
    ] as const) {
      const data = new Float32Array(rows * columns);
      for (let i = 0; i < data.length; i++) data[i] = i;
      const path = join(dir, "large.safetensors");
      await writeSafetensors(path, { w: { dtype: "F32", shape: [rows, columns], data } });
      const file = await openSafetensors(path);
      const [start, end] = [Math.floor(columns / 3), Math.floor(columns / 3) * 2];
      const part = toFloat32("F32", await file.read("w", { dim: 1, start, end }));
      const width = end - start;
      expect(part.length).toBe(rows * width);
      let wrong = 0;
      for (let i = 0; i < part.length; i++)
        if (part[i] !== data[Math.floor(i / width) * columns + start + (i % width)]) wrong++;
      expect(wrong).toBe(0);
      await file.close();
    }
  });

  test("into a buffer of the caller's; a wrong length or slice is refused", async () => {
    const path = join(dir, "into.safetensors");
    await writeSafetensors(path, { w: { dtype: "F32", shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) } });
    const file = await openSafetensors(path);
    const target = new Float32Array(4);
    const bytes = new Uint8Array(target.buffer, 8, 8);
    expect(await file.read("w", { dim: 1, start: 1, end: 2 }, bytes)).toBe(bytes);
    expect([...target]).toEqual([0, 0, 2, 4]);
    await expect(file.read("w", undefined, bytes)).rejects.toThrow(/has 16 bytes, but the buffer given for it has 8/);
    await expect(file.read("w", { dim: 1, start: 1, end: 3 })).rejects.toThrow(
      /\[1, 3\) of dimension 1 .* F32 \[2, 2\]/,
    );
    await expect(file.read("w", { dim: 2, start: 0, end: 1 })).rejects.toThrow(/dimension 2/);
    await expect(file.read("w", { dim: 0, start: 0.5, end: 1 })).rejects.toThrow(/outside/);
    await file.close();
  });

  test("scalars and empty tensors", async () => {
    const path = join(dir, "scalar.safetensors");
    await writeSafetensors(path, {
      scalar: { dtype: "F32", shape: [], data: Float32Array.of(7) },
      empty: { dtype: "F32", shape: [0, 3], data: new Float32Array(0) },
    });
    const file = await openSafetensors(path);
    expect([...toFloat32("F32", await file.read("scalar"))]).toEqual([7]);
    expect((await file.read("empty")).byteLength).toBe(0);
    await file.close();
  });

  test("expectShape says tensor, expected and found", async () => {
    const file = await openSafetensors(join(golden, "dit/case.safetensors"));
    expect(expectShape(file, "pos", [256, 128], ["F32", "BF16"]).dtype).toBe("F32");
    expect(() => expectShape(file, "pos", [256, 64])).toThrow(
      /case.safetensors: tensor pos .* \[256, 64\].* \[256, 128\]/,
    );
    expect(() => expectShape(file, "pos", [256, 128], "BF16")).toThrow(/should be BF16, but it is F32/);
    expect(() => expectShape(file, "block.9.attn", [1])).toThrow(/no tensor block.9.attn/);
    await file.close();
  });
});

describe("malformed files get one sentence", () => {
  const entry = (begin: number, end: number, shape = [2], dtype = "F32") => ({
    dtype,
    shape,
    data_offsets: [begin, end],
  });
  const data = new Uint8Array(16);
  const twice = `{"w":${JSON.stringify(entry(0, 8))},"w":${JSON.stringify(entry(0, 16, [4]))}}`;
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0f".repeat(32)}\nsize 567\n`;
  const cases: [string, () => Promise<string>, RegExp][] = [
    ["missing", async () => join(dir, "nowhere"), /Cannot open .*nowhere: there is no such file/],
    ["a directory", async () => dir, /not a regular file/],
    ["empty", async () => short("e", Buffer.from([0, 1, 2])), /has 3 bytes/],
    ["nothing", async () => short("n", Buffer.alloc(0)), /is empty: copy or download it again/],
    ["an answer", async () => short("a", Buffer.from("Entry not found")), /15 bytes of text .*"Entry not found"/],
    [
      "a web page",
      async () => short("h", Buffer.from(`\n<!DOCTYPE html>${" ".repeat(2000)}`)),
      /is a web page that was saved/,
    ],
    ["half a download", async () => short("b.incomplete", Buffer.alloc(4096)), /is a download that has not ended/],
    ["absurd header length", () => raw("l", "{}", data, 2 ** 40), /announce a header of 1099511627776 bytes/],
    ["header cut off", () => raw("c", "{}", data, 500), /truncated: its header needs 508 bytes, but the file has 26/],
    ["not JSON", () => raw("j", "{nope", data), /header of 5 bytes that cannot be read/],
    ["not UTF-8", () => raw("u", "", Uint8Array.of(0xff, 0xfe), 2), /header of 2 bytes that cannot be read/],
    ["not an object", () => raw("a", [1], data), /it is not a JSON object/],
    [
      "entry malformed",
      () => raw("m", { w: { dtype: "F32", shape: [-1], data_offsets: [0, 4] } }, data),
      /tensor w .* shape/,
    ],
    ["unknown dtype", () => raw("d", { w: entry(0, 8, [2], "F4") }, data), /tensor w has the dtype F4/],
    ["size mismatch", () => raw("s", { w: entry(0, 12) }, data), /F32 \[2\] and should have 8 bytes, .* hold 12/],
    ["past the end", () => raw("p", { w: entry(12, 20) }, data), /truncated: tensor w ends at byte/],
    [
      "bytes behind the last tensor",
      () => raw("t", { w: entry(0, 8) }, data),
      /tensors end at byte \d+, .* file has \d+/,
    ],
    ["a hole", () => raw("h", { a: entry(0, 4, [1]), b: entry(8, 16) }, data), /bytes 4 to 8 of the data belong to no/],
    [
      "a hole before the first",
      () => raw("b", { w: entry(8, 16) }, data),
      /bytes 0 to 8 of the data belong to no tensor/,
    ],
    [
      "an empty tensor inside another",
      () => raw("z", { a: entry(0, 16, [4]), b: entry(4, 4, [0]) }, data),
      /a and b overlap/,
    ],
    ["a name twice", () => raw("n", twice, data), /two entries for tensor w/],
    [
      "a name twice in other letters",
      () => raw("n2", twice.replace('"w"', '"\\u0077"'), data),
      /two entries for tensor w/,
    ],
    ["nested too deeply", () => raw("deep", `{"a":${"[".repeat(1000)}`, data), /nested more than 3 deep/],
    [
      "too many entries",
      () => raw("many", `{${Array.from({ length: 100_001 }, (_, i) => `"${i}":0`).join()}}`, data),
      /more than 100000 entries/,
    ],
    ["too many dimensions", () => raw("dims", { w: entry(0, 8, Array(65).fill(1)) }, data), /malformed at shape/],
    [
      "control characters in a name",
      () => raw("esc", { "\u001b[2J\nx": entry(0, 8) }, data),
      /named "\\u001b\[2J\\nx"/,
    ],
    [
      "an endless name",
      () => raw("long", { ["n".repeat(251)]: entry(0, 8) }, data),
      /names of tensors have at most 250/,
    ],
    ["control characters in a dtype", () => raw("d2", { w: entry(0, 8, [2], "\u0007") }, data), /the dtype \\u0007;/],
    ["control characters in what is no JSON", () => raw("j2", "\u001b", data), /cannot be read: .*\\u001b/],
    [
      "a Git LFS pointer",
      () => short("lfs", Buffer.from(pointer)),
      /is a Git LFS pointer, .* git lfs pull --include=lfs`/,
    ],
    ["overlap", () => raw("o", { a: entry(0, 8), b: entry(4, 12) }, data), /a and b overlap.* byte 8 .* at 4/],
  ];
  test.each(cases)("%s", async (_, make, message) => {
    const error: unknown = await openSafetensors(await make()).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DitrunError);
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain("\n");
  });

  test("a file that is cut off after it was opened", async () => {
    const path = await raw("later", { w: entry(0, 8) }, data.subarray(0, 8));
    const file = await openSafetensors(path);
    await truncate(path, 20);
    await expect(file.read("w")).rejects.toThrow(/ended at byte \d+ while tensor w was read/);
    await file.close();
  });
});

describe("writing", () => {
  test("reads back, aligned, with nothing left beside it", async () => {
    const path = join(dir, "sub.safetensors");
    const floats = new Float32Array([0, 1, 2, 3]).subarray(1);
    await writeSafetensors(path, {
      a: { dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) },
      b: { dtype: "F32", shape: [3], data: floats },
    });
    const file = await openSafetensors(path);
    expect([...toFloat32("F32", await file.read("b"))]).toEqual([1, 2, 3]);
    expect([...(await file.read("a"))]).toEqual([1, 2, 3]);
    const bytes = await readFile(path);
    expect(bytes.readBigUInt64LE() % 8n).toBe(0n);
    expect((await readdir(dir)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    await file.close();
  });

  test("wrong sizes and missing directories are sentences, and leave no file", async () => {
    const tensor = { dtype: "F32", shape: [3], data: Float32Array.of(1, 2, 3) } as const;
    const path = join(dir, "w.safetensors");
    await expect(writeSafetensors(path, { w: { ...tensor, shape: [4] } })).rejects.toThrow(
      /16 bytes, but its data have 12/,
    );
    await expect(writeSafetensors(join(dir, "no/w"), { w: tensor })).rejects.toThrow(
      /Cannot write .*there is no folder .*no/,
    );
    expect((await readdir(dir)).filter((name) => name.startsWith("w.safetensors"))).toEqual([]);
  });
});

describe("sharded files", () => {
  const tensor = (value: number) => ({ dtype: "F32", shape: [1], data: Float32Array.of(value) }) as const;
  const index = async (map: unknown) => {
    const path = join(dir, "m.safetensors.index.json");
    await writeFile(path, JSON.stringify(map));
    return path;
  };

  test("are read as one", async () => {
    await writeSafetensors(join(dir, "m-1.safetensors"), { a: tensor(1), b: tensor(2) });
    await writeSafetensors(join(dir, "m-2.safetensors"), { c: tensor(3) });
    const path = await index({
      metadata: { total_size: 12 },
      weight_map: { a: "m-1.safetensors", b: "m-1.safetensors", c: "m-2.safetensors" },
    });
    const file = await openSafetensors(path);
    expect(file.names()).toEqual(["a", "b", "c"]);
    const values = [];
    for (const name of file.names()) values.push(toFloat32("F32", await file.read(name))[0]);
    expect(values).toEqual([1, 2, 3]);
    expect(() => file.info("d")).toThrow(/no tensor d among its 3/);
    await file.close();
  });

  test("missing shards, missing tensors and paths out of the directory are refused", async () => {
    await expect(index({ weight_map: { a: "gone.safetensors" } }).then(openSafetensors)).rejects.toThrow(
      /gone.safetensors/,
    );
    await expect(index({ weight_map: { z: "m-1.safetensors" } }).then(openSafetensors)).rejects.toThrow(
      /tensor z into m-1/,
    );
    await expect(index({ weight_map: { a: "../m-1.safetensors" } }).then(openSafetensors)).rejects.toThrow(
      /not a file name/,
    );
    for (const file of ["..", "", "a\u001bb", "x".repeat(300)])
      await expect(index({ weight_map: { a: file } }).then(openSafetensors)).rejects.toThrow(/not a file name/);
    await expect(index({ weight_map: { "\u001b": "m-1.safetensors" } }).then(openSafetensors)).rejects.toThrow(
      'a tensor named "\\u001b"',
    );
    await expect(index({ maps: {} }).then(openSafetensors)).rejects.toThrow(/no weight_map/);
  });

  test("a symbolic link, as caches of downloads use, is followed", async () => {
    await symlink(join(dir, "m-2.safetensors"), join(dir, "link.safetensors"));
    const file = await openSafetensors(join(dir, "link.safetensors"));
    expect(file.has("c")).toBe(true);
    await file.close();
  });
});
