import { freemem } from "node:os";
import { DitrunError } from "../../failure.js";
import type { MemoryNeed } from "../../protocol/results.js";
import { bytesInWords } from "../../text.js";
import { placeOnHost } from "../environment.js";
import type { Device } from "../runtime/device.js";
import type { Store } from "../store.js";
import { agreed } from "./agree.js";

/** What is not counted: cuBLASLt's workspace, captured graphs, staging of single tensors. */
const MARGIN_BYTES = 512 * 2 ** 20;

/** The device memory that this worker may use. */
export class Budget {
  readonly bytes: number;

  /**
   * @param workers on this host, which share its devices.
   * @param limit in bytes; by default what was free when the device was opened, shared among the workers on it.
   */
  constructor(device: Device, workers: number, limit?: number) {
    const sharing = Math.ceil(workers / device.devices);
    this.bytes = limit ?? device.info.freeBytes / sharing;
  }

  /**
   * How many of these, from the first on, must go for so many more bytes to fit with a margin.
   * @param must whether they may also fit without the margin, where nothing else can go.
   * @returns more than there are where the bytes do not fit even then.
   */
  victims(used: number, more: number, holders: readonly { readonly bytes: number }[], must: boolean): number {
    let count = 0;
    let needed = used + more;
    while (needed + MARGIN_BYTES > this.bytes && count < holders.length) needed -= holders[count++]?.bytes ?? 0;
    return needed + (must ? 0 : MARGIN_BYTES) <= this.bytes ? count : holders.length + 1;
  }

  /** @param needed bytes that this rank needs at the least. @param how it would need so many. @throws DitrunError */
  refuse(rank: number, needed: number, how = " even with one model at a time"): never {
    throw new DitrunError(
      "ERR_DEVICE_MEMORY",
      `Rank ${rank} needs ${bytesInWords(needed)} of device memory${how}, but has ${bytesInWords(this.bytes)}: share the model among more workers (--tp, --cp), make a smaller video, or use --fp8.`,
    );
  }
}

/**
 * What a video needs of a device with nothing on it but `used`, by the rules that OpenWan follows as it makes room: the text encoder
 * comes first, and stays only where all fits beside it; the second of two transformers goes to the host before it does.
 * @throws RequestFault on every rank where one of them does not fit even alone.
 */
export async function needOf(
  store: Store,
  budget: Budget,
  { used, encoder, video, other }: ModelBytes,
): Promise<MemoryNeed> {
  const mustFit = async (name: string, before: number, more: number, holders: readonly { bytes: number }[]) => {
    const gone = holders.reduce((sum, { bytes }) => sum + bytes, 0);
    const fits = budget.victims(before, more, holders, true) <= holders.length;
    await agreed(store, name, async () => {
      if (!fits) budget.refuse(store.rank, before - gone + more);
    });
  };
  await mustFit("encoder fits", used, encoder, []);
  const available = { availableBytes: budget.bytes };
  if (other) {
    const own = budget.victims(used + encoder, video + other.beside, [], false);
    const neededBytes = used + encoder + video + other.beside;
    if ((await store.largest("all fit", own)) === 0)
      return { ...available, neededBytes, encoderFirst: false, hostBytes: 0 };
  }
  const hostBytes = other?.onHost ?? 0;
  await agreed(store, "host memory", async () => requireHostMemory(store.rank, hostBytes));
  const alone = await store.largest("both fit", budget.victims(used + encoder, video, [], false));
  if (alone > 0) await mustFit("video fits", used + encoder, video, [{ bytes: encoder }]);
  return { ...available, neededBytes: used + encoder + video, encoderFirst: alone > 0, hostBytes };
}

/** Bytes of each, on this rank. */
interface ModelBytes {
  readonly used: number;
  readonly encoder: number;
  readonly video: number;
  /** Of the second of two transformers: what it takes on the device while it waits there, or on the host. */
  readonly other?: { readonly beside: number; readonly onHost: number } | undefined;
}

/** @param bytes that each worker of this host is about to take. @throws DitrunError where they are not there. */
export function requireHostMemory(rank: number, bytes: number): void {
  const { size } = placeOnHost();
  const free = process.availableMemory?.() ?? freemem();
  if (bytes * size <= free) return;
  const workers = size > 1 ? `${size} workers need` : "it needs";
  throw new DitrunError(
    "ERR_HOST_MEMORY",
    `Rank ${rank} has no room on its device for the second transformer, and ${workers} ${bytesInWords(bytes * size)} of the host's memory, which has ${bytesInWords(free)} free: share the model among more GPUs (--tp), or use --fp8.`,
  );
}
