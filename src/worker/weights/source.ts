import type { Seed } from "../../protocol/seed.js";
import type { Range } from "../comm/shares.js";
import { rowSumSquares } from "../ops/norm.js";
import { quantizeRows } from "../ops/quantize.js";
import { random } from "../ops/random.js";
import type { Device } from "../runtime/device.js";
import { withStaging } from "../runtime/staging.js";
import { dtypeBytes, elements, rowsOf, type Tensor, tensor } from "../runtime/tensor.js";
import type { Init, Parameter } from "./parameter.js";
import { type Band, wideBands } from "./wide.js";

export type { Init, Parameter } from "./parameter.js";

/** The part of a parameter that a rank keeps: some runs of rows, one below the other, and a run of columns. */
export interface Part {
  readonly rows: readonly Range[];
  readonly columns: Range;
}

/** What else is done with a part on its way. */
export interface OnTheWay {
  /** float32 [rows], with an e4m3 out only: each row's sum of squares before it is quantised. */
  readonly squares?: Tensor | undefined;
  /** All of it is multiplied with this, in float32. */
  readonly factor?: number;
}

/** Where weights come from. */
export interface WeightSource {
  /**
   * Begins to write the part [Σ rows, columns] of a parameter to out, contiguous, in out's dtype: fp32, bf16, fp16, or e4m3 with row
   * scales, which is quantised from float32 unless it is stored so. It is there once the device's reader has settled; what uses it
   * before is given to `device.reader.after`. While the device is measuring it checks the parameter and writes nothing.
   */
  load(parameter: Parameter, part: Part, out: Tensor, onTheWay?: OnTheWay): Promise<void>;
  /** The device's reader must have settled. */
  close(): Promise<void>;
}

/** The whole of a parameter seen as a matrix. */
export function wholeOf({ shape }: Parameter): Part {
  const rows = shape[0] ?? 1;
  return { rows: [{ start: 0, count: rows }], columns: { start: 0, count: elements(shape) / rows } };
}

/** A number for a parameter's name: FNV-1a, 32 bits. Names it, together with the seed, to the counter-based generator. */
export function tensorId(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** Seeded random weights: every rank of every layout and device sees slices of the same full tensors. */
export class RandomWeights implements WeightSource {
  /** @param wideBlocks draws them for checks of a model of so many blocks (wideBands), else as a new model's. */
  constructor(
    private readonly device: Device,
    private readonly seed: Seed,
    private readonly wideBlocks?: number,
  ) {}

  async load(parameter: Parameter, part: Part, out: Tensor, { squares, factor = 1 }: OnTheWay = {}): Promise<void> {
    if (out.dtype !== "e4m3") {
      this.#fill(parameter, part, out, factor);
      return;
    }
    if (this.device.measuring) return;
    const { device } = this;
    const rows = part.rows.reduce((sum, { count }) => sum + count, 0);
    await withStaging(device, "fp32", [rows, part.columns.count], async (exact) => {
      this.#fill(parameter, part, exact, factor);
      quantizeRows(device, { ...out, shape: exact.shape, rowStride: exact.rowStride }, exact);
      if (squares) rowSumSquares(device, squares, exact);
    });
  }

  #fill(parameter: Parameter, part: Part, out: Tensor, factor: number): void {
    const whole = wholeOf(parameter);
    const [all = { start: 0, count: 0 }] = whole.rows;
    const bands: readonly Band[] = this.wideBlocks
      ? wideBands(parameter, this.wideBlocks)
      : [{ rows: all, init: parameter.init }];
    const { columns } = part;
    let written = 0;
    for (const { start, count } of part.rows) {
      const rowsHere = rowsOf(tensor(out.address, out.dtype, [written + count, columns.count]), written, count);
      for (const { rows, column, init } of bands) {
        const from = Math.max(start, rows.start);
        const to = Math.min(start + count, rows.start + rows.count);
        const column0 = column ?? columns.start;
        if (to <= from || column0 < columns.start || column0 >= columns.start + columns.count) continue;
        const target = rowsOf(rowsHere, from - start, to - from);
        const offset = (column0 - columns.start) * dtypeBytes(out.dtype);
        fillRandom(this.device, {
          out:
            column === undefined
              ? target
              : tensor(target.address + offset, out.dtype, [to - from, 1], target.rowStride),
          seed: this.seed,
          name: parameter.name,
          fullColumns: whole.columns.count,
          row0: from,
          column0,
          init,
          factor,
        });
      }
      written += count;
    }
  }

  async close(): Promise<void> {}
}

/** out [rows, columns] = the slice at (row0, column0) of the random tensor of this name and seed. */
export function fillRandom(
  device: Device,
  options: {
    out: Tensor;
    seed: Seed;
    name: string;
    fullColumns: number;
    row0?: number;
    column0?: number;
    init: Init;
    /** All numbers are multiplied with it; a power of two changes no digit. */
    factor?: number;
  },
): void {
  const { out, init, factor = 1 } = options;
  const amplitude = factor * (init.kind === "uniform" ? init.bound : init.kind === "normal" ? init.std : 0);
  random(device, out, {
    seed: BigInt(options.seed),
    tensorId: tensorId(options.name),
    fullColumns: options.fullColumns,
    row0: options.row0,
    column0: options.column0,
    distribution: init.kind === "normal" ? "normal" : "uniform",
    amplitude,
    offset: factor * (init.kind === "constant" ? init.value : init.kind === "uniform" ? (init.around ?? 0) : 0),
  });
}
