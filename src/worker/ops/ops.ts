import type { Phase } from "../../protocol/results.js";
import { type Address, ATTENTION_WORKSPACE, activations, deviceDtypes } from "../runtime/abi.js";
import type { KvBlock } from "../runtime/abi-arguments.js";
import type { Device } from "../runtime/device.js";
import { elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import { addGated } from "./wan-ops.js";

// One function per operator: tensors in, one launch on the compute stream. Nothing here knows of other ranks.

const addressOf = (x: Tensor | undefined): Address => x?.address ?? 0;

export interface GemmOptions {
  readonly bias?: Tensor | undefined;
  readonly residual?: Tensor | undefined;
  /** float32 [n]. */
  readonly gate?: Tensor | undefined;
  readonly activation?: keyof typeof activations;
}

/**
 * out = gate · activation(a · wᵀ + bias) + residual; out may be the residual. a [rows, k]; w [n, k], or [parts, n, k] with out [parts, rows, n]: one
 * batched product that shares a. bias [n] or [parts, n]. In e4m3 a and w carry their row scales (a one a row, or one for each of its heads), and so
 * does out if it is e4m3 too: they are read, not written (see BoundOptions).
 */
export function gemm(device: Device, out: Tensor, a: Tensor, w: Tensor, options: GemmOptions = {}): void {
  const { rows: m, columns: k } = matrixShape(a);
  const batch = w.shape.length === 3 ? (w.shape[0] ?? 1) : 1;
  const n = w.shape.at(-2) ?? 1;
  if (w.shape.at(-1) !== k || elements(out.shape) !== batch * m * n) {
    throw new RangeError(`gemm: a [${a.shape}], w [${w.shape}] and out [${out.shape}] do not fit together.`);
  }
  const { bias, residual, gate } = options;
  const scalesOfRow = a.rowScale ? elements(a.rowScale.shape) / m : 1;
  if (gate && (gate.dtype !== "fp32" || elements(gate.shape) !== n)) {
    throw new RangeError(`gemm: the gate is ${gate.dtype} [${gate.shape}], but must be fp32 [${n}].`);
  }
  device.launch("gemm", "gemm", () => [
    {
      a: a.address,
      w: w.address,
      bias: addressOf(bias),
      residual: addressOf(residual),
      out: out.address,
      aScale: addressOf(a.rowScale),
      wScale: addressOf(w.rowScale),
      gate: addressOf(gate),
      outScale: addressOf(out.rowScale),
      lda: a.rowStride,
      ldw: w.rowStride,
      ldo: out.rowStride,
      ldResidual: residual?.rowStride ?? 0,
      aStride: 0,
      wStride: n * k,
      biasStride: n,
      outStride: m * n,
      residualStride: m * n,
      m,
      n,
      k,
      batch,
      dtype: deviceDtypes[a.dtype],
      outDtype: deviceDtypes[out.dtype],
      biasDtype: deviceDtypes[bias?.dtype ?? out.dtype],
      residualDtype: deviceDtypes[residual?.dtype ?? out.dtype],
      activation: activations[options.activation ?? "identity"],
      kernel: 0,
      aScaleColumns: scalesOfRow > 1 ? k / scalesOfRow : 0,
      alpha: 1,
    },
  ]);
}

/**
 * One run of keys and values [length, heads · headDim], read once the flag (an address, or 0) is 1. In e4m3 as quantizeKv
 * writes them: v [heads · headDim, padded length].
 */
export interface KeyValues {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly flag: Address;
  /** e4m3 only: float32 [heads, padded length / FP8_KEYS]. */
  readonly kScale?: Tensor | undefined;
}

export interface AttentionOptions {
  readonly heads: number;
  readonly kernel: number;
  /** float32 [heads, queries], or absent. */
  readonly lse?: Tensor | undefined;
  /** A partial result to merge with: float32 [queries, heads · headDim] and [heads, queries]. */
  readonly previous?: { readonly o: Tensor; readonly lse: Tensor } | undefined;
  /** 1/√headDim unless given. */
  readonly scale?: number;
  /** float32 [heads, queries + keys - 1], added to the scores (T5). */
  readonly relativeBias?: Tensor | undefined;
  /** uint64 per block: nanoseconds spent waiting for its flag; address or 0. */
  readonly waitNanoseconds?: Address;
  /** e4m3 only: float32 [heads, headDim]. */
  readonly vScale?: Tensor | undefined;
}

/** o = softmax(q kᵀ / √headDim) v over all blocks in order; q and o [queries, heads · headDim]. In e4m3 they have a scale per head: rowScale [queries, heads]. */
export function attention(
  device: Device,
  o: Tensor,
  q: Tensor,
  blocks: readonly KeyValues[],
  options: AttentionOptions,
) {
  const { rows: queries, columns } = matrixShape(q);
  const headDim = columns / options.heads;
  const kvBlocks = (): KvBlock[] =>
    blocks.map(({ k, v, flag, kScale }) => ({
      k: k.address,
      v: v.address,
      flag,
      kStride: k.rowStride,
      vStride: v.rowStride,
      kScale: addressOf(kScale),
      length: matrixShape(k).rows,
      reserved: 0,
    }));
  // Only e4m3 kernels share out keys, and only where they are in one block.
  const workspaceBytes = q.dtype === "e4m3" && blocks.length === 1 ? ATTENTION_WORKSPACE : 0;
  device.arena.scope(() => {
    const workspace = workspaceBytes > 0 ? device.allocate("u8", [workspaceBytes]).address : 0;
    device.launch("attention", "attention", () => [
      {
        q: q.address,
        o: o.address,
        lse: addressOf(options.lse),
        previousO: addressOf(options.previous?.o),
        previousLse: addressOf(options.previous?.lse),
        blocks: kvBlocks(),
        relativeBias: addressOf(options.relativeBias),
        qScale: addressOf(q.rowScale),
        vScale: addressOf(options.vScale),
        waitNanoseconds: options.waitNanoseconds ?? 0,
        oScale: addressOf(o.rowScale),
        workspace,
        qStride: q.rowStride,
        oStride: o.rowStride,
        workspaceBytes,
        queries,
        heads: options.heads,
        headDim,
        blockCount: blocks.length,
        dtype: deviceDtypes[q.dtype],
        oDtype: deviceDtypes[o.dtype],
        kernel: options.kernel,
        scale: options.scale ?? headDim ** -0.5,
      },
    ]);
  });
}

export interface LayerNormOptions {
  readonly weight?: Tensor | undefined;
  readonly bias?: Tensor | undefined;
  /** float32 [columns] each: y becomes y · (1 + scale) + shift. */
  readonly modulation?: { readonly scale: Tensor; readonly shift: Tensor } | undefined;
  /** Only where out is e4m3. */
  readonly bound?: BoundOptions | undefined;
  readonly epsilon: number;
}

/** What makes the row scales of a product of out known before it: out [rows] (float32) = factor · ‖row‖ + term. */
export interface BoundOptions {
  readonly out: Tensor;
  readonly factor: number;
  readonly term: number;
}

/** out = LayerNorm(x) · weight + bias over the last dimension; out has x's shape and may differ in dtype: e4m3 with row scales. */
export function layerNorm(device: Device, out: Tensor, x: Tensor, options: LayerNormOptions): void {
  const { weight, bias, modulation, bound, epsilon } = options;
  const { rows, columns } = matrixShape(x);
  device.launch("elementwise", "layerNorm", () => [
    {
      x: x.address,
      weight: addressOf(weight),
      bias: addressOf(bias),
      out: out.rowScale ? 0 : out.address,
      quantized: out.rowScale ? out.address : 0,
      quantizedScale: addressOf(out.rowScale),
      bound: addressOf(bound?.out),
      modScale: addressOf(modulation?.scale),
      modShift: addressOf(modulation?.shift),
      ldx: x.rowStride,
      ldo: out.rowStride,
      rows,
      columns,
      xDtype: deviceDtypes[x.dtype],
      weightDtype: deviceDtypes[weight?.dtype ?? "fp32"],
      outDtype: deviceDtypes[out.rowScale ? "fp32" : out.dtype],
      epsilon,
      boundFactor: bound?.factor ?? 0,
      boundTerm: bound?.term ?? 0,
    },
  ]);
}

/** Per-row e4m3: out = x / scale, out's row scale = amax / 448. */
export function quantizeRows(device: Device, out: Tensor, x: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("elementwise", "quantizeRows", () => [
    out.address,
    addressOf(out.rowScale),
    x.address,
    x.rowStride,
    rows,
    columns,
    deviceDtypes[x.dtype],
  ]);
}

export function activate(device: Device, out: Tensor, x: Tensor, activation: keyof typeof activations): void {
  device.launch("elementwise", "activate", () => [
    out.address,
    x.address,
    elements(x.shape),
    deviceDtypes[x.dtype],
    activations[activation],
  ]);
}

export function add(device: Device, out: Tensor, x: Tensor, y: Tensor): void {
  device.launch("elementwise", "add", () => [
    out.address,
    x.address,
    y.address,
    elements(out.shape),
    deviceDtypes[out.dtype],
  ]);
}

export function cast(device: Device, out: Tensor, x: Tensor): void {
  device.launch("elementwise", "cast", () => [
    out.address,
    deviceDtypes[out.dtype],
    x.address,
    deviceDtypes[x.dtype],
    elements(x.shape),
  ]);
}

/** Contiguous bytes from one tensor to another of the same size. */
export function copy(device: Device, out: Tensor, x: Tensor, bytes: number, phase: Phase = "elementwise"): void {
  device.launch(phase, "copy", () => [out.address, x.address, bytes]);
}

/** What a sum is written to: out = base + gate · (Σ of what is summed + bias). */
export interface SumTarget {
  readonly out: Tensor;
  /** Same shape as out, or absent; may be out itself. */
  readonly base?: Tensor | undefined;
  /** [columns], added once (not once per rank); of out's dtype unless there is a gate. */
  readonly bias?: Tensor | undefined;
  /** float32 [columns]; needs a base. */
  readonly gate?: Tensor | undefined;
}

/**
 * out = base + gate · (Σ sources + bias): sources are addresses of tensors of out's shape (peers' too), in sourceDtype, summed in
 * the order given; base is of out's dtype. A sum that waits for its gate is rounded to the bias's dtype.
 */
export function sumOf(device: Device, sources: Address[], sourceDtype: Tensor["dtype"], target: SumTarget): void {
  const { out, base, bias, gate } = target;
  if (gate) {
    device.arena.scope(() => {
      if (!base) throw new Error("A gated sum is added to a base.");
      const sum = device.allocate(bias?.dtype ?? out.dtype, out.shape);
      sumOf(device, sources, sourceDtype, { out: sum, bias });
      addGated(device, out, base, sum, gate);
    });
    return;
  }
  const { columns } = matrixShape(out);
  device.launch("communication", "sum", () => [
    out.address,
    addressOf(base),
    addressOf(bias),
    columns,
    sources,
    sources.length,
    elements(out.shape),
    deviceDtypes[out.dtype],
    deviceDtypes[sourceDtype],
  ]);
}
