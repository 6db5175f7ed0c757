import { packPreview } from "../../protocol/preview.js";
import type { DeviceSampler } from "../models/wan/device-sampler.js";
import type { LatentColours } from "../models/wan/vae/latent-colours.js";
import type { WanVae } from "../models/wan/vae/vae.js";
import type { Device } from "../runtime/device.js";
import type { Store } from "../store.js";

/** Frames of a preview at most, and pixels of all of them: some hundred KiB. */
const MOST_FRAMES = 8;
const MOST_PIXELS = 2 ** 16;

interface Parts {
  readonly device: Device;
  readonly store: Store;
  readonly sampler: DeviceSampler;
  readonly vae: WanVae;
}

/** Latents of a step that wait to be made a preview of. */
interface Fetched {
  readonly step: number;
  readonly latents: Float32Array;
  readonly pixels: number;
  readonly colours: LatentColours;
}

/**
 * Hands what steps leave to the launcher as small pictures, under the name `preview`. Every rank has the whole latent, so rank 0
 * does it alone: it fetches some frames once a step is done, and makes pictures of them while the device computes the next step.
 */
export class PreviewSender {
  #fetched: Fetched | undefined;
  #sent: Promise<void> = Promise.resolve();

  constructor(private readonly parts: Parts) {}

  /** Fetches what a step has left, once the device has done it. Every rank calls it. @param step 1 for the first. */
  async fetch(step: number): Promise<void> {
    const { device, store, sampler, vae } = this.parts;
    const colours = await vae.colours();
    if (store.rank !== 0 || !colours) return;
    const [, count = 1, height = 1, width = 1] = sampler.sample.shape;
    const bytes = await device.download(sampler.denoised(spread(count, height * width)));
    this.#fetched = { step, latents: new Float32Array(bytes.buffer), pixels: height * width, colours };
  }

  /** Sends what was fetched; to be called while the device has work. */
  send(): void {
    if (!this.#fetched) return;
    const { step, latents, pixels, colours } = this.#fetched;
    this.#fetched = undefined;
    const sent = this.parts.store.emit("preview", packPreview({ step, pixels: colours.rgb(latents, pixels) }));
    this.#sent = Promise.all([this.#sent, sent]).then(() => undefined);
    // It is awaited later; until then a failure is nobody's.
    this.#sent.catch(() => undefined);
  }

  /** Resolves when the launcher has dealt with every preview. @throws DitrunError when the job has ended. */
  async flush(): Promise<void> {
    this.send();
    await this.#sent;
  }
}

/** Indices from the first of so many frames to the last, as far apart as a preview has room for. */
export function spread(count: number, pixels: number): number[] {
  const most = Math.max(1, Math.min(count, MOST_FRAMES, Math.floor(MOST_PIXELS / pixels)));
  if (most === 1) return [Math.floor(count / 2)];
  return Array.from({ length: most }, (_, index) => Math.round((index * (count - 1)) / (most - 1)));
}
