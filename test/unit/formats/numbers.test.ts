import { expect, test } from "vitest";
import {
  bf16ToFloat32,
  float16ToFloat32,
  float32ToBf16,
  float32ToFloat16,
  toFloat32,
} from "../../../src/formats/numbers.js";

const all16 = Uint16Array.from({ length: 65536 }, (_, i) => i);

test("every bf16 value survives the way to float32 and back", () => {
  const floats = bf16ToFloat32(all16);
  expect(floats[0x3f80]).toBe(1);
  expect(floats[0xc040]).toBe(-3);
  expect(floats[0x7f80]).toBe(Number.POSITIVE_INFINITY);
  const back = float32ToBf16(floats);
  const wrong = all16.filter((bits, i) => (Number.isNaN(floats[i]) ? back[i] !== (bits | 0x40) : back[i] !== bits));
  expect(wrong.length).toBe(0);
});

test("every float16 value survives the way to float32 and back", () => {
  const floats = float16ToFloat32(all16);
  expect(floats[0x3c00]).toBe(1);
  expect(floats[0xc200]).toBe(-3);
  expect(floats[0x7bff]).toBe(65504);
  expect(floats[0x0001]).toBe(2 ** -24);
  expect(floats[0xfc00]).toBe(Number.NEGATIVE_INFINITY);
  expect(Object.is(floats[0x8000], -0)).toBe(true);
  const back = float32ToFloat16(floats);
  const wrong = all16.filter((bits, i) => (Number.isNaN(floats[i]) ? back[i] !== (bits | 0x200) : back[i] !== bits));
  expect(wrong.length).toBe(0);
});

/** Between neighbours a < b of a 16-bit format: the middle goes to the even one, anything beyond it to the nearer one. */
function checkRounding(
  toBits: (x: Float32Array) => Uint16Array,
  toFloat: (x: Uint16Array) => Float32Array,
  last: number,
) {
  const floats = toFloat(all16);
  let checked = 0;
  for (let bits = 0; bits < last; bits++) {
    const [low, high] = [floats[bits] ?? Number.NaN, floats[bits + 1] ?? Number.NaN];
    const middle = (low + high) / 2;
    const words = new Uint32Array(Float32Array.of(middle).buffer);
    const word = words[0] ?? 0;
    const around = new Float32Array(Uint32Array.of(word - 1, word, word + 1).buffer);
    // In the bf16 subnormals the middle is still exact in float32; skip where float32 has no room for both sides.
    if (around[1] !== middle) continue;
    const [below, tie, above] = toBits(around);
    if (below !== bits || above !== bits + 1 || tie !== (bits % 2 === 0 ? bits : bits + 1))
      expect.fail(`around ${middle}: ${below} ${tie} ${above} between ${bits} and ${bits + 1}`);
    checked++;
  }
  expect(checked).toBeGreaterThan(30_000);
}

test("float32 rounds to nearest even bf16", () => checkRounding(float32ToBf16, bf16ToFloat32, 0x7f7f));

test("float32 rounds to nearest even float16, subnormals included", () =>
  checkRounding(float32ToFloat16, float16ToFloat32, 0x7bff));

test("too large values become infinity, too small ones zero", () => {
  expect([...float32ToFloat16(Float32Array.of(65519.99, 65520, -1e9, 2 ** -25, -(2 ** -26)))]).toEqual([
    0x7bff, 0x7c00, 0xfc00, 0, 0x8000,
  ]);
  expect([...float32ToBf16(Float32Array.of(3.4e38, -3.4028234663852886e38))]).toEqual([0x7f80, 0xff80]);
});

test("toFloat32 reads each dtype, from any alignment, and refuses integers", () => {
  const unaligned = new Uint8Array(9);
  unaligned.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 1);
  expect([...toFloat32("F32", unaligned.subarray(1))]).toEqual([1.5, -2]);
  expect([...toFloat32("BF16", new Uint8Array(Uint16Array.of(0x3fc0).buffer))]).toEqual([1.5]);
  expect([...toFloat32("F16", new Uint8Array(Uint16Array.of(0x3e00).buffer))]).toEqual([1.5]);
  expect([...toFloat32("F64", new Uint8Array(Float64Array.of(1.5).buffer))]).toEqual([1.5]);
  expect(() => toFloat32("I64", new Uint8Array(8))).toThrow(/I64 values/);
});
