import type { DType, Tensor } from "../runtime/tensor.js";
import type { OnTheWay, Parameter, Part, WeightSource } from "./source.js";

/** How a model loads one of its parameters. */
export interface Asked {
  readonly parameter: Parameter;
  /** In what it is kept on the device. */
  readonly dtype: DType;
  /** Whether the sums of squares of its rows are asked for, before it is quantised. */
  readonly squares: boolean;
}

/** Gives nothing, and notes what a model asks for while it is rehearsed: the model itself says what its weights are kept in. */
export class NotedSource implements WeightSource {
  readonly asked = new Map<string, Asked>();

  async load(
    parameter: Parameter,
    _part: Part,
    { dtype }: Tensor,
    { squares, factor = 1 }: OnTheWay = {},
  ): Promise<void> {
    const { name } = parameter;
    if (factor !== 1 || this.asked.has(name)) throw new Error(`${name} is not asked for once, as it is.`);
    this.asked.set(name, { parameter, dtype, squares: squares !== undefined });
  }

  async close(): Promise<void> {}
}
