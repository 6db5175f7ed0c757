import { DitrunError } from "../../../failure.js";

/** A unigram tokenizer as SentencePiece and GGUF files have it. */
export interface Pieces {
  /** By id: the piece, and the logarithm of its probability. */
  readonly vocabulary: readonly (readonly [piece: string, score: number])[];
  /** Ids of pieces that stand for themselves, as the end of a text. */
  readonly special: readonly number[];
  readonly unknown: number;
  /** Characters without a piece are written as bytes, `<0xE4>` and so on. */
  readonly byteFallback: boolean;
  /** Which of NFKC's rules: SentencePiece's own with those for blanks and control characters, the plain ones, or none. */
  readonly normaliser: "nmt_nfkc" | "nfkc" | "identity";
  /** A blank is put before the text. */
  readonly dummyPrefix: boolean;
}

const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const BYTE = 6;
const UNIGRAM = 1;

/**
 * Reads a SentencePiece model, a protocol buffer (ModelProto in src/sentencepiece_model.proto of github.com/google/sentencepiece).
 * @param name for messages. @throws DitrunError for what is none, and for models that are not unigram.
 */
export function readSentencePiece(name: string, bytes: Uint8Array): Pieces {
  const pieces: { text: string; score: number; type: number }[] = [];
  let model = UNIGRAM;
  let byteFallback = false;
  let dummyPrefix = true;
  let rules = "";
  let charsmap = false;
  const message = new Message(name, bytes);
  for (const field of message) {
    if (field.number === 1) {
      const piece = { text: "", score: 0, type: NORMAL };
      for (const { number, value } of field.message()) {
        if (number === 1) piece.text = textOf(value);
        else if (number === 2) piece.score = floatOf(value);
        else if (number === 3) piece.type = Number(value);
      }
      pieces.push(piece);
    } else if (field.number === 2) {
      for (const { number, value } of field.message()) {
        if (number === 3) model = Number(value);
        else if (number === 35) byteFallback = Number(value) === 1;
      }
    } else if (field.number === 3) {
      for (const { number, value } of field.message()) {
        if (number === 1) rules = textOf(value);
        else if (number === 2) charsmap = typeof value === "object" && value.length > 0;
        else if (number === 3) dummyPrefix = Number(value) === 1;
      }
    }
  }
  if (model !== UNIGRAM) message.refuse(`its type is ${model}, and only unigram models (1) are read`);
  const normaliser = /^nmt/.test(rules) ? "nmt_nfkc" : charsmap || /nfkc/.test(rules) ? "nfkc" : "identity";
  return piecesOf(name, pieces, { byteFallback, normaliser, dummyPrefix });
}

/**
 * The same from lists. Types are SentencePiece's: 1 normal, 2 unknown, 3 control, 6 byte.
 * @throws DitrunError when no piece stands for what is unknown.
 */
export function piecesOf(
  name: string,
  pieces: readonly { readonly text: string; readonly score: number; readonly type: number }[],
  settings: Pick<Pieces, "byteFallback" | "normaliser" | "dummyPrefix">,
): Pieces {
  const unknown = pieces.findIndex(({ type }) => type === UNKNOWN);
  if (unknown < 0)
    throw new DitrunError(
      "ERR_TOKENIZER",
      `${name} is not a tokenizer that ditrun can read: none of its ${pieces.length} pieces is for what is unknown.`,
    );
  const byteFallback = settings.byteFallback || pieces.some(({ type }) => type === BYTE);
  return {
    ...settings,
    byteFallback,
    unknown,
    vocabulary: pieces.map(({ text, score }) => [text, score]),
    special: pieces.flatMap(({ type }, id) => (type === CONTROL || type === UNKNOWN ? [id] : [])),
  };
}

/** The document that tokenizer.json would be: what the tokenizers library reads. */
export function tokenizerDocument({ vocabulary, special, unknown, byteFallback, normaliser, dummyPrefix }: Pieces) {
  const end = vocabulary.findIndex(([piece]) => piece === "</s>");
  const rules = { nmt_nfkc: [{ type: "Precompiled" }], nfkc: [{ type: "NFKC" }], identity: [] }[normaliser];
  const metaspace = {
    ...{ type: "Metaspace", replacement: "▁", split: true },
    prepend_scheme: dummyPrefix ? "always" : "never",
  };
  const ending = [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }];
  return {
    version: "1.0",
    added_tokens: special.map((id) => ({
      ...{ id, content: vocabulary[id]?.[0] ?? "", single_word: false, lstrip: false, rstrip: false },
      ...{ normalized: false, special: true },
    })),
    normalizer: {
      type: "Sequence",
      normalizers: [...rules, { type: "Replace", pattern: { Regex: " {2,}" }, content: " " }],
    },
    pre_tokenizer: metaspace,
    post_processor: {
      ...{ type: "TemplateProcessing", single: ending, pair: ending },
      special_tokens: { "</s>": { id: "</s>", ids: [end], tokens: ["</s>"] } },
    },
    decoder: metaspace,
    model: { type: "Unigram", unk_id: unknown, vocab: vocabulary, byte_fallback: byteFallback },
  };
}

type FieldValue = bigint | Uint8Array;

interface Field {
  readonly number: number;
  readonly value: FieldValue;
  /** The value as a message of its own. */
  message(): Message;
}

/** The fields of a protocol buffer, one after the other. Source: https://protobuf.dev/programming-guides/encoding/ */
class Message {
  #position = 0;

  constructor(
    private readonly name: string,
    private readonly bytes: Uint8Array,
  ) {}

  *[Symbol.iterator](): Generator<Field> {
    while (this.#position < this.bytes.length) {
      const key = Number(this.#varint());
      const value = this.#value(key & 7);
      const message = () =>
        typeof value === "bigint"
          ? this.refuse("a number stands where a message should")
          : new Message(this.name, value);
      yield { number: Math.floor(key / 8), value, message };
    }
  }

  #value(wire: number): FieldValue {
    if (wire === 0) return this.#varint();
    if (wire === 1) return this.#take(8);
    if (wire === 2) return this.#take(Number(this.#varint()));
    if (wire === 5) return this.#take(4);
    return this.refuse(`it has a field of the kind ${wire}`);
  }

  #varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const [byte = 0] = this.#take(1);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    return this.refuse("it has a number that does not end");
  }

  #take(length: number): Uint8Array {
    const start = this.#position;
    if (!(length <= this.bytes.length - start)) this.refuse(`it ends at byte ${this.bytes.length}, within a field`);
    this.#position += length;
    return this.bytes.subarray(start, this.#position);
  }

  refuse(why: string): never {
    throw new DitrunError("ERR_TOKENIZER", `${this.name} is not a SentencePiece model that ditrun can read: ${why}.`);
  }
}

function textOf(value: FieldValue): string {
  return typeof value === "bigint" ? "" : new TextDecoder().decode(value);
}

function floatOf(value: FieldValue): number {
  if (typeof value === "bigint" || value.length !== 4) return Number.NaN;
  return new DataView(value.buffer, value.byteOffset, 4).getFloat32(0, true);
}
