import { DitrunError } from "../../failure.js";
import type { MemoryNeed } from "../../protocol/results.js";
import { bytesInWords } from "../../text.js";
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
 * comes first, and stays only where all fits beside it. @param parts bytes of each, on this rank.
 * @throws RequestFault on every rank where one of them does not fit even alone.
 */
export async function needOf(
  store: Store,
  budget: Budget,
  { used, encoder, video }: { readonly used: number; readonly encoder: number; readonly video: number },
): Promise<MemoryNeed> {
  const mustFit = async (name: string, before: number, more: number, holders: readonly { bytes: number }[]) => {
    const gone = holders.reduce((sum, { bytes }) => sum + bytes, 0);
    const fits = budget.victims(before, more, holders, true) <= holders.length;
    await agreed(store, name, async () => {
      if (!fits) budget.refuse(store.rank, before - gone + more);
    });
  };
  await mustFit("encoder fits", used, encoder, []);
  const alone = await store.largest("both fit", budget.victims(used + encoder, video, [], false));
  if (alone > 0) await mustFit("video fits", used + encoder, video, [{ bytes: encoder }]);
  return { neededBytes: used + encoder + video, availableBytes: budget.bytes, encoderFirst: alone > 0 };
}
