import { readSync } from "node:fs";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { shown } from "./shown.js";

/** Read at once: most headers are smaller. */
const chunkBytes = 2 ** 20;
const maxValues = 10_000;
const maxKeyBytes = 1000;
const maxTextBytes = 2 ** 24;
/** Of a list, which would else take long to walk through: sixteen times the pieces of the largest tokenizers. */
const maxItems = 2 ** 22;
/** Lists of lists are not used by anyone. */
const maxDepth = 2;
/** Texts that openGguf keeps: names, not templates. */
const keptTextBytes = 4096;

/** Bytes of the metadata's types by number; 8 is a string, 9 a list. */
const widths: readonly (number | undefined)[] = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8];
const STRING = 8;
const LIST = 9;

export type GgufValue = string | number | readonly (string | number)[];

/**
 * Reads the beginning of a GGUF file piece by piece. It reads synchronously: some headers have 200,000 texts, and a promise for each
 * would take seconds. Its methods throw DitrunError where the file ends or a count is beyond what any file has.
 */
export class GgufReader {
  #chunk = Buffer.alloc(0);
  /** Of the chunk, in the file. */
  #start = 0;
  #position = 0;

  constructor(
    private readonly path: string,
    private readonly fd: number,
    private readonly size: number,
  ) {}

  /** In the file. */
  get position(): number {
    return this.#position;
  }

  uint32(): number {
    return this.#bytes(4).readUInt32LE();
  }

  uint64(): number {
    return Number(this.#bytes(8).readBigUInt64LE());
  }

  text(length: number): string {
    return this.#bytes(length).toString("utf8");
  }

  string(what: string, most: number): string {
    const length = this.uint64();
    if (!(length <= most)) this.#refuse(`${what} takes ${length} bytes, and at most ${most} are read`);
    return this.text(length);
  }

  count(what: string, most: number): number {
    const count = this.uint64();
    if (!(count <= most)) this.#refuse(`it announces ${count} ${what}, and at most ${most} are read`);
    return count;
  }

  /** What follows the count of tensors. Numbers and short texts are kept; lists and long texts only where they are wanted. */
  metadata(wanted: (key: string) => boolean): Map<string, GgufValue> {
    const values = new Map<string, GgufValue>();
    const count = this.count("values", maxValues);
    for (let i = 0; i < count; i++) {
      const key = this.string("the name of a value", maxKeyBytes);
      const type = this.uint32();
      const value = type === LIST ? this.#list(wanted(key)) : this.#value(type, wanted(key));
      if (value !== undefined) values.set(key, value);
    }
    return values;
  }

  #value(type: number, wanted: boolean): string | number | undefined {
    if (type === STRING) {
      const length = this.uint64();
      if (!(length <= maxTextBytes)) this.#refuse(`a text takes ${length} bytes, and at most ${maxTextBytes} are read`);
      if (wanted || length <= keptTextBytes) return this.text(length);
      this.#skip(length);
      return undefined;
    }
    const bytes = this.#bytes(widths[type] ?? this.#refuse(`a value has the type ${type}, which is none`));
    switch (type) {
      case 0:
      case 7:
        return bytes.readUInt8();
      case 1:
        return bytes.readInt8();
      case 2:
        return bytes.readUInt16LE();
      case 3:
        return bytes.readInt16LE();
      case 4:
        return bytes.readUInt32LE();
      case 5:
        return bytes.readInt32LE();
      case 6:
        return bytes.readFloatLE();
      case 10:
        return Number(bytes.readBigUInt64LE());
      case 11:
        return Number(bytes.readBigInt64LE());
      default:
        return bytes.readDoubleLE();
    }
  }

  #list(wanted: boolean, depth = 1): (string | number)[] | undefined {
    const type = this.uint32();
    const count = this.count("items of a list", maxItems);
    if (type === LIST) {
      if (depth === maxDepth) this.#refuse("it has lists of lists of lists");
      for (let i = 0; i < count; i++) this.#list(false, depth + 1);
      return undefined;
    }
    const width = widths[type];
    if (!wanted && width !== undefined) {
      this.#skip(width * count);
      return undefined;
    }
    const items: (string | number)[] = [];
    for (let i = 0; i < count; i++) {
      if (!wanted) this.#skip(this.uint64());
      else {
        const item = this.#value(type, true);
        if (item !== undefined) items.push(item);
      }
    }
    return wanted ? items : undefined;
  }

  #skip(length: number): void {
    if (!(this.#position + length <= this.size))
      this.#refuse(`it ends at byte ${this.size}, in the middle of its header`);
    this.#position += length;
  }

  /** Valid until the next call. */
  #bytes(length: number): Buffer {
    const from = this.#position;
    this.#skip(length);
    if (from < this.#start || from + length > this.#start + this.#chunk.length) this.#fill(from, length);
    return this.#chunk.subarray(from - this.#start, from - this.#start + length);
  }

  #fill(from: number, length: number): void {
    const chunk = Buffer.alloc(Math.min(Math.max(chunkBytes, length), this.size - from));
    for (let done = 0; done < chunk.length; ) {
      const bytes = this.#read(chunk, done, from + done);
      if (bytes === 0) this.#refuse(`it ended at byte ${from + done} while its header was read`);
      done += bytes;
    }
    this.#chunk = chunk;
    this.#start = from;
  }

  #read(chunk: Buffer, done: number, position: number): number {
    try {
      return readSync(this.fd, chunk, done, chunk.length - done, position);
    } catch (error) {
      throw new DitrunError("ERR_FILE_READ", `Cannot read ${this.path}: ${fileFailure(error)}.`);
    }
  }

  #refuse(why: string): never {
    throw new DitrunError("ERR_GGUF", `${this.path} is a damaged GGUF file: ${shown(why)}; download it again.`);
  }
}
