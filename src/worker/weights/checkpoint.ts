import { getSystemErrorName } from "node:util";
import { DitrunError } from "../../failure.js";
import { fileFailure } from "../../files/file-failure.js";
import { describe, expectShape, type TensorFile, type TensorInfo } from "../../formats/tensor-file.js";
import { decodeArgs, type StoredKind, storedKindOf } from "../ops/decode.js";
import type { Device } from "../runtime/device.js";
import type { ReadFailure } from "../runtime/reader.js";
import { dtypeBytes, type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import { type OnTheWay, type Parameter, type Part, type WeightSource, wholeOf } from "./source.js";

/** Weights of a checkpoint: only the rows that this rank needs are read; the device decodes them, and picks its columns. */
export class CheckpointWeights implements WeightSource {
  constructor(
    private readonly device: Device,
    private readonly file: TensorFile,
  ) {}

  /** @throws DitrunError when the tensor is missing or has another shape or a dtype that is no number's, or reading has failed. */
  async load(parameter: Parameter, part: Part, out: Tensor, { squares, factor = 1 }: OnTheWay = {}): Promise<void> {
    const { device, file } = this;
    const { name } = parameter;
    const info = expectShape(file, name, parameter.shape);
    const [{ count: allRows } = { count: 1 }] = wholeOf(parameter).rows;
    const stored = {
      kind: this.#kindOf(name, info),
      rowBytes: info.byteLength / allRows,
      firstColumn: part.columns.start,
    };
    device.reader.want();
    if (device.measuring) return;
    const { fd, path, offset } = file.place(name);
    // Of a file that was quantised before: what was lost then is not in its numbers.
    const known = squares && part.columns.count === parameter.shape[1] && factor === 1 ? info.squares : undefined;
    let done = 0;
    for (const { start, count } of part.rows) {
      const sums = squares && rowsAt(squares, done, count, 1);
      const args = decodeArgs(rowsAt(out, done, count, part.columns.count), stored, known ? undefined : sums);
      if (known && sums) {
        const own = known.slice(start, start + count);
        await device.reader.after(() => device.upload(sums, new Uint8Array(own.buffer)));
      }
      const scales = scalesOf(info, factor, start, count);
      device.reader.submit({
        ...{ file: fd, offset: offset + start * stored.rowBytes, scales },
        args: { ...args, scaleRows: scales.length > 1 ? 1 : 0 },
        failed: (at) => readFailure(path, name, at),
      });
      done += count;
    }
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  #kindOf(name: string, info: TensorInfo): StoredKind {
    const kind = storedKindOf(info.dtype);
    if (kind) return kind;
    throw new DitrunError(
      "ERR_CHECKPOINT_MISMATCH",
      `${this.file.path}: tensor ${name} is ${describe(info)}; it must be converted from ${info.dtype} to F32, BF16 or F16.`,
    );
  }
}

/** Rows of a contiguous matrix of so many columns, with their scales if it has any. */
function rowsAt({ address, dtype, rowScale }: Tensor, start: number, count: number, columns: number): Tensor {
  const rows = tensor(address + start * tensorBytes(dtype, [columns]), dtype, [count, columns]);
  if (!rowScale) return rows;
  const scale = tensor(rowScale.address + start * dtypeBytes(rowScale.dtype), rowScale.dtype, [count]);
  return { ...rows, rowScale: scale };
}

/** What these rows are multiplied with. */
function scalesOf({ scale }: TensorInfo, factor: number, start: number, count: number): number[] {
  if (!scale) return factor === 1 ? [] : [factor];
  const own = scale.rows === "one" ? scale.values.subarray(0, 1) : scale.values.subarray(start, start + count);
  return Array.from(own, (value) => Math.fround(value * factor));
}

function readFailure(path: string, name: string, { offset, errno }: ReadFailure): DitrunError {
  if (errno === 0)
    return new DitrunError(
      "ERR_FILE_READ",
      `${path} ended at byte ${offset} while tensor ${name} was read: it was cut off or replaced since it was opened.`,
    );
  const reason = fileFailure(
    Object.assign(new Error(getSystemErrorName(-errno)), { code: getSystemErrorName(-errno) }),
  );
  return new DitrunError("ERR_FILE_READ", `Cannot read tensor ${name} of ${path} at byte ${offset}: ${reason}.`);
}
