import { afterEach, describe, expect, it } from "vitest";
import {
  at,
  BF16,
  check,
  download,
  F16,
  F32,
  freeAll,
  lastError,
  poisoned,
  raw,
  relativeL2,
  sequence,
  stream,
  upload,
} from "./module.js";

afterEach(freeAll);

interface Shape {
  frames: number;
  height: number;
  width: number;
  inChannels: number;
  outChannels: number;
  kernel: readonly [number, number, number];
  stride?: readonly [number, number, number];
  /** Top, bottom, left, right. */
  pad?: readonly [number, number, number, number];
  upsample?: number;
  history?: boolean;
  residual?: boolean;
}

/** What kernels/include/ditrun.h says of ditrun_conv3d, in float64, one product at a time. */
function reference(s: Required<Shape>, data: Record<"x" | "history" | "weight" | "bias" | "residual", Float64Array>) {
  const [kernelT, kernelH, kernelW] = s.kernel;
  const [strideT, strideH, strideW] = s.stride;
  const [top, bottom, left, right] = s.pad;
  const outFrames = Math.floor((s.frames - 1) / strideT) + 1;
  const outHeight = Math.floor((s.upsample * s.height + top + bottom - kernelH) / strideH) + 1;
  const outWidth = Math.floor((s.upsample * s.width + left + right - kernelW) / strideW) + 1;
  const pixel = (frame: number, y: number, x: number, channel: number) => {
    if (y < 0 || x < 0 || y >= s.upsample * s.height || x >= s.upsample * s.width) return 0;
    if (frame < 0 && !s.history) return 0;
    const inFrame = frame < 0 ? frame + kernelT - 1 : frame;
    const row = inFrame * s.height + Math.floor(y / s.upsample);
    return at(frame < 0 ? data.history : data.x, (row * s.width + Math.floor(x / s.upsample)) * s.inChannels + channel);
  };
  const out = new Float64Array(outFrames * outHeight * outWidth * s.outChannels);
  out.forEach((_, index) => {
    const channel = index % s.outChannels;
    const x = Math.floor(index / s.outChannels) % outWidth;
    const y = Math.floor(index / s.outChannels / outWidth) % outHeight;
    const t = Math.floor(index / s.outChannels / outWidth / outHeight);
    let sum = at(data.bias, channel) + (s.residual ? at(data.residual, index) : 0);
    for (let kt = 0; kt < kernelT; kt++) {
      for (let kh = 0; kh < kernelH; kh++) {
        for (let kw = 0; kw < kernelW; kw++) {
          const tap = ((channel * kernelT + kt) * kernelH + kh) * kernelW + kw;
          for (let c = 0; c < s.inChannels; c++) {
            sum +=
              at(data.weight, tap * s.inChannels + c) *
              pixel(t * strideT + kt - kernelT + 1, y * strideH + kh - top, x * strideW + kw - left, c);
          }
        }
      }
    }
    out[index] = sum;
  });
  return out;
}

/** Relative L2 error of one convolution. */
function errorOf(shape: Shape, dtype: number): number {
  const s: Required<Shape> = {
    stride: [1, 1, 1],
    pad: [1, 1, 1, 1],
    upsample: 1,
    history: false,
    residual: false,
    ...shape,
  };
  const [kernelT, kernelH, kernelW] = s.kernel;
  const frame = s.height * s.width * s.inChannels;
  const data: Record<"x" | "history" | "weight" | "bias" | "residual", Float64Array> = {
    x: sequence(s.frames * frame, dtype, 1),
    history: sequence((kernelT - 1) * frame, dtype, 2),
    weight: sequence(s.outChannels * kernelT * kernelH * kernelW * s.inChannels, dtype, 3),
    bias: sequence(s.outChannels, dtype, 4),
    residual: new Float64Array(),
  };
  const plain = reference({ ...s, residual: false }, data);
  data.residual = sequence(plain.length, dtype, 5);
  const expected = s.residual ? reference(s, data) : plain;
  const out = s.residual ? upload(data.residual, dtype) : poisoned(expected.length, dtype);
  check(
    raw.conv3d(
      {
        x: upload(data.x, dtype),
        history: s.history ? upload(data.history, dtype) : 0,
        weight: upload(data.weight, dtype),
        bias: upload(data.bias, dtype),
        // In place, as the residual blocks use it.
        residual: s.residual ? out : 0,
        out,
        frames: s.frames,
        height: s.height,
        width: s.width,
        inChannels: s.inChannels,
        outChannels: s.outChannels,
        kernelT,
        kernelH,
        kernelW,
        strideT: s.stride[0],
        strideH: s.stride[1],
        strideW: s.stride[2],
        padTop: s.pad[0],
        padBottom: s.pad[1],
        padLeft: s.pad[2],
        padRight: s.pad[3],
        upsample: s.upsample,
        dtype,
        kernel: 0,
      },
      stream,
    ),
  );
  return relativeL2(download(out, expected.length, dtype), expected);
}

describe("ditrun_conv3d on the CPU", () => {
  const cases: [string, Shape][] = [
    ["3×3×3 with odd sizes", { frames: 3, height: 5, width: 7, inChannels: 5, outChannels: 3, kernel: [3, 3, 3] }],
    [
      "history and a residual in place",
      {
        frames: 2,
        height: 4,
        width: 53,
        inChannels: 8,
        outChannels: 19,
        kernel: [3, 3, 3],
        history: true,
        residual: true,
      },
    ],
    [
      "more input channels than a block is deep",
      {
        frames: 1,
        height: 3,
        width: 9,
        inChannels: 97,
        outChannels: 33,
        kernel: [3, 3, 3],
        history: true,
      },
    ],
    [
      "one row that has its neighbours' rows",
      {
        frames: 2,
        height: 3,
        width: 6,
        inChannels: 4,
        outChannels: 16,
        kernel: [3, 3, 3],
        pad: [0, 0, 1, 1],
        history: true,
      },
    ],
    ["upsample 2", { frames: 2, height: 3, width: 5, inChannels: 6, outChannels: 4, kernel: [1, 3, 3], upsample: 2 }],
    [
      "upsample 2 between neighbours' rows",
      {
        frames: 1,
        height: 4,
        width: 5,
        inChannels: 6,
        outChannels: 4,
        kernel: [1, 3, 3],
        upsample: 2,
        pad: [-1, -1, 1, 1],
      },
    ],
    [
      "stride 2 in space, padded below and right",
      {
        frames: 2,
        height: 6,
        width: 100,
        inChannels: 7,
        outChannels: 5,
        kernel: [1, 3, 3],
        stride: [1, 2, 2],
        pad: [0, 1, 0, 1],
      },
    ],
    [
      "stride 2 in time over history",
      {
        frames: 3,
        height: 4,
        width: 5,
        inChannels: 9,
        outChannels: 9,
        kernel: [3, 1, 1],
        stride: [2, 1, 1],
        pad: [0, 0, 0, 0],
        history: true,
      },
    ],
    [
      "1×1×1",
      { frames: 2, height: 3, width: 5, inChannels: 16, outChannels: 16, kernel: [1, 1, 1], pad: [0, 0, 0, 0] },
    ],
  ];
  it.for(cases)("%s, float32, bf16 and f16", ([, shape]) => {
    expect(errorOf(shape, F32)).toBeLessThan(1e-6);
    // One rounding to 8 bits at the end.
    expect(errorOf(shape, BF16)).toBeLessThan(3e-3);
    // To 11 bits.
    expect(errorOf(shape, F16)).toBeLessThan(4e-4);
  });

  it("gives infinity where f16 cannot hold a sum, and sums beyond it in float32", () => {
    const shape = { frames: 1, height: 1, width: 1, outChannels: 2, kernelT: 1, kernelH: 1, kernelW: 1 };
    const one = { strideT: 1, strideH: 1, strideW: 1, padTop: 0, padBottom: 0, padLeft: 0, padRight: 0, upsample: 1 };
    const out = poisoned(2, F16);
    // 60000 + 60000 - 60000 fits, though its first two terms do not; 60000 + 60000 does not.
    const weight = upload([1, 1, -1, 1, 1, 0], F16);
    const addresses = { x: upload([60000, 60000, 60000], F16), weight, bias: 0, residual: 0, history: 0, out };
    check(raw.conv3d({ ...shape, ...one, ...addresses, inChannels: 3, dtype: F16, kernel: 0 }, stream));
    expect([...download(out, 2, F16)]).toEqual([60000, Number.POSITIVE_INFINITY]);
  });

  it("refuses what it cannot compute, with the values", () => {
    const good = { frames: 1, height: 2, width: 2, inChannels: 1, outChannels: 1, kernelT: 1, kernelH: 3, kernelW: 3 };
    const address = poisoned(64, F32);
    const rest = { x: address, history: 0, weight: address, bias: 0, residual: 0, out: address, strideT: 1 };
    const pads = {
      strideH: 1,
      strideW: 1,
      padTop: 0,
      padBottom: 0,
      padLeft: 0,
      padRight: 0,
      upsample: 1,
      dtype: F32,
      kernel: 0,
    };
    expect(raw.conv3d({ ...good, ...rest, ...pads }, stream)).toBe(1);
    expect(lastError()).toContain("2 × 2 pixels is smaller than the kernel of 3 × 3");
    expect(raw.conv3d({ ...good, ...rest, ...pads, upsample: 3 }, stream)).toBe(1);
    expect(lastError()).toContain("upsample is 3");
    expect(raw.conv3d({ ...good, ...rest, ...pads, padTop: 1, padLeft: 1, kernel: 3 }, stream)).toBe(1);
    expect(lastError()).toContain("kernel is 3");
  });
});
