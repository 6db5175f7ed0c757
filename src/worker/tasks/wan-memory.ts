import { z } from "zod";
import { DitrunError } from "../../failure.js";
import type { WanGenerateRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import type { Store } from "../store.js";

/** What is not counted: cuBLASLt's workspace, captured graphs, staging of single tensors. */
const MARGIN_BYTES = 512 * 2 ** 20;

/** Bytes of device memory that models take, by when. */
export interface ModelBytes {
  /** The text encoder: until both texts are encoded. */
  readonly encoder: number;
  /** The transformer, the VAE, the sampler. */
  readonly others: number;
}

const inWords = (bytes: number) =>
  bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;

/**
 * Whether all models fit in device memory at once, the same answer on every rank: no if one of them is short.
 * @param limit bytes that this worker may use; by default what is free, shared among the workers on this device.
 * @throws DitrunError when the models do not fit one after the other either.
 */
export async function planMemory(
  { device, measuredBytes }: Context,
  store: Store,
  { encoder, others }: ModelBytes,
  limit: number | undefined,
): Promise<WanGenerateRank["memory"]> {
  const sharing = Math.ceil(Number(process.env.LOCAL_WORLD_SIZE ?? 1) / device.devices);
  const availableBytes = limit ?? device.info.freeBytes / sharing;
  const least = Math.max(encoder, others) + measuredBytes;
  if (least > availableBytes) {
    throw new DitrunError(
      "ERR_DEVICE_MEMORY",
      `Rank ${store.rank} needs ${inWords(least)} of device memory even with one model at a time, but has ${inWords(availableBytes)}: share the model among more workers (--tp, --cp), make a smaller video, or use --fp8.`,
    );
  }
  const neededBytes = encoder + others + measuredBytes + MARGIN_BYTES;
  await store.put(`memory/${store.rank}`, new TextEncoder().encode(JSON.stringify(neededBytes > availableBytes)));
  let encoderFirst = false;
  for (let rank = 0; rank < store.size; rank++) {
    const short = z.boolean().parse(JSON.parse(new TextDecoder().decode(await store.get(`memory/${rank}`))));
    encoderFirst ||= short;
  }
  return { neededBytes, availableBytes, encoderFirst };
}
