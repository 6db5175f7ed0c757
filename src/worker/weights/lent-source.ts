import type { Tensor } from "../runtime/tensor.js";
import type { OnTheWay, Parameter, Part, WeightSource } from "./source.js";

/** A source that is lent only while something is loaded. What was loaded by it may be loaded anew by it, of another source. */
export class LentSource implements WeightSource {
  #source: WeightSource | undefined;
  #asked = new Set<string>();

  /** Runs the body with a source, which the caller closes. */
  async lend<T>(source: WeightSource, body: () => Promise<T>): Promise<T> {
    const before = this.#source;
    this.#source = source;
    try {
      return await body();
    } finally {
      this.#source = before;
    }
  }

  async load(parameter: Parameter, part: Part, out: Tensor, onTheWay?: OnTheWay): Promise<void> {
    if (!this.#source) throw new Error(`${parameter.name} is asked for when there is no source.`);
    this.#asked.add(parameter.name);
    await this.#source.load(parameter, part, out, onTheWay);
  }

  /** Runs the body. @returns its value, and the names of the parameters that it asked for. */
  async noting<T>(body: () => Promise<T>): Promise<{ readonly value: T; readonly asked: ReadonlySet<string> }> {
    const asked = new Set<string>();
    this.#asked = asked;
    return { value: await body(), asked };
  }

  async close(): Promise<void> {}
}
