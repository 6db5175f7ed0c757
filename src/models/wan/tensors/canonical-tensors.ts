import { DitrunError } from "../../../failure.js";
import type { About, Place, Scale, Slice, TensorFile, TensorInfo } from "../../../formats/tensor-file.js";
import type { Part, Spelling } from "./spellings.js";

/** How a tensor stands in the file. */
export interface Stored {
  readonly name: string;
  /** Where it is stored in another one of the same bytes. */
  readonly shape?: readonly number[];
  readonly scale?: Scale | undefined;
  readonly squares?: Float32Array | undefined;
}

/** What was found out about a file on the way. */
export interface Recognised {
  readonly part: Part;
  readonly spelling: Spelling;
  readonly prefix: string;
  /** How its weights are scaled, in words; undefined where they are not. */
  readonly dialect: string | undefined;
  /** Names of tensors that are not used, by the rule that ignores them. */
  readonly ignored: ReadonlyMap<string, readonly string[]>;
}

/** One part of a model in a file, its tensors by the names of the published code, with their scales. */
export class CanonicalTensors implements TensorFile {
  constructor(
    private readonly file: TensorFile,
    private readonly tensors: ReadonlyMap<string, Stored>,
    readonly recognised: Recognised,
  ) {}

  get path(): string {
    return this.file.path;
  }

  get about(): About {
    return this.file.about;
  }

  names(): string[] {
    return [...this.tensors.keys()];
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  info(name: string): TensorInfo {
    const { name: stored, shape, scale, squares } = this.#stored(name);
    const { dtype, byteLength, shape: own } = this.file.info(stored);
    return { dtype, byteLength, shape: shape ?? own, ...(scale && { scale }), ...(squares && { squares }) };
  }

  place(name: string): Place {
    return this.file.place(this.#stored(name).name);
  }

  /** A tensor of another shape than it is stored in has the same first dimension: only that one may be sliced. */
  async read(name: string, slice?: Slice, into?: Uint8Array): Promise<Uint8Array> {
    const { name: stored, shape } = this.#stored(name);
    if (shape && slice && slice.dim !== 0) throw new Error(`${name} can only be sliced by rows.`);
    return this.file.read(stored, slice, into);
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  #stored(name: string): Stored {
    const found = this.tensors.get(name);
    if (found) return found;
    const { part, spelling, prefix } = this.recognised;
    const names =
      spelling.layout === "original" && prefix === ""
        ? ""
        : `, ${spelling.layout} names${prefix === "" ? "" : ` below ${prefix}`}`;
    throw new DitrunError(
      "ERR_TENSOR_MISSING",
      `${this.path} has no tensor ${name} among the ${this.tensors.size} of its ${part}${names}; are these the weights of this model?`,
    );
  }
}
