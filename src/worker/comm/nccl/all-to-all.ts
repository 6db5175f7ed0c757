import { copyMatrix, isContiguous } from "../../ops/copy.js";
import type { NcclMessage } from "../../ops/nccl.js";
import type { Tensor } from "../../runtime/tensor.js";
import { exchangesOf, packedAt, partBytes } from "../all-to-all.js";
import type { Communicator } from "./communicator.js";

/**
 * All-to-all over NCCL, as Group.allToAll: one grouped exchange. A part or an out whose rows are strided goes through the arena, since NCCL
 * moves runs of bytes; what has no bytes is no message.
 */
export function ncclAllToAll(comm: Communicator, parts: readonly Tensor[], outs: readonly Tensor[]): void {
  const { device } = comm;
  const { own, others } = exchangesOf(comm, parts, outs);
  const run = (x: Tensor) => (isContiguous(x) ? x : packedAt(device.allocate("u8", [partBytes(x)]).address, x));
  const messages = (sides: readonly { readonly rank: number; readonly packed: Tensor }[]): NcclMessage[] =>
    sides
      .map(({ rank, packed }) => ({ address: packed.address, bytes: partBytes(packed), rank }))
      .filter(({ bytes }) => bytes > 0);
  device.arena.scope(() => {
    copyMatrix(device, own.out, own.part);
    const sends = others.map(({ rank, part }) => ({ rank, part, packed: run(part) }));
    const receives = others.map(({ rank, out }) => ({ rank, out, packed: run(out) }));
    for (const { part, packed } of sends) if (packed !== part) copyMatrix(device, packed, part);
    const [sent, received] = [messages(sends), messages(receives)];
    if (sent.length + received.length > 0) comm.exchange(sent, received);
    for (const { out, packed } of receives) if (packed !== out) copyMatrix(device, out, packed);
  });
}
