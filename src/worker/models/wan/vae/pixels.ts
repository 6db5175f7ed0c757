/** [-1, 1] to 0 … 255, rounded to the nearest. */
export function bytesOfPixels(pixels: Float32Array): Uint8Array {
  const bytes = new Uint8ClampedArray(pixels.length);
  for (let i = 0; i < pixels.length; i++) bytes[i] = ((pixels[i] ?? 0) + 1) * 127.5;
  return new Uint8Array(bytes.buffer);
}
