import { DitrunError } from "../../failure.js";
import type { Lora, LoraChange, LoraPair } from "../../formats/lora.js";
import { describe } from "../../formats/tensor-file.js";
import { fillZero, transpose } from "../ops/copy.js";
import { cast, combine, multiply } from "../ops/elementwise.js";
import { gemm } from "../ops/gemm.js";
import { rowSumSquares } from "../ops/norm.js";
import { quantizeRows } from "../ops/quantize.js";
import type { Device } from "../runtime/device.js";
import { elements, type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import { CheckpointWeights } from "./checkpoint.js";
import { kronecker } from "./kronecker.js";
import { type OnTheWay, type Parameter, type Part, type WeightSource, wholeOf } from "./source.js";

/** A LoRA that is laid over weights. */
export interface LaidLora extends Lora {
  readonly strength: number;
}

/** One of them, and what it does to a parameter. */
interface Step {
  readonly lora: LaidLora;
  readonly change: LoraChange;
}

/** Float32 sums that may be under way at once: enough to read the next while one is made, and little beside any transformer. */
const MOST_BYTES_UNDER_WAY = 512 * 2 ** 20;

/**
 * Weights with LoRAs laid over them: W + Σ strength · (alpha / rank) · B · A (arXiv 2106.09685), summed in float32 and rounded once, to
 * what is asked for. Of B and A only what the part needs is made. LoHa and LoKr have other products, which are made of float32 factors.
 */
export class LoraWeights implements WeightSource {
  #underWay = 0;

  constructor(
    private readonly device: Device,
    private readonly base: WeightSource,
    private readonly loras: readonly LaidLora[],
  ) {}

  async load(parameter: Parameter, part: Part, out: Tensor, onTheWay: OnTheWay = {}): Promise<void> {
    const { device, base } = this;
    const steps = this.loras.flatMap((lora) =>
      (lora.changes.get(parameter.name) ?? []).map((change): Step => ({ lora, change })),
    );
    if (steps.length === 0 || device.measuring) return base.load(parameter, part, out, onTheWay);
    const shape = [part.rows.reduce((all, { count }) => all + count, 0), part.columns.count];
    await this.#makeRoom(shape);
    const sum = out.dtype === "fp32" ? tensor(out.address, "fp32", shape) : await device.stage("fp32", shape);
    await base.load(parameter, part, sum);
    // What replaces the weight comes before all that is added to it.
    for (const step of steps) if (step.change.kind === "replacement") await this.#apply(sum, step, parameter, part);
    await this.#addAll(
      sum,
      steps.filter(({ change }) => change.kind !== "replacement"),
      parameter,
      part,
    );
    await device.reader.after(() => {
      const { factor = 1, squares } = onTheWay;
      if (factor !== 1) combine(device, sum, [{ coefficient: factor, x: sum }]);
      if (out.dtype === "fp32") return;
      if (out.dtype === "e4m3") {
        quantizeRows(device, { ...out, shape, rowStride: part.columns.count }, sum);
        if (squares) rowSumSquares(device, squares, sum);
      } else cast(device, tensor(out.address, out.dtype, shape), sum);
      device.unstage(sum);
    });
  }

  /** Its files are whose opened them. */
  async close(): Promise<void> {}

  /** Waits for what is under way where it is much. */
  async #makeRoom(shape: readonly number[]): Promise<void> {
    this.#underWay += tensorBytes("fp32", shape);
    if (this.#underWay <= MOST_BYTES_UNDER_WAY) return;
    await this.device.reader.settle();
    this.#underWay = tensorBytes("fp32", shape);
  }

  /** sum += all changes. Several are added up on their own first: the large weight then rounds their sum once, whatever their order. */
  async #addAll(sum: Tensor, steps: readonly Step[], parameter: Parameter, part: Part): Promise<void> {
    const { device } = this;
    const [first, second] = steps;
    if (first && !second) return this.#apply(sum, first, parameter, part);
    if (!first) return;
    const all = await device.stage("fp32", sum.shape);
    await device.reader.after(() => fillZero(device, all));
    for (const step of steps) await this.#apply(all, step, parameter, part);
    await device.reader.after(() => {
      add(device, sum, 1, all, 1);
      device.unstage(all);
    });
  }

  /** Begins to change sum, float32 [rows, columns] of the part. */
  async #apply(sum: Tensor, { lora, change }: Step, parameter: Parameter, part: Part): Promise<void> {
    const { device } = this;
    const { strength } = lora;
    if (change.kind === "sum" || change.kind === "replacement") {
      const values = await this.#read(lora, change.tensor, part, parameter);
      await device.reader.after(() => {
        // At strength 1 a replacement is exact, since the weight then counts nothing.
        if (change.kind === "sum") add(device, sum, 1, values, strength * change.scale);
        else add(device, sum, 1 - strength, values, strength);
        device.unstage(values);
      });
      return;
    }
    if (change.kind === "product") return this.#addProduct(sum, lora, change, part, strength * change.scale);
    const delta =
      change.kind === "hadamard"
        ? await this.#hadamard(lora, change.pairs, part)
        : await this.#kronecker(lora, change.factors, part);
    await device.reader.after(() => {
      add(device, sum, 1, delta, strength * change.scale);
      device.unstage(delta);
    });
  }

  /** Begins sum += factor · up · down. */
  async #addProduct(sum: Tensor, lora: LaidLora, { up, down }: LoraPair, part: Part, factor: number): Promise<void> {
    const { device } = this;
    const { rows, columns } = part;
    const rank = lora.file.info(down).shape[0] ?? 1;
    const ranks = { start: 0, count: rank };
    const left = await this.#read(lora, up, { rows, columns: ranks });
    const right = await this.#read(lora, down, { rows: [ranks], columns });
    const turned = await device.stage("fp32", [columns.count, rank]);
    await device.reader.after(() => {
      transpose(device, turned, right);
      gemm(device, sum, left, turned, { residual: sum, alpha: factor });
      for (const each of [left, right, turned]) device.unstage(each);
    });
  }

  /** Begins to make a part of a pair's product, float32, which is to be unstaged. */
  async #product(lora: LaidLora, pair: LoraPair, part: Part): Promise<Tensor> {
    const { device } = this;
    const out = await device.stage("fp32", sizeOf(part));
    await device.reader.after(() => fillZero(device, out));
    await this.#addProduct(out, lora, pair, part, 1);
    return out;
  }

  /** Begins to make a part of two products' product, element by element. */
  async #hadamard(lora: LaidLora, [one, other]: readonly [LoraPair, LoraPair], part: Part): Promise<Tensor> {
    const { device } = this;
    const first = await this.#product(lora, one, part);
    const second = await this.#product(lora, other, part);
    await device.reader.after(() => {
      multiply(device, first, first, second);
      device.unstage(second);
    });
    return first;
  }

  /** Begins to make a part of a Kronecker product. */
  async #kronecker(
    lora: LaidLora,
    [outer, inner]: readonly [string | LoraPair, string | LoraPair],
    part: Part,
  ): Promise<Tensor> {
    const { device } = this;
    const whole = async (factor: string | LoraPair): Promise<Tensor> => {
      const [rows = 1] = lora.file.info(typeof factor === "string" ? factor : factor.up).shape;
      const { shape } = lora.file.info(typeof factor === "string" ? factor : factor.down);
      const all = { rows: [{ start: 0, count: rows }], columns: { start: 0, count: elements(shape.slice(1)) } };
      return typeof factor === "string" ? this.#read(lora, factor, all) : this.#product(lora, factor, all);
    };
    const [blocks, block] = [await whole(outer), await whole(inner)];
    const out = await device.stage("fp32", sizeOf(part));
    await device.reader.after(() => {
      kronecker(device, out, blocks, block, part);
      device.unstage(blocks);
      device.unstage(block);
    });
    return out;
  }

  /**
   * Begins to read a part of a file's tensor into float32 [rows, columns], which is to be unstaged.
   * @param parameter whose part it is, if not the tensor's own. @throws DitrunError where the tensor cannot be cut so.
   */
  async #read({ file }: LaidLora, name: string, part: Part, parameter?: Parameter): Promise<Tensor> {
    const { device } = this;
    const own = { name, shape: file.info(name).shape, init: { kind: "constant", value: 0 } } as const;
    const count = part.rows.reduce((all, range) => all + range.count, 0);
    const values = await device.stage("fp32", [count, part.columns.count]);
    // A tensor of one row, as a modulation, is stored with or without a dimension of length 1 in front.
    const alike = !parameter || own.shape[0] === parameter.shape[0];
    const whole = count * part.columns.count === elements(own.shape);
    if (!alike && !whole)
      throw new DitrunError(
        "ERR_LORA",
        `${file.path}: ${name} is ${describe(file.info(name))}, which tensor parallelism cannot cut as it does ${parameter?.name}, [${parameter?.shape.join(", ")}].`,
      );
    const from = alike ? part : wholeOf(own);
    const rows = from.rows.reduce((all, range) => all + range.count, 0);
    await new CheckpointWeights(device, file).load(
      own,
      from,
      tensor(values.address, "fp32", [rows, from.columns.count]),
    );
    return values;
  }
}

const sizeOf = ({ rows, columns }: Part) => [rows.reduce((all, { count }) => all + count, 0), columns.count];

/** x = a · x + b · y, float32. */
function add(device: Device, x: Tensor, a: number, y: Tensor, b: number): void {
  combine(device, x, [
    { coefficient: a, x },
    { coefficient: b, x: y },
  ]);
}
