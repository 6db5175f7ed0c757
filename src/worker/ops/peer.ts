import { type Address, deviceDtypes, HANDLE_BYTES, type PeerExchangeArgs } from "../runtime/abi.js";
import type { Device, StreamName } from "../runtime/device.js";
import { addressOf, dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import { moved, noWork, streamed } from "../runtime/work.js";
import { addGated } from "./elementwise.js";

// What works in the memory of several ranks: sums, gathers and exchanges, in one launch that every rank makes, and the flags that
// order copies (kernels/include/ditrun.h).

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
export function sumOf(
  device: Device,
  sources: readonly Address[],
  sourceDtype: Tensor["dtype"],
  target: SumTarget,
): void {
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
  device.launch("sum", {
    phase: "communication",
    work: () =>
      streamed(
        elements(out.shape) / columns,
        columns,
        sources.length * dtypeBytes(sourceDtype) + dtypeBytes(out.dtype) * (base ? 2 : 1),
      ),
    args: () => [
      out.address,
      addressOf(base),
      addressOf(bias),
      columns,
      sources,
      sources.length,
      elements(out.shape),
      deviceDtypes[out.dtype],
      deviceDtypes[sourceDtype],
    ],
  });
}

/** A group's memory as this rank maps it: one block and one run of signals of every rank, in rank order. */
export interface PeerMemory {
  readonly rank: number;
  readonly blocks: readonly Address[];
  readonly signals: readonly Address[];
}

export interface PeerSumOptions {
  /** Elements of each block, and the first one of them that this rank's out is a sum of. */
  readonly total: number;
  readonly first: number;
  /** How many this rank wants: out's, or 0. */
  readonly count: number;
  readonly dtype: Tensor["dtype"];
  readonly shots: 1 | 2;
}

/** out [rows, columns] = base + gate · (Σ blocks[p][first …] + bias), over the ranks p. `memory` is not called while measuring. */
export function peerSum(
  device: Device,
  memory: () => PeerMemory,
  { out, base, bias, gate }: SumTarget,
  options: PeerSumOptions,
): void {
  const { columns } = matrixShape(out);
  const work = () => {
    const ranks = memory().blocks.length;
    // Over two shots each rank's summands are read once by all ranks together, and the sums are written and read again.
    const summands = options.shots === 1 ? ranks : 2 + 1 / ranks;
    const own = dtypeBytes(out.dtype) * (base ? 2 : 1);
    return streamed(options.count / columns, columns, summands * dtypeBytes(options.dtype) + own);
  };
  device.launch("peerSum", {
    phase: "communication",
    work,
    args: () => {
      const { rank, blocks, signals } = memory();
      return [
        {
          blocks,
          signals,
          out: out.address,
          base: addressOf(base),
          bias: addressOf(bias),
          gate: addressOf(gate),
          total: options.total,
          first: options.first,
          count: options.count,
          rank,
          ranks: blocks.length,
          columns,
          dtype: deviceDtypes[out.dtype],
          sourceDtype: deviceDtypes[options.dtype],
          biasDtype: deviceDtypes[bias?.dtype ?? out.dtype],
          shots: options.shots,
          reserved: 0,
        },
      ];
    },
  });
}

/** out = the first bytesOfRank[p] bytes of each rank's block, one rank's after the other's. */
export function peerGather(
  device: Device,
  memory: () => PeerMemory,
  out: Tensor,
  bytesOfRank: readonly number[],
): void {
  const bytes = bytesOfRank.reduce((sum, each) => sum + each, 0);
  device.launch("peerGather", {
    phase: "communication",
    work: () => moved(bytes),
    args: () => {
      const { rank, blocks, signals } = memory();
      return [out.address, blocks, bytesOfRank, signals, rank, blocks.length];
    },
  });
}

/** Exchanges rows with neighbours over peer memory, in one launch: ditrun_peer_exchange. `args` is not called while measuring. */
export function peerExchange(device: Device, args: () => PeerExchangeArgs): void {
  const work = () => {
    const { rows, rowBytes, neighbourCount } = args();
    return streamed(rows, rowBytes, 4 * neighbourCount);
  };
  device.launch("peerExchange", { phase: "communication", work, args: () => [args()] });
}

/** A handle to memory of kind "peer", for another process of this host. */
export function exportMemory(device: Device, address: Address): Uint8Array {
  const handle = new Uint8Array(HANDLE_BYTES);
  device.kernels.call("peerExport", address, handle);
  return handle;
}

/** Maps another process's memory. @throws PeerFailure when it cannot be reached. */
export function openMemory(device: Device, handle: Uint8Array): Address {
  return device.kernels.create("peerOpen", handle);
}

/** Ends what openMemory began. */
export function closeMemory(device: Device, address: Address): void {
  device.kernels.call("peerClose", address);
}

/** Sets flags to 0 or 1, after all earlier work on the stream is visible to every process. It moves nothing. */
export function writeFlags(device: Device, flags: readonly Address[], value: 0 | 1, stream?: StreamName): void {
  device.launch("flagsWrite", {
    phase: "communication",
    work: () => noWork,
    args: () => [flags, flags.length, value],
    stream,
  });
}

/** Holds the stream until every flag is 1, and resets each to 0 if asked. It moves nothing. */
export function waitFlags(
  device: Device,
  flags: readonly Address[],
  { reset, stream }: { reset: boolean; stream?: StreamName },
): void {
  device.launch("flagsWait", {
    phase: "communication",
    work: () => noWork,
    args: () => [flags, flags.length, reset ? 1 : 0],
    stream,
  });
}
