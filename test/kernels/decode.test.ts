import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { READER_LEAST_PIECE, statuses, storedKinds } from "../../src/worker/runtime/abi.js";
import {
  allocate,
  at,
  BF16,
  check,
  download,
  downloadBytes,
  E4M3,
  F16,
  F32,
  freeAll,
  lastError,
  made,
  poisoned,
  raw,
  rounded,
  stream,
  upload,
} from "./module.js";
import { decoded, formats, type Kind, kinds, randomBytes, rowBytesOf } from "./stored.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
afterEach(freeAll);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Fields = Record<string, number>;
const plain = { x: 0, scale: 0, outScale: 0, squares: 0, firstColumn: 0, scaleRows: 0, outDtype: F32 };

function uploadBytes(bytes: Uint8Array): number {
  const address = allocate(bytes.length);
  check(raw.upload(address, bytes, bytes.length, stream));
  return address;
}

const same = (x: Uint8Array, y: Uint8Array) => Buffer.compare(x, y) === 0;
const decode = (args: Fields) => raw.decode({ ...plain, ...args }, stream);
const scaled = (x: Float64Array, factor: (i: number) => number) => x.map((value, i) => Math.fround(value * factor(i)));

/** Columns [first, first + count) of rows of so many. */
const cut = (x: Float64Array, columns: number, first: number, count: number) =>
  x.filter((_, i) => i % columns >= first && i % columns < first + count);

describe("ditrun_decode", () => {
  const [rows, columns, first, count] = [5, 768, 37, 700];

  it.for(kinds)("gives each bit pattern of %s its value, scaled by row, in float32", (kind) => {
    const bytes = randomBytes(rows * rowBytesOf(kind, columns), 3);
    const scales = Float32Array.of(1, -0.3, 2 ** -20, 1e-3, 7);
    const out = poisoned(rows * count, F32);
    const shape = { rows, columns: count, firstColumn: first, rowBytes: rowBytesOf(kind, columns), ldo: count };
    check(
      decode({
        out,
        x: uploadBytes(bytes),
        scale: upload(scales, F32),
        scaleRows: 1,
        stored: storedKinds[kind],
        ...shape,
      }),
    );
    const want = scaled(cut(decoded(kind, bytes), columns, first, count), (i) => at(scales, Math.floor(i / count)));
    expect(download(out, rows * count, F32)).toEqual(want);
  });

  it.for(kinds)("takes scales of blocks of %s that are tiny, huge or no numbers", (kind) => {
    const { elements, bytes: each } = formats[kind];
    const bytes = randomBytes(64 * each, 5);
    // Every place where a block may hold a half, in turn: the smallest and largest subnormal, ±0, the largest, infinity, NaN.
    const view = new DataView(bytes.buffer);
    const special = [0x0001, 0x83ff, 0x8000, 0x7bff, 0x7c00, 0x7e01, 0x0400];
    for (let i = 0; i < 64 && each > 2; i++) {
      view.setUint16(i * each + (i % 2 === 0 ? 0 : each - 2), special[i % 7] ?? 0, true);
    }
    const out = poisoned(64 * elements, F32);
    const shape = { rows: 1, columns: 64 * elements, rowBytes: bytes.length, ldo: 64 * elements };
    check(decode({ out, x: uploadBytes(bytes), stored: storedKinds[kind], ...shape }));
    expect(download(out, 64 * elements, F32)).toEqual(decoded(kind, bytes));
  });

  it.for([
    ["bf16", BF16],
    ["fp16", F16],
  ] as const)("rounds to %s once, at the end, and leaves what lies between rows alone", ([, outDtype]) => {
    const bytes = randomBytes(rows * rowBytesOf("Q4_K", columns), 4).map((byte, i) =>
      i % 144 < 4 && i % 2 ? byte & 0x1f : byte,
    );
    const scale = upload([0.3], F32);
    const out = poisoned(rows * (count + 3), outDtype);
    const shape = { rows, columns: count, firstColumn: first, rowBytes: rowBytesOf("Q4_K", columns), ldo: count + 3 };
    check(decode({ out, x: uploadBytes(bytes), scale, stored: storedKinds.Q4_K, outDtype, ...shape }));
    const exact = scaled(cut(decoded("Q4_K", bytes), columns, first, count), () => Math.fround(0.3));
    const want = Float64Array.from({ length: rows * (count + 3) }, (_, i) => {
      const column = i % (count + 3);
      return column < count ? rounded(at(exact, Math.floor(i / (count + 3)) * count + column), outDtype) : Number.NaN;
    });
    expect(download(out, want.length, outDtype)).toEqual(want);
  });

  it("quantises to e4m3 as ditrun_quantize_rows does with the float32 row, and sums its squares", () => {
    const bytes = randomBytes(rows * rowBytesOf("BF16", columns), 6).map((byte, i) =>
      i % 2 ? (byte & 0x83) | 0x3c : byte,
    );
    const [out, outScale, squares] = [poisoned(rows * columns, E4M3), poisoned(rows, F32), poisoned(rows, F32)];
    const shape = { rows, columns, rowBytes: 2 * columns, ldo: columns };
    check(
      decode({ out, outScale, squares, x: uploadBytes(bytes), stored: storedKinds.BF16, outDtype: E4M3, ...shape }),
    );
    const exact = decoded("BF16", bytes);
    const [wantOut, wantScale, wantSquares] = [
      poisoned(rows * columns, E4M3),
      poisoned(rows, F32),
      poisoned(rows, F32),
    ];
    const x = upload(exact, F32);
    check(raw.quantizeRows(wantOut, wantScale, x, columns, rows, columns, F32, stream));
    check(raw.rowSumSquares(wantSquares, x, columns, rows, columns, F32, stream));
    expect(same(downloadBytes(out, rows * columns), downloadBytes(wantOut, rows * columns))).toBe(true);
    expect(download(outScale, rows, F32)).toEqual(download(wantScale, rows, F32));
    expect(download(squares, rows, F32)).toEqual(download(wantSquares, rows, F32));
  });

  it.for([0, 1])(
    "keeps the bytes of stored e4m3, and makes its scales those of the rows (scaleRows %i)",
    (scaleRows) => {
      const bytes = randomBytes(rows * columns, 7).map((byte) => ((byte & 0x7f) === 0x7f ? 0x12 : byte));
      const scales = scaleRows ? [1, 0.25, 3, 1e-4, 9] : [0.375];
      const [out, outScale, squares] = [poisoned(rows * count, E4M3), poisoned(rows, F32), poisoned(rows, F32)];
      const shape = { rows, columns: count, firstColumn: first, rowBytes: columns, ldo: count, scaleRows };
      const from = { x: uploadBytes(bytes), scale: upload(scales.map(Math.fround), F32), stored: storedKinds.F8_E4M3 };
      check(decode({ out, outScale, squares, outDtype: E4M3, ...from, ...shape }));
      const kept = bytes.filter((_, i) => i % columns >= first && i % columns < first + count);
      expect(same(downloadBytes(out, rows * count), kept)).toBe(true);
      const factor = (row: number) => Math.fround(at(scales, scaleRows * row));
      expect([...download(outScale, rows, F32)]).toEqual(Array.from({ length: rows }, (_, row) => factor(row)));
      const values = cut(decoded("F8_E4M3", bytes), columns, first, count);
      download(squares, rows, F32).forEach((sum, row) => {
        const want = values
          .subarray(row * count, (row + 1) * count)
          .reduce((all, x) => all + (x * factor(row)) ** 2, 0);
        expect(Math.abs(sum / want - 1)).toBeLessThan(1e-5);
      });
    },
  );

  it.for<[string, Fields, RegExp]>([
    ["a kind that is not there", { stored: 99 }, /stored dtype 99/],
    ["rows that are too short", { rowBytes: 10 }, /rowBytes is 10, but 32 columns take 18/],
    ["no columns", { columns: 0 }, /0 columns/],
    ["an out of whole numbers", { outDtype: 4 }, /outDtype is 4/],
    ["e4m3 without scales", { outDtype: E4M3 }, /outScale is 0/],
    ["scales for a dtype that has none", { outScale: 16 }, /outScale is 16/],
    ["no x", { x: 0 }, /x is 0, which/],
    ["rows that overlap", { ldo: 31 }, /ldo is 31/],
    ["float32 at an odd address", { stored: 0, x: 17, rowBytes: 128 }, /x is 17/],
  ])("refuses %s", ([, wrong, why]) => {
    const right = { out: 16, x: 16, rows: 2, columns: 32, rowBytes: 18, ldo: 32, stored: storedKinds.Q4_0 };
    expect(decode({ ...right, ...wrong })).toBe(statuses.invalidArgument);
    expect(lastError()).toMatch(why);
  });
});

describe("a reader", () => {
  const opened: { reader: number; file: number }[] = [];
  afterEach(() => {
    for (const { reader, file } of opened.splice(0)) {
      check(raw.readerClose(reader));
      closeSync(file);
    }
  });

  /** A file of some bytes before the given ones, and a reader of small pieces. */
  function open(bytes: Uint8Array, name: string, before = 13) {
    const path = join(folder, name);
    writeFileSync(path, Buffer.concat([Buffer.alloc(before, 0xee), bytes]));
    const file = openSync(path, "r");
    const reader = made((result) => raw.readerOpen(3, READER_LEAST_PIECE, result));
    opened.push({ reader, file });
    const submit = (args: Fields, scales: readonly number[] = [], offset = before) =>
      raw.readerSubmit(reader, file, offset, { ...plain, ...args }, scales, scales.length, stream, [0]);
    const wait = (ticket: number) => made((result) => raw.readerWait(reader, ticket, stream, result));
    return { path, reader, file, submit, wait };
  }

  const cases: [string, Kind, { rows: number; columns: number; first?: number; count?: number }, number, boolean][] = [
    ["many pieces of whole rows", "BF16", { rows: 300, columns: 512 }, F32, true],
    ["one long row", "F32", { rows: 1, columns: 70001 }, BF16, false],
    ["rows longer than a piece", "F64", { rows: 3, columns: 20001, first: 7, count: 19990 }, F32, true],
    ["some columns of many rows", "Q6_K", { rows: 400, columns: 1024, first: 512, count: 256 }, F32, true],
    [
      "columns that begin within a block, of rows longer than a piece",
      "Q4_0",
      { rows: 2, columns: 160000, first: 5, count: 150001 },
      F16,
      false,
    ],
  ];
  it.for(cases)("brings %s", ([name, kind, { rows, columns, first = 0, count = columns }, outDtype, each]) => {
    // So small that the narrower dtypes hold them.
    const high = kind === "Q4_0" ? 18 : kind === "F32" ? 4 : undefined;
    const bytes = randomBytes(rows * rowBytesOf(kind, columns), 9).map((byte, i) =>
      high !== undefined && i % high === (kind === "F32" ? 3 : 1) ? byte & 0x9f : byte,
    );
    const { submit, wait } = open(bytes, name);
    const scales = each ? Array.from({ length: rows }, (_, row) => Math.fround(1 / (row + 1))) : [];
    const out = poisoned(rows * count, outDtype);
    const shape = { rows, columns: count, firstColumn: first, rowBytes: rowBytesOf(kind, columns), ldo: count };
    check(submit({ out, stored: storedKinds[kind], outDtype, scaleRows: each ? 1 : 0, ...shape }, scales));
    expect(wait(1)).toBe(1);
    const exact = scaled(cut(decoded(kind, bytes), columns, first, count), (i) =>
      each ? at(scales, Math.floor(i / count)) : 1,
    );
    const finite = (x: number) => (Number.isFinite(x) ? rounded(x, outDtype) : x);
    const got = download(out, rows * count, outDtype);
    expect(got.findIndex((x, i) => !Object.is(x + 0, finite(at(exact, i)) + 0))).toBe(-1);
  });

  it("quantises rows, and keeps stored e4m3 with one scale for all", () => {
    const [rows, columns] = [300, 400];
    const bytes = randomBytes(rows * columns, 10).map((byte) => ((byte & 0x7f) === 0x7f ? 0 : byte));
    const { submit, wait } = open(bytes, "e4m3");
    const [kept, keptScale] = [poisoned(rows * columns, E4M3), poisoned(rows, F32)];
    const [made8, scale8] = [poisoned(rows * columns, E4M3), poisoned(rows, F32)];
    const shape = { rows, columns, rowBytes: columns, ldo: columns, outDtype: E4M3 };
    check(submit({ out: kept, outScale: keptScale, stored: storedKinds.F8_E4M3, ...shape }, [0.5]));
    check(submit({ out: made8, outScale: scale8, stored: storedKinds.I8, ...shape }));
    expect(wait(1)).toBeGreaterThanOrEqual(1);
    expect(wait(2)).toBe(2);
    expect(same(downloadBytes(kept, rows * columns), bytes)).toBe(true);
    expect(download(keptScale, rows, F32)).toEqual(new Float64Array(rows).fill(0.5));
    const [want, wantScale] = [poisoned(rows * columns, E4M3), poisoned(rows, F32)];
    check(raw.quantizeRows(want, wantScale, upload(decoded("I8", bytes), F32), columns, rows, columns, F32, stream));
    expect(same(downloadBytes(made8, rows * columns), downloadBytes(want, rows * columns))).toBe(true);
    expect(download(scale8, rows, F32)).toEqual(download(wantScale, rows, F32));
  });

  it("writes after what is queued on the stream, and says what is ready before what is queued next", () => {
    const bytes = new Uint8Array(Float32Array.of(1, 2, 3).buffer);
    const { submit, wait } = open(bytes, "order");
    const out = allocate(12);
    check(raw.upload(out, new Uint8Array(12), 12, stream));
    for (let i = 0; i < 50; i++) check(raw.fillZero(out, 12, stream));
    check(submit({ out, rows: 1, columns: 3, rowBytes: 12, ldo: 3, stored: storedKinds.F32 }));
    wait(1);
    expect([...download(out, 3, F32)]).toEqual([1, 2, 3]);
  });

  it("says where a file ended that has become shorter, and does nothing more", () => {
    const { path, reader, submit, wait } = open(new Uint8Array(400000), "short");
    truncateSync(path, 200013);
    const out = allocate(400000);
    const args = {
      out,
      rows: 1,
      columns: 400000,
      rowBytes: 400000,
      ldo: 400000,
      stored: storedKinds.I8,
      outDtype: F32,
    };
    const whole = { ...args, out: allocate(1600000) };
    check(submit(whole));
    expect(() => wait(1)).toThrow(/A file ended at byte 200013/);
    const cells = [[0], [0], [-1]] as const;
    check(raw.readerFailure(reader, ...cells));
    expect(cells.map(([cell]) => Number(cell))).toEqual([1, 200013, 0]);
    expect(submit(whole)).toBe(statuses.fileError);
  });

  it("says why a file cannot be read", () => {
    const { reader, wait } = open(new Uint8Array(8), "closed");
    const directory = openSync(folder, "r");
    const args = { ...plain, out: allocate(32), rows: 1, columns: 8, rowBytes: 8, ldo: 8, stored: storedKinds.I8 };
    check(raw.readerSubmit(reader, directory, 0, args, [], 0, stream, [0]));
    expect(() => wait(1)).toThrow(/could not be read at byte 0: Is a directory/);
    closeSync(directory);
  });

  it.for<[string, Fields, readonly number[], RegExp]>([
    ["an x of its own", { x: 16 }, [], /x is 16 but comes from the file/],
    ["as many scales as it has not", { scaleRows: 1 }, [1], /scaleCount is 1 with scaleRows 1 for 2 rows/],
    [
      "e4m3 rows longer than a piece",
      { outDtype: E4M3, outScale: 16, rows: 1, columns: 99999, ldo: 99999, rowBytes: 99999, stored: 6 },
      [],
      /cannot quantise rows of 99999/,
    ],
  ])("refuses %s", ([name, wrong, scales, why]) => {
    const { submit } = open(new Uint8Array(8), name);
    const right = { out: 16, rows: 2, columns: 32, rowBytes: 18, ldo: 32, stored: storedKinds.Q4_0 };
    expect(submit({ ...right, ...wrong }, scales)).toBe(statuses.invalidArgument);
    expect(lastError()).toMatch(why);
  });

  it("refuses pieces that are too small, and tickets that it never gave", () => {
    expect(raw.readerOpen(1, 4096, [0])).toBe(statuses.invalidArgument);
    expect(raw.readerOpen(0, READER_LEAST_PIECE, [0])).toBe(statuses.invalidArgument);
    expect(() => open(new Uint8Array(8), "none").wait(1)).toThrow(/No job of this reader has ticket 1/);
  });
});
