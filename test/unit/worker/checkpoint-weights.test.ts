import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { float32ToBf16, float32ToFloat16 } from "../../../src/formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../../src/formats/safetensors.js";
import { type Scale, StoredTensors, type TensorFile } from "../../../src/formats/tensor-file.js";
import { builtKernels } from "../../../src/paths.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { tensor } from "../../../src/worker/runtime/tensor.js";
import { CheckpointWeights } from "../../../src/worker/weights/checkpoint.js";
import { type Part, wholeOf } from "../../../src/worker/weights/source.js";
import { decoded, randomBytes } from "../../kernels/stored.js";

// Numbers that float16 and bfloat16 both hold, with other bits in each.
const values = Float32Array.of(1, -2.25, 0.5, 96, -0.375, 1.5);
const stored = {
  F32: new Uint8Array(values.slice().buffer),
  F16: new Uint8Array(float32ToFloat16(values).buffer),
  BF16: new Uint8Array(float32ToBf16(values).buffer),
};

let folder: string;
let device: Device;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  device = Device.open(builtKernels("cpu"), 0);
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true, force: true });
});

const parameter = (name: string, shape: readonly number[]) => ({
  name,
  shape,
  init: { kind: "constant", value: 0 } as const,
});
const floats = async (x: Parameters<Device["download"]>[0]) => [...new Float32Array((await device.download(x)).buffer)];

describe("weights of a checkpoint", () => {
  it.for(["F32", "F16", "BF16"] as const)("stored as %s are the numbers that were stored", async (dtype) => {
    const path = join(folder, `${dtype}.safetensors`);
    await writeSafetensors(path, { w: { dtype, shape: [3, 2], data: stored[dtype] } });
    const source = new CheckpointWeights(device, await openSafetensors(path));
    const w = parameter("w", [3, 2]);
    const out = device.allocatePersistent("fp32", [3, 2]);
    await source.load(w, wholeOf(w), out);
    const half = device.allocatePersistent("fp32", [3, 1]);
    await source.load(w, { rows: [{ start: 0, count: 3 }], columns: { start: 1, count: 1 } }, half);
    const ends = device.allocatePersistent("fp32", [2, 2]);
    const rows = [
      { start: 2, count: 1 },
      { start: 0, count: 1 },
    ];
    await source.load(w, { rows, columns: { start: 0, count: 2 } }, ends, { factor: 0.5 });
    await device.synchronize();
    expect(await floats(out)).toEqual([...values]);
    expect(await floats(half)).toEqual([-2.25, 96, 1.5]);
    expect(await floats(ends)).toEqual([-0.375, 1.5, 1, -2.25].map((value) => value / 2));
    await source.close();
  });

  it("of whole numbers are refused by their name", async () => {
    const path = join(folder, "I64.safetensors");
    await writeSafetensors(path, { w: { dtype: "I64", shape: [1], data: new Uint8Array(8) } });
    const source = new CheckpointWeights(device, await openSafetensors(path));
    const w = parameter("w", [1]);
    await expect(source.load(w, wholeOf(w), device.allocatePersistent("fp32", [1]))).rejects.toThrow(
      "I64.safetensors: tensor w is I64 [1]; it must be converted from I64 to F32, BF16 or F16.",
    );
    await source.close();
  });

  /** One tensor w of a file of nothing else. */
  async function fileOf(
    name: string,
    dtype: "F8_E4M3" | "Q4_0",
    shape: readonly number[],
    bytes: Uint8Array,
    scale?: Scale,
  ) {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const info = { dtype, shape, byteLength: bytes.length, offset: 0, scale };
    const about = { format: "safetensors", metadata: new Map() } as const;
    return new StoredTensors(path, about, await open(path), new Map([["w", info]]));
  }

  async function load(file: TensorFile, part: Part, dtype: "fp32" | "e4m3") {
    const rows = part.rows.reduce((sum, { count }) => sum + count, 0);
    const shape = [rows, part.columns.count];
    const plain = device.allocatePersistent(dtype, shape);
    const out = dtype === "e4m3" ? { ...plain, rowScale: device.allocatePersistent("fp32", [rows]) } : plain;
    const source = new CheckpointWeights(device, file);
    await source.load(parameter("w", file.info("w").shape), part, out);
    await device.synchronize();
    await source.close();
    return out;
  }

  // Rows 1, 2 and 4 of six, columns 3 to 9: what a rank of tp may hold of a fused layer.
  const own: Part = {
    rows: [
      { start: 1, count: 2 },
      { start: 4, count: 1 },
    ],
    columns: { start: 3, count: 7 },
  };
  const ownOf = <T>(all: readonly T[], columns: number) =>
    [1, 2, 4].flatMap((row) => all.slice(row * columns + 3, row * columns + 10));
  const scales = Float32Array.of(1, 0.5, 3, 7, -(2 ** -8), 9);

  it.for([
    ["one", [0.375, 0.375, 0.375]],
    ["each", [0.5, 3, -(2 ** -8)]],
  ] as const)(
    "stored as e4m3 with a scale (%s) are multiplied with it, or keep their bytes and take it along",
    async ([rows, wanted]) => {
      const bytes = randomBytes(60, 1).map((byte) => ((byte & 0x7f) === 0x7f ? 1 : byte));
      const scale = { rows, values: rows === "one" ? Float32Array.of(0.375) : scales };
      const numbers = ownOf([...decoded("F8_E4M3", bytes)], 10).map((x, i) =>
        Math.fround(x * (wanted[Math.floor(i / 7)] ?? 0)),
      );
      expect(await floats(await load(await fileOf("a", "F8_E4M3", [6, 10], bytes, scale), own, "fp32"))).toEqual(
        numbers,
      );
      const kept = await load(await fileOf("b", "F8_E4M3", [6, 10], bytes, scale), own, "e4m3");
      expect([...(await device.download(kept))]).toEqual(ownOf([...bytes], 10));
      expect(kept.rowScale && (await floats(kept.rowScale))).toEqual(wanted);
    },
  );

  it("stored in blocks are cut within them", async () => {
    const bytes = randomBytes(6 * 36, 2).map((byte, i) => (i % 18 === 1 ? byte & 0x3b : byte));
    const wide: Part = { ...own, columns: { start: 3, count: 55 } };
    const want = [1, 2, 4].flatMap((row) => [...decoded("Q4_0", bytes)].slice(row * 64 + 3, row * 64 + 58));
    expect(await floats(await load(await fileOf("c", "Q4_0", [6, 64], bytes), wide, "fp32"))).toEqual(want);
  });

  it("of a file that was cut off since it was opened end what follows too, by file and tensor", async () => {
    const path = join(folder, "cut.safetensors");
    await writeSafetensors(path, { w: { dtype: "F32", shape: [3, 2], data: stored.F32 } });
    const source = new CheckpointWeights(device, await openSafetensors(path));
    truncateSync(path, 80);
    const w = parameter("w", [3, 2]);
    const out = device.allocatePersistent("fp32", [3, 2]);
    const why = `${path} ended at byte 80 while tensor w was read: it was cut off or replaced since it was opened.`;
    await source.load(w, wholeOf(w), out);
    const staged = await Promise.all(Array.from({ length: 8 }, () => device.stage("fp32", [4])));
    const ninth = expect(device.stage("fp32", [4])).rejects.toThrow(why);
    await device.reader.after(() => {
      for (const each of staged) device.unstage(each);
    });
    await ninth;
    await expect(source.load(w, wholeOf(w), out)).rejects.toThrow(why);
    await expect(device.synchronize()).rejects.toThrow(why);
    await source.close();
    // The device reads on.
    const bytes = Uint8Array.of(0x38, 0x40);
    const whole = { rows: [{ start: 0, count: 1 }], columns: { start: 0, count: 2 } };
    expect(await floats(await load(await fileOf("d", "F8_E4M3", [1, 2], bytes), whole, "fp32"))).toEqual([1, 2]);
  });

  it("are there for what follows, in order, and before what waits for a staged tensor", async () => {
    const path = join(folder, "order.safetensors");
    const many = Float32Array.from({ length: 3_000_000 }, (_, i) => i);
    await writeSafetensors(path, { w: { dtype: "F32", shape: [3000, 1000], data: many } });
    const source = new CheckpointWeights(device, await openSafetensors(path));
    const w = parameter("w", [3000, 1000]);
    const out = device.allocatePersistent("bf16", [3000, 1000]);
    const told: string[] = [];
    for (const name of ["first", "second", "third"]) {
      const exact = await device.stage("fp32", [3000, 1000]);
      await source.load(w, wholeOf(w), exact);
      await device.reader.after(async () => {
        const last = await device.download(tensor(exact.address + 4 * 2_999_999, "fp32", [1]));
        told.push(`${name} ${new Float32Array(last.buffer)[0]}`);
        device.unstage(exact);
      });
    }
    await source.load(w, wholeOf(w), out);
    await device.synchronize();
    expect(told).toEqual(["first 2999999", "second 2999999", "third 2999999"]);
    await device.reader.after(() => {
      told.push("at once");
    });
    expect(told).toHaveLength(4);
    await source.close();
  });
});
