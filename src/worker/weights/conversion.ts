import type { FileDtype, TensorFile, TensorInfo } from "../../formats/tensor-file.js";
import type { Device } from "../runtime/device.js";
import { type DType, type Tensor, tensor } from "../runtime/tensor.js";
import type { Asked } from "./noted-source.js";
import { type WeightSource, wholeOf } from "./source.js";

/** A tensor of the new file. */
export interface NewTensor {
  readonly name: string;
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
}

/** A parameter on its way to a new file. */
export interface Conversion {
  readonly asked: Asked;
  /** Its bytes as they are stored, since what they are loaded as holds them all. */
  readonly keeps: boolean;
  /** The weight, and with e4m3 its scales and maybe sums of squares. */
  readonly tensors: readonly NewTensor[];
  /** Of the source. */
  readonly bytes: number;
}

const fileDtypes: Partial<Record<DType, FileDtype>> = { fp32: "F32", bf16: "BF16", fp16: "F16", e4m3: "F8_E4M3" };
const wide: readonly FileDtype[] = ["F32", "BF16", "F16"];

/**
 * What a parameter becomes: what the model would load of the source, so that loading it again changes nothing. An e4m3 weight has one scale
 * a row, float32 [rows, 1], as LightX2V writes them: they are those of the fp8 kernels. `row_squares` [rows], of the weight
 * before it was quantised, are there where the model bounds outputs with them.
 * @param changed a LoRA is laid over it.
 */
export function conversionOf(asked: Asked, info: TensorInfo, changed: boolean): Conversion {
  const { parameter, dtype, squares } = asked;
  const { name, shape } = parameter;
  const keeps = dtype === "fp32" && !changed && info.scale === undefined && wide.includes(info.dtype);
  const own = fileDtypes[dtype];
  if (own === undefined) throw new Error(`${name} is loaded as ${dtype}, which no file holds.`);
  const tensors: NewTensor[] = [{ name, dtype: keeps ? info.dtype : own, shape }];
  const rows = shape[0] ?? 1;
  if (dtype === "e4m3") tensors.push({ name: beside(name, "weight_scale"), dtype: "F32", shape: [rows, 1] });
  if (squares) tensors.push({ name: beside(name, "row_squares"), dtype: "F32", shape: [rows] });
  return { asked, keeps, tensors, bytes: info.byteLength };
}

const beside = (weight: string, suffix: string) => weight.replace(/weight$/, suffix);

/** Where converted bytes go. */
export type Put = (tensor: string, offset: number, bytes: Uint8Array) => Promise<void>;

/** Elements that are on the device at once: what bounds the memory, whatever the file. */
const PIECE_ELEMENTS = 8 * 2 ** 20;

/** Converts parameters one after the other, some rows at a time, in memory of its own on the device. */
export class Converter {
  readonly #room: Tensor;
  readonly #scales: Tensor;
  readonly #squares: Tensor;

  /** @param file the source's tensors. @param source the same, with LoRAs laid over them. */
  constructor(
    private readonly device: Device,
    private readonly file: TensorFile,
    private readonly source: WeightSource,
    conversions: readonly Conversion[],
    private readonly pieceElements = PIECE_ELEMENTS,
  ) {
    const loaded = conversions.filter(({ keeps }) => !keeps);
    const largest = Math.max(1, ...loaded.map((each) => this.#rowsAtOnce(each) * columnsOf(each)));
    const rows = Math.max(
      1,
      ...loaded.filter(({ asked }) => asked.dtype === "e4m3").map((each) => this.#rowsAtOnce(each)),
    );
    this.#room = device.allocatePersistent("fp32", [largest]);
    this.#scales = device.allocatePersistent("fp32", [rows]);
    this.#squares = device.allocatePersistent("fp32", [rows]);
  }

  /** Hands all bytes of a parameter's tensors over. @throws DitrunError when the source cannot be read. */
  async convert(conversion: Conversion, put: Put): Promise<void> {
    const rows = conversion.asked.parameter.shape[0] ?? 1;
    const step = this.#rowsAtOnce(conversion);
    let before: () => Promise<void> = async () => {};
    for (let start = 0; start < rows; start += step) {
      const count = Math.min(step, rows - start);
      // While the disk takes one piece, the next is read.
      const [piece] = await Promise.all([this.#piece(conversion, start, count), before()]);
      before = async () => {
        for (const [index, { name }] of conversion.tensors.entries()) {
          const bytes = piece[index];
          if (!bytes) throw new Error(`${name} has no bytes.`);
          await put(name, (start * bytes.byteLength) / count, bytes);
        }
      };
    }
    await before();
  }

  /** These rows of each of its tensors, in their order. */
  async #piece({ asked, keeps }: Conversion, start: number, count: number): Promise<Uint8Array[]> {
    const { device, file, source } = this;
    const { parameter, dtype, squares } = asked;
    if (keeps) {
      const whole = start === 0 && count === (parameter.shape[0] ?? 1);
      return [await file.read(parameter.name, whole ? undefined : { dim: 0, start, end: start + count })];
    }
    const { columns } = wholeOf(parameter);
    const rows = tensor(this.#room.address, dtype, [count, columns.count]);
    const scales = tensor(this.#scales.address, "fp32", [count]);
    const sums = tensor(this.#squares.address, "fp32", [count, 1]);
    const out = dtype === "e4m3" ? { ...rows, rowScale: scales } : rows;
    await source.load(parameter, { rows: [{ start, count }], columns }, out, squares ? { squares: sums } : {});
    await device.synchronize();
    const wanted = [rows, ...(dtype === "e4m3" ? [scales] : []), ...(squares ? [sums] : [])];
    const pieces: Uint8Array[] = [];
    for (const each of wanted) pieces.push(await device.download(each));
    return pieces;
  }

  #rowsAtOnce(conversion: Conversion): number {
    const rows = conversion.asked.parameter.shape[0] ?? 1;
    return Math.max(1, Math.min(rows, Math.floor(this.pieceElements / columnsOf(conversion))));
  }
}

const columnsOf = ({ asked }: Conversion) => wholeOf(asked.parameter).columns.count;
