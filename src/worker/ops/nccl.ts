import { type Address, deviceDtypes, type Handle, NCCL_ID_BYTES } from "../runtime/abi.js";
import type { Device, StreamName } from "../runtime/device.js";
import { dtypeBytes, elements, type Tensor } from "../runtime/tensor.js";
import { moved } from "../runtime/work.js";

// NCCL's own operations. `comm` is the group's communicator; every rank of it makes the same call.

/** What the first rank of a group makes and all its ranks join with. @throws DitrunError from NCCL. */
export function ncclUniqueId(device: Device): Uint8Array {
  const id = new Uint8Array(NCCL_ID_BYTES);
  device.kernels.call("ncclUniqueId", id);
  return id;
}

/** Waits for all ranks of the group. @throws DitrunError from NCCL. */
export function joinNccl(device: Device, id: Uint8Array, rank: number, ranks: number): Promise<Handle> {
  return device.kernels.createBlocking("ncclInit", id, rank, ranks);
}

/** @throws DitrunError with what NCCL has met in the background. */
export function checkNccl(device: Device, comm: Handle): void {
  device.kernels.call("ncclCheck", comm);
}

/** Where NCCL has met an error in the background this ends what is under way; else all of it must have ended. */
export function leaveNccl(device: Device, comm: Handle): void {
  device.kernels.call("ncclDestroy", comm);
}

/** x becomes the sum of every rank's x, in NCCL's order, each addition rounded to x's dtype (fp32, bf16 or, on GPUs, fp16). */
export function ncclAllReduce(device: Device, comm: Handle, x: Tensor): void {
  const count = elements(x.shape);
  device.launch("ncclAllReduce", {
    phase: "communication",
    work: () => moved(count * dtypeBytes(x.dtype)),
    args: () => [comm, x.address, x.address, count, deviceDtypes[x.dtype]],
  });
}

/** out = every rank's part, `count` elements each, in rank order. */
export function ncclAllGather(
  device: Device,
  comm: Handle,
  out: Tensor,
  part: Tensor,
  { count, ranks }: { count: number; ranks: number },
): void {
  device.launch("ncclAllGather", {
    phase: "communication",
    work: () => moved(ranks * count * dtypeBytes(part.dtype)),
    args: () => [comm, out.address, part.address, count, deviceDtypes[part.dtype]],
  });
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
  const bytes = [...sends, ...receives].reduce((sum, message) => sum + message.bytes, 0);
  device.launch("ncclExchange", {
    phase: "communication",
    work: () => moved(bytes, 1),
    args: () => [comm, ...columnsOf(sends), ...columnsOf(receives)],
    stream,
  });
}

function columnsOf(messages: readonly NcclMessage[]): [number[], number[], number[], number] {
  return [
    messages.map(({ address }) => address),
    messages.map(({ bytes }) => bytes),
    messages.map(({ rank }) => rank),
    messages.length,
  ];
}
