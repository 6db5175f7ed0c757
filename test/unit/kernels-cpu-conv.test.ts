import { afterEach, describe, expect, it } from "vitest";
import {
  at,
  BF16,
  check,
  download,
  F32,
  freeAll,
  lastError,
  made,
  maxDifference,
  poisoned,
  raw,
  relativeL2,
  rmsNorm,
  rounded,
  sequence,
  stream,
  upload,
} from "./kernels-cpu-module.js";

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
  it.for(cases)("%s, float32 and bf16", ([, shape]) => {
    expect(errorOf(shape, F32)).toBeLessThan(1e-6);
    // One rounding to 8 bits at the end.
    expect(errorOf(shape, BF16)).toBeLessThan(3e-3);
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

describe("ditrun_transpose on the CPU", () => {
  for (const dtype of [F32, BF16]) {
    it(`turns each matrix of a batch, dtype ${dtype}`, () => {
      const [batch, rows, columns] = [3, 37, 65];
      const x = sequence(batch * rows * columns, dtype, 6);
      const expected = new Float64Array(x.length);
      x.forEach((value, index) => {
        const [b, r, c] = [
          Math.floor(index / rows / columns),
          Math.floor(index / columns) % rows,
          index % columns,
        ] as const;
        expected[(b * columns + c) * rows + r] = value;
      });
      const out = poisoned(x.length, dtype);
      check(raw.transpose(out, upload(x, dtype), batch, rows, columns, dtype, stream));
      expect(maxDifference(download(out, x.length, dtype), expected)).toBe(0);
    });
  }

  it("refuses to work in place", () => {
    const x = upload([1, 2, 3, 4], F32);
    expect(raw.transpose(x, x, 1, 2, 2, F32, stream)).toBe(1);
    expect(lastError()).toContain("cannot be in place");
  });
});

describe("ditrun_softmax_rows on the CPU", () => {
  for (const [dtype, outDtype, tolerance] of [
    [F32, F32, 1e-6],
    [BF16, BF16, 3e-3],
    [F32, BF16, 3e-3],
  ] as const) {
    it(`is softmax(scale · row), also for scores that overflow e^x, dtype ${dtype} to ${outDtype}`, () => {
      const [rows, columns, scale] = [5, 131, 0.7];
      const x = sequence(rows * columns, dtype, 7, 300);
      const expected = new Float64Array(x.length);
      for (let row = 0; row < rows; row++) {
        const scores = x.subarray(row * columns, (row + 1) * columns).map((value) => value * scale);
        const most = Math.max(...scores);
        const total = scores.reduce((sum, value) => sum + Math.exp(value - most), 0);
        scores.forEach((value, column) => {
          expected[row * columns + column] = Math.exp(value - most) / total;
        });
      }
      const address = upload(x, dtype);
      const out = dtype === outDtype ? address : poisoned(x.length, outDtype);
      check(raw.softmaxRows(out, outDtype, address, dtype, rows, columns, scale, stream));
      expect(relativeL2(download(out, x.length, outDtype), expected)).toBeLessThan(tolerance * 10);
    });
  }

  it("cannot change the dtype in place", () => {
    expect(raw.softmaxRows(256, BF16, 256, F32, 2, 4, 1, stream)).toBe(1);
    expect(lastError()).toMatch(/out is x, so its dtype must be 0 too, but is 1/);
  });
});

describe("ditrun_rms_norm on the CPU", () => {
  it("normalises, weights and activates; a row of zeros stays zeros", () => {
    const [rows, columns, epsilon] = [4, 21, 1e-24];
    const x = sequence(rows * columns, F32, 8).map((value, index) => (index < columns ? 0 : value));
    const weight = sequence(columns, F32, 9);
    const expected = x.map((value, index) => {
      const row = x.subarray(index - (index % columns), index - (index % columns) + columns);
      const mean = row.reduce((sum, one) => sum + one * one, 0) / columns;
      const y = (value / Math.sqrt(mean + epsilon)) * at(weight, index % columns);
      return y / (1 + Math.exp(-y));
    });
    const out = poisoned(x.length, F32);
    const dtypes = { xDtype: F32, weightDtype: F32, outDtype: F32, activation: 3, epsilon };
    const shape = { rows, columns, fullColumns: columns, headDim: 0, ldx: columns, ldo: columns };
    check(rmsNorm({ x: upload(x, F32), weight: upload(weight, F32), out, ...shape, ...dtypes }));
    expect(relativeL2(download(out, x.length, F32), expected)).toBeLessThan(1e-6);
    expect([...download(out, columns, F32)].every((value) => value === 0)).toBe(true);
  });

  it("takes sums of squares made elsewhere, and turns pairs", () => {
    const x = upload([3, 4], F32);
    const out = poisoned(2, F32);
    const sumSquares = upload([100], F32);
    const rope = upload([0.6, 0.8], F32);
    const dtypes = { xDtype: F32, weightDtype: F32, outDtype: F32, activation: 0, epsilon: 0 };
    const shape = { rows: 1, columns: 2, fullColumns: 4, headDim: 2, ldx: 2, ldo: 2 };
    check(rmsNorm({ x, out, sumSquares, rope, ...shape, ...dtypes }));
    // [3, 4] / 5, turned by the angle of cosine 0.6 and sine 0.8.
    expect(
      maxDifference(download(out, 2, F32), [0.6 * 0.6 - 0.8 * 0.8, 0.6 * 0.8 + 0.8 * 0.6].map(Math.fround)),
    ).toBeLessThan(1e-6);
  });
});

describe("ditrun_to_bytes on the CPU", () => {
  it.each([F32, BF16])("clamps, rounds to nearest even, and makes 0 of a NaN, dtype %i", (dtype) => {
    const exact = [-1, 1, 0, 0.003, -0.9961, 1.2, -3, Number.NaN, 1.5 / 127.5 - 1, 2.5 / 127.5 - 1];
    const x = exact.map((value) => rounded(value, dtype));
    const out = made((result) => raw.malloc(x.length, 0, result));
    check(raw.toBytes(out, upload(x, dtype), dtype, x.length, stream));
    const bytes = new Uint8Array(x.length);
    check(raw.download(bytes, out, x.length, stream));
    const expected = x.map((value) => Math.fround(Math.fround(value + 1) * 127.5));
    const clamped = new Uint8ClampedArray(expected.length);
    expected.forEach((value, index) => {
      clamped[index] = value;
    });
    expect([...bytes]).toEqual([...clamped]);
    expect([...bytes]).toContain(255);
    check(raw.free(out));
  });
});
