/**
 * How numbers stand in files: bytes of one element, by the names that safetensors gives its dtypes.
 * Source: Dtype of the format's own reader, safetensors/src/tensor.rs.
 */
export const elementBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;
/** A dtype whose elements stand alone. */
export type PlainDtype = keyof typeof elementBytes;

const small = 32;
const large = 256;

/**
 * GGUF's types that share scales within a block: so many elements of a row in so many bytes.
 * Source: the structs block_q4_0 … block_iq4_xs of ggml, ggml-common.h.
 */
export const blockTypes = {
  Q4_0: { blockElements: small, blockBytes: 18 },
  Q4_1: { blockElements: small, blockBytes: 20 },
  Q5_0: { blockElements: small, blockBytes: 22 },
  Q5_1: { blockElements: small, blockBytes: 24 },
  Q8_0: { blockElements: small, blockBytes: 34 },
  IQ4_NL: { blockElements: small, blockBytes: 18 },
  Q2_K: { blockElements: large, blockBytes: 84 },
  Q3_K: { blockElements: large, blockBytes: 110 },
  Q4_K: { blockElements: large, blockBytes: 144 },
  Q5_K: { blockElements: large, blockBytes: 176 },
  Q6_K: { blockElements: large, blockBytes: 210 },
  IQ4_XS: { blockElements: large, blockBytes: 136 },
} as const;
export type BlockDtype = keyof typeof blockTypes;

export type FileDtype = PlainDtype | BlockDtype;

/** The least that stands alone: one element, or a block of them. */
export interface Block {
  readonly blockElements: number;
  readonly blockBytes: number;
}

export function isPlainDtype(name: string): name is PlainDtype {
  return Object.hasOwn(elementBytes, name);
}

export function isBlockDtype(name: string): name is BlockDtype {
  return Object.hasOwn(blockTypes, name);
}

export function blockOf(dtype: FileDtype): Block {
  return isBlockDtype(dtype) ? blockTypes[dtype] : { blockElements: 1, blockBytes: elementBytes[dtype] };
}

/** Bytes of so many elements, which must be whole blocks. */
export function bytesOf(dtype: FileDtype, elements: number): number {
  const { blockElements, blockBytes } = blockOf(dtype);
  return (elements / blockElements) * blockBytes;
}
