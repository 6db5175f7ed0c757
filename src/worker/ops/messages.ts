import { type Address, deviceDtypes, type Handle } from "../runtime/abi.js";
import type { PeerExchangeArgs } from "../runtime/abi-arguments.js";
import type { Device, StreamName } from "../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import { gatherWork } from "../runtime/work.js";

// What moves messages between ranks, and orders who reads and writes them (kernels/include/ditrun.h: flags, copies, NCCL).

/** Sets each flag to the value, once all earlier work on the stream can be seen by every process. */
export function writeFlags(device: Device, flags: readonly Address[], value: 0 | 1, stream?: StreamName): void {
  device.launch("communication", "flagsWrite", () => [[...flags], flags.length, value], stream);
}

/** Holds the stream until each flag is 1, and makes it 0 again if it is to be reset. */
export function waitFlags(
  device: Device,
  flags: readonly Address[],
  { reset, stream }: { readonly reset: boolean; readonly stream?: StreamName },
): void {
  device.launch("communication", "flagsWait", () => [[...flags], flags.length, reset ? 1 : 0], stream);
}

/** Whether the rows of a matrix lie one behind the other. */
export function isContiguous(x: Tensor): boolean {
  const { rows, columns } = matrixShape(x);
  return rows <= 1 || x.rowStride === columns;
}

/** out = x, matrices of one shape and dtype, either of them a peer's, whose rows may be strided: by copy engine. Nothing is launched for none. */
export function copyMatrix(device: Device, out: Tensor, x: Tensor, stream?: StreamName): void {
  const { rows, columns } = matrixShape(x);
  const rowBytes = columns * dtypeBytes(x.dtype);
  if (rows * rowBytes === 0) return;
  if (isContiguous(x) && isContiguous(out)) {
    device.launch("communication", "copy", () => [out.address, x.address, rows * rowBytes], stream);
    return;
  }
  const pitches = [out, x].map(({ rowStride, dtype }) => rowStride * dtypeBytes(dtype));
  const [to = 0, from = 0] = pitches;
  device.launch("communication", "copy2d", () => [out.address, to, x.address, from, rowBytes, rows], stream);
}

/** Exchanges rows with neighbours over peer memory, in one launch: ditrun_peer_exchange. `args` is not called while measuring. */
export function peerExchange(device: Device, args: () => PeerExchangeArgs): void {
  device.launch("communication", "peerExchange", () => [args()]);
}

/** One side of a message over NCCL. */
export interface NcclMessage {
  readonly address: Address;
  readonly bytes: number;
  /** Group rank of the other side. */
  readonly rank: number;
}

/** All messages at once. */
export function ncclExchange(
  device: Device,
  comm: Handle,
  sends: readonly NcclMessage[],
  receives: readonly NcclMessage[],
  stream?: StreamName,
): void {
  const columns = (messages: readonly NcclMessage[]) => [
    messages.map(({ address }) => address),
    messages.map(({ bytes }) => bytes),
    messages.map(({ rank }) => rank),
    messages.length,
  ];
  device.launch("communication", "ncclExchange", () => [comm, ...columns(sends), ...columns(receives)], stream);
}

/** out = every rank's x, `count` elements each, one after the other. */
export function ncclAllGather(
  device: Device,
  comm: Handle,
  out: Tensor,
  x: Tensor,
  { count, ranks }: { readonly count: number; readonly ranks: number },
): void {
  const args = () => [comm, out.address, x.address, count, deviceDtypes[x.dtype]];
  const work = gatherWork(ranks * count * dtypeBytes(x.dtype));
  device.launch("communication", "ncclAllGather", args, undefined, work);
}

/** x becomes the sum of every rank's x, in NCCL's order and rounded to x's dtype as NCCL does it. */
export function ncclAllReduce(device: Device, comm: Handle, x: Tensor): void {
  const args = () => [comm, x.address, x.address, elements(x.shape), deviceDtypes[x.dtype]];
  device.launch("communication", "ncclAllReduce", args);
}
