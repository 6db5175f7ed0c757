/** What tensors are held in. */
export type Dtype = "fp32" | "bf16" | "fp16" | "e4m3";

export const dtypeBytes: Readonly<Record<Dtype, number>> = { fp32: 4, bf16: 2, fp16: 2, e4m3: 1 };

/** The axes along which ranks share work; ulysses exchanges tokens for heads, and no plan has it yet. */
export type Axis = "tp" | "ulysses" | "ring" | "cfg";

/** Whom a message goes round: the ranks along an axis, or all of them. */
export type GroupName = Axis | "world";

/** A matrix product: [rows, inner] times [inner, columns]. */
export interface Product {
  readonly kind: "product";
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
  /** Of both factors. */
  readonly dtype: Dtype;
  /** Read and written if each tensor crosses the memory once. */
  readonly bytes: number;
  /** Outputs that go through an activation. */
  readonly activated: number;
}

/** Attention of some queries to some keys; flops = 4 · heads · queries · keys · headDim. */
export interface AttentionWork {
  readonly kind: "attention";
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  readonly headDim: number;
  readonly dtype: Dtype;
  /** What a rank's keys and values weigh as they go round; 0 where they do not. Attention hides the transfer, or tries. */
  readonly messageBytes: number;
  /** Ranks that they go round. */
  readonly ranks: number;
}

/** A pass over tensors, bound by memory: norms, quantising, copies. */
export interface Pass {
  readonly kind: "pass";
  readonly bytes: number;
}

/** Convolutions of the VAE. */
export interface Convolution {
  readonly kind: "convolution";
  readonly flops: number;
  readonly dtype: Dtype;
}

/** A sum over a group: every rank has a partial of so many bytes. */
export interface Sum {
  readonly kind: "sum";
  readonly group: GroupName;
  readonly bytes: number;
  /** Ranks that the sum is over. */
  readonly ranks: number;
  /** Each rank keeps only its share. */
  readonly scattered: boolean;
}

/** Every rank gets the parts of all, so many bytes together. */
export interface Gather {
  readonly kind: "gather";
  readonly group: GroupName;
  readonly bytes: number;
  readonly ranks: number;
}

/** Rows that neighbours lend each other. */
export interface HaloWork {
  readonly kind: "halo";
  readonly bytes: number;
  readonly ranks: number;
}

export type Work = Product | AttentionWork | Pass | Convolution | Sum | Gather | HaloWork;

/** Work of one rank, and how often a forward has it. */
export type Operation = Work & {
  readonly times: number;
  /** As much again of other work runs at the same time, and fills what this leaves idle. */
  readonly beside: boolean;
};

export function flopsOf(work: Work): number {
  switch (work.kind) {
    case "product":
      return 2 * work.rows * work.columns * work.inner;
    case "attention":
      return 4 * work.heads * work.queries * work.keys * work.headDim;
    case "convolution":
      return work.flops;
    default:
      return 0;
  }
}
