import { DitrunError } from "../../failure.js";
import type { Lora, LoraChange } from "../../formats/lora.js";
import { describe, type FileDtype } from "../../formats/tensor-file.js";
import { fillZero, transpose } from "../ops/copy.js";
import { cast, combine } from "../ops/elementwise.js";
import { gemm } from "../ops/gemm.js";
import type { Device } from "../runtime/device.js";
import { withStaging } from "../runtime/staging.js";
import { elements, type Tensor, tensor } from "../runtime/tensor.js";
import { type Parameter, type Part, type WeightSource, wholeOf } from "./source.js";

/** A LoRA that is laid over weights. */
export interface LaidLora extends Lora {
  readonly strength: number;
}

const dtypes: Partial<Record<FileDtype, Tensor["dtype"]>> = { F32: "fp32", BF16: "bf16", F16: "fp16" };

/**
 * Weights with LoRAs laid over them: W + Σ strength · (alpha / rank) · B · A (arXiv 2106.09685), summed in float32 in the order of the
 * files and rounded once, to the dtype that is asked for. Of B and A only what the part needs is read.
 */
export class LoraWeights implements WeightSource {
  constructor(
    private readonly device: Device,
    private readonly base: WeightSource,
    private readonly loras: readonly LaidLora[],
  ) {}

  async load(parameter: Parameter, part: Part, out: Tensor): Promise<void> {
    const { device, base } = this;
    const changes = this.loras.flatMap((lora) =>
      (lora.changes.get(parameter.name) ?? []).map((change) => ({ lora, change })),
    );
    if (changes.length === 0 || device.measuring) return base.load(parameter, part, out);
    const replacements = changes.filter(({ change }) => change.kind === "replacement");
    const sums = changes.filter(({ change }) => change.kind !== "replacement");
    const apply = async (to: Tensor, some: typeof changes) => {
      for (const { lora, change } of some) await this.#change(to, lora, change, parameter, part);
    };
    const sumInto = async (sum: Tensor) => {
      await base.load(parameter, part, sum);
      // What replaces the weight comes before all that is added to it.
      await apply(sum, replacements);
      if (sums.length <= 1) return apply(sum, sums);
      // Added up on their own first: the large weight then rounds their sum once, whatever their order.
      await withStaging(device, "fp32", out.shape, async (all) => {
        fillZero(device, all);
        await apply(all, sums);
        combine(device, sum, [
          { coefficient: 1, x: sum },
          { coefficient: 1, x: all },
        ]);
      });
    };
    if (out.dtype === "fp32") return sumInto(out);
    await withStaging(device, "fp32", out.shape, async (sum) => {
      await sumInto(sum);
      cast(device, out, sum);
    });
  }

  /** Its files are whose opened them. */
  async close(): Promise<void> {}

  /** sum (float32, the part) changed once. */
  async #change(sum: Tensor, lora: LaidLora, change: LoraChange, parameter: Parameter, part: Part): Promise<void> {
    const { device } = this;
    const { strength } = lora;
    const [rows, columns] = [part.rows.reduce((all, { count }) => all + count, 0), part.columns.count];
    if (change.kind !== "product") {
      await this.#read(lora, change.tensor, parameter.shape, part, async (values) => {
        // At strength 1 a replacement is exact, since the weight then counts nothing.
        const [own, other] = change.kind === "sum" ? [1, strength * change.scale] : [1 - strength, strength];
        combine(device, sum, [
          { coefficient: own, x: sum },
          { coefficient: other, x: values },
        ]);
      });
      return;
    }
    const whole = wholeOf(parameter);
    const rank = lora.file.info(change.down).shape[0] ?? 1;
    const ofUp = { rows: part.rows, columns: { start: 0, count: rank } };
    const ofDown = { rows: [{ start: 0, count: rank }], columns: part.columns };
    await this.#read(lora, change.up, [whole.rows[0]?.count ?? 1, rank], ofUp, (up) =>
      this.#read(lora, change.down, [rank, whole.columns.count], ofDown, (down) =>
        withStaging(device, "fp32", [columns, rank], async (turned) => {
          transpose(device, turned, tensor(down.address, "fp32", [1, rank, columns]));
          const matrix = tensor(sum.address, "fp32", [rows, columns]);
          const a = tensor(up.address, "fp32", [rows, rank]);
          gemm(device, matrix, a, turned, { residual: matrix, alpha: strength * change.scale });
        }),
      ),
    );
  }

  /**
   * Reads a part of a file's tensor, seen with this shape, to the device in float32, and has the body queue what uses it.
   * @throws DitrunError for a dtype that factors do not have.
   */
  async #read(
    { file }: LaidLora,
    name: string,
    shape: readonly number[],
    part: Part,
    body: (values: Tensor) => Promise<void>,
  ): Promise<void> {
    const { device } = this;
    const info = file.info(name);
    const stored = dtypes[info.dtype];
    if (!stored)
      throw new DitrunError(
        "ERR_LORA",
        `${file.path}: ${name} is ${describe(info)}, but a LoRA's tensors must be F32, BF16 or F16.`,
      );
    const all = elements(shape) / (shape[0] ?? 1);
    const count = part.rows.reduce((sum, range) => sum + range.count, 0);
    const bytes: Uint8Array[] = [];
    // A tensor of one row, as a modulation, is stored with or without a dimension of length 1 in front.
    if (part.rows.length === 1 && count === (shape[0] ?? 1) && part.columns.count === all)
      bytes.push(await file.read(name));
    else if (part.columns.count === all) {
      for (const { start, count: rows } of part.rows)
        bytes.push(await file.read(name, { dim: 0, start, end: start + rows }));
    } else {
      const { start, count: columns } = part.columns;
      bytes.push(await file.read(name, { dim: 1, start, end: start + columns }));
    }
    const wanted = [count, part.columns.count];
    await withStaging(device, "fp32", wanted, (values) =>
      withStaging(device, stored, wanted, async (raw) => {
        let written = 0;
        for (const each of bytes) {
          await device.upload(tensor(raw.address + written, stored, [each.byteLength]), each);
          written += each.byteLength;
        }
        cast(device, values, raw);
        await body(values);
      }),
    );
  }
}
