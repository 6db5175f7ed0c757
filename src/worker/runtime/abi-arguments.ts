import type { Address } from "./abi.js";

// The structs of kernels/include/ditrun.h, field for field; abi.ts has their C types.

export interface GemmArgs {
  a: Address;
  w: Address;
  bias: Address;
  residual: Address;
  out: Address;
  aScale: Address;
  wScale: Address;
  gate: Address;
  outScale: Address;
  lda: number;
  ldw: number;
  ldo: number;
  ldResidual: number;
  aStride: number;
  wStride: number;
  biasStride: number;
  outStride: number;
  residualStride: number;
  m: number;
  n: number;
  k: number;
  batch: number;
  dtype: number;
  outDtype: number;
  biasDtype: number;
  residualDtype: number;
  activation: number;
  /** 0 the fastest, 1 cuBLASLt, 2 + i an sm_90 tile. */
  kernel: number;
  aScaleColumns: number;
  alpha: number;
}

export interface KvBlock {
  k: Address;
  v: Address;
  flag: Address;
  kStride: number;
  vStride: number;
  kScale: Address;
  length: number;
  reserved: number;
}

export interface AttentionArgs {
  q: Address;
  o: Address;
  lse: Address;
  previousO: Address;
  previousLse: Address;
  blocks: KvBlock[];
  relativeBias: Address;
  qScale: Address;
  vScale: Address;
  waitNanoseconds: Address;
  oScale: Address;
  workspace: Address;
  qStride: number;
  oStride: number;
  workspaceBytes: number;
  queries: number;
  heads: number;
  headDim: number;
  blockCount: number;
  dtype: number;
  oDtype: number;
  kernel: number;
  scale: number;
}

export interface QuantizeKvArgs {
  k: Address;
  v: Address;
  statistics: Address;
  outK: Address;
  outV: Address;
  kScale: Address;
  vScale: Address;
  ldk: number;
  ldv: number;
  totalRows: number;
  rows: number;
  heads: number;
  headDim: number;
  statisticsCount: number;
  dtype: number;
  reserved: number;
}

export interface LayerNormArgs {
  x: Address;
  weight: Address;
  bias: Address;
  out: Address;
  quantized: Address;
  quantizedScale: Address;
  bound: Address;
  modScale: Address;
  modShift: Address;
  ldx: number;
  ldo: number;
  rows: number;
  columns: number;
  xDtype: number;
  weightDtype: number;
  outDtype: number;
  epsilon: number;
  boundFactor: number;
  boundTerm: number;
}

export interface RmsNormArgs {
  x: Address;
  weight: Address;
  out: Address;
  quantized: Address;
  quantizedScale: Address;
  sumSquares: Address;
  rope: Address;
  ldx: number;
  ldo: number;
  groupStride: number;
  rows: number;
  columns: number;
  fullColumns: number;
  headDim: number;
  /** 0: one group. */
  groupRows: number;
  xDtype: number;
  weightDtype: number;
  outDtype: number;
  activation: number;
  epsilon: number;
}

export interface Conv3dArgs {
  x: Address;
  history: Address;
  weight: Address;
  bias: Address;
  residual: Address;
  out: Address;
  frames: number;
  height: number;
  width: number;
  inChannels: number;
  outChannels: number;
  kernelT: number;
  kernelH: number;
  kernelW: number;
  strideT: number;
  strideH: number;
  strideW: number;
  padTop: number;
  padBottom: number;
  padLeft: number;
  padRight: number;
  upsample: number;
  dtype: number;
  /** 0 the fastest that fits, as in attention. */
  kernel: number;
}

export interface RandomArgs {
  out: Address;
  /** 64 bits. */
  seed: bigint;
  row0: number;
  column0: number;
  fullColumns: number;
  ldo: number;
  rows: number;
  columns: number;
  tensorId: number;
  distribution: number;
  amplitude: number;
  offset: number;
  outDtype: number;
  reserved: number;
}

export interface PeerSumArgs {
  blocks: Address[];
  signals: Address[];
  out: Address;
  base: Address;
  bias: Address;
  gate: Address;
  total: number;
  first: number;
  count: number;
  rank: number;
  ranks: number;
  columns: number;
  dtype: number;
  sourceDtype: number;
  biasDtype: number;
  shots: number;
  reserved: number;
}

export interface Neighbour {
  send: Address;
  receive: Address;
  theirEven: Address;
  theirOdd: Address;
  ownEven: Address;
  ownOdd: Address;
  theirSignals: Address;
  ownSignals: Address;
}

export interface PeerExchangeArgs {
  neighbours: Neighbour[];
  pitch: number;
  rowBytes: number;
  rows: number;
  neighbourCount: number;
}

export type Struct =
  | GemmArgs
  | AttentionArgs
  | QuantizeKvArgs
  | LayerNormArgs
  | RmsNormArgs
  | Conv3dArgs
  | RandomArgs
  | PeerSumArgs
  | PeerExchangeArgs;
