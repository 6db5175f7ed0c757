import { DitrunError } from "../../failure.js";
import { describe, expectShape, type FileDtype, type TensorFile, type TensorInfo } from "../../formats/tensor-file.js";
import type { Seed } from "../../protocol/seed.js";
import type { Range } from "../comm/shares.js";
import { cast } from "../ops/elementwise.js";
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

/** Where weights come from. */
export interface WeightSource {
  /**
   * Writes the part [Σ rows, columns] of a parameter to out, contiguous, in out's dtype (fp32 or bf16). While the device is
   * measuring it checks the parameter and writes nothing.
   */
  load(parameter: Parameter, part: Part, out: Tensor): Promise<void>;
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

  async load(parameter: Parameter, part: Part, out: Tensor): Promise<void> {
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
  },
): void {
  const { out, init } = options;
  const amplitude = init.kind === "uniform" ? init.bound : init.kind === "normal" ? init.std : 0;
  random(device, out, {
    seed: BigInt(options.seed),
    tensorId: tensorId(options.name),
    fullColumns: options.fullColumns,
    row0: options.row0,
    column0: options.column0,
    distribution: init.kind === "normal" ? "normal" : "uniform",
    amplitude,
    offset: init.kind === "constant" ? init.value : init.kind === "uniform" ? (init.around ?? 0) : 0,
  });
}

const fileDtypes: Partial<Record<FileDtype, Tensor["dtype"]>> = { F32: "fp32", BF16: "bf16", F16: "fp16" };

function remedy({ dtype }: TensorInfo): string {
  return dtype.startsWith("F8_")
    ? "fp8 checkpoints are not read: take one in bf16, which --fp8 quantises as it is loaded"
    : `it must be converted from ${dtype} to F32, BF16 or F16`;
}

/** Weights of a checkpoint: only the bytes that this rank needs are read; the device converts them. */
export class CheckpointWeights implements WeightSource {
  constructor(
    private readonly device: Device,
    private readonly file: TensorFile,
  ) {}

  /** @throws DitrunError when the tensor is missing or has another shape or a dtype that is not floating point. */
  async load(parameter: Parameter, part: Part, out: Tensor): Promise<void> {
    const { device, file } = this;
    const info = expectShape(file, parameter.name, parameter.shape);
    const dtype = fileDtypes[info.dtype];
    if (!dtype)
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `${file.path}: tensor ${parameter.name} is ${describe(info)}; ${remedy(info)}.`,
      );
    if (device.measuring) return;
    const whole = wholeOf(parameter);
    const allColumns = part.columns.count === whole.columns.count;
    if (
      !allColumns &&
      (part.rows.length > 1 || part.rows[0]?.count !== whole.rows[0]?.count || info.shape.length !== 2)
    ) {
      throw new Error(`${parameter.name} cannot be cut by rows and by columns at once.`);
    }
    const columns = { start: part.columns.start, end: part.columns.start + part.columns.count };
    await withStaging(device, dtype, out.shape, async (staging) => {
      let written = 0;
      for (const { start, count } of part.rows) {
        const slice = allColumns ? { dim: 0, start, end: start + count } : { dim: 1, ...columns };
        const bytes = await file.read(parameter.name, slice);
        await device.upload(tensor(staging.address + written, dtype, [bytes.byteLength]), bytes);
        written += bytes.byteLength;
      }
      cast(device, out, staging);
    });
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}
