/** What a rank hands over of a step under the name `preview`. */
export interface Preview {
  /** The step that left it, 1 for the first. */
  readonly step: number;
  /** RGB of 8 bits, [frames, height, width, 3] of the latent. */
  readonly pixels: Uint8Array;
}

const STEP_BYTES = 4;

/** One value of both: the step as a little-endian integer of 32 bits, then the pixels. */
export function packPreview({ step, pixels }: Preview): Uint8Array {
  const value = new Uint8Array(STEP_BYTES + pixels.length);
  new DataView(value.buffer).setUint32(0, step, true);
  value.set(pixels, STEP_BYTES);
  return value;
}

/** What `packPreview` made one of. */
export function unpackPreview(value: Uint8Array): Preview {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return { step: view.getUint32(0, true), pixels: value.subarray(STEP_BYTES) };
}
