import type { EngineEvent } from "../engine/engine.js";
import { encodeJpeg } from "../video/jpeg.js";
import type { PreviewEvent } from "./schemas.js";

/** Between two previews of a video: more often nobody sees, and it costs. */
const LEAST_MS = 400;
const QUALITY = 80;

/** The latest preview of a video that is being made, and whether the next step is to bring another. */
export class Previews {
  latest: PreviewEvent | undefined;
  #asked = Number.NEGATIVE_INFINITY;

  /** @param isWatched whether somebody wants to see them. @param now in milliseconds. */
  constructor(
    private readonly isWatched: () => boolean,
    private readonly now: () => number,
  ) {}

  /** To be asked for each step that begins. */
  wanted(): boolean {
    if (this.now() - this.#asked < LEAST_MS || !this.isWatched()) return false;
    this.#asked = this.now();
    return true;
  }

  take({ step, frames, width, height, pixels }: Extract<EngineEvent, { kind: "preview" }>): void {
    // One below the other, as the bytes are.
    const image = encodeJpeg({ width, height: frames * height, pixels }, QUALITY);
    this.latest = { step, frames, width, height, b64_json: Buffer.from(image).toString("base64") };
  }
}
