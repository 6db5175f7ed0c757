import { expect, it } from "vitest";
import { LatentColours } from "../../../../src/worker/models/wan/vae/latent-colours.js";
import { meanColours, probeLatents } from "../../../../src/worker/models/wan/vae/probe.js";
import { spread } from "../../../../src/worker/tasks/preview-sender.js";

it("finds the map that pictures were made with, and rounds and clamps what it gives", () => {
  const size = { frames: 1, height: 12, width: 10 };
  const latents = probeLatents(size);
  const pixels = size.height * size.width;
  const weight = (channel: number, colour: number) => 9 * Math.sin(3 * channel + colour);
  const colours = new Float32Array(3 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      let sum = 100 + colour;
      for (let channel = 0; channel < 16; channel++)
        sum += weight(channel, colour) * (latents[16 * pixel + channel] ?? 0);
      colours[3 * pixel + colour] = sum;
    }
  }
  const map = new LatentColours();
  map.add(latents, colours);
  // Planes of channels, of two frames: the first as it was, the second ten times as far from grey.
  const shown = new Float32Array(2 * 16 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 16; channel++) {
      const value = latents[16 * pixel + channel] ?? 0;
      shown[channel * pixels + pixel] = value;
      shown[(16 + channel) * pixels + pixel] = 10 * value;
    }
  }
  const rgb = map.rgb(shown, pixels);
  expect(rgb.length).toBe(2 * 3 * pixels);
  const off = colours.map((colour, at) => Math.abs(Math.min(255, Math.max(0, colour)) - (rgb[at] ?? 0)));
  expect(Math.max(...off)).toBeLessThan(2);
  expect(new Set(rgb.subarray(3 * pixels)).has(255)).toBe(true);
});

it("varies as a video does: with deviation 1, smoothly, and the same each time", () => {
  const [height, width] = [40, 40];
  const latents = probeLatents({ frames: 2, height, width });
  const again = probeLatents({ frames: 2, height, width });
  expect(Buffer.compare(Buffer.from(again.buffer), Buffer.from(latents.buffer))).toBe(0);
  const at = (x: number, y: number) => latents[(y * width + x) * 16] ?? 0;
  let [square, beside, count] = [0, 0, 0];
  for (let y = 2; y < height - 2; y++) {
    for (let x = 2; x < width - 2; x++) {
      square += at(x, y) ** 2;
      beside += at(x, y) * at(x + 1, y);
      count += 1;
    }
  }
  expect(square / count).toBeGreaterThan(0.85);
  expect(square / count).toBeLessThan(1.15);
  // Of the filter 1 2 1: 4 / 6.
  expect(beside / square).toBeGreaterThan(0.55);
  expect(beside / square).toBeLessThan(0.78);
});

it("takes the mean colour of the 8 × 8 pixels of each latent pixel", () => {
  const [height, width] = [2, 3];
  const picture = new Uint8Array(8 * height * 8 * width * 3);
  picture.forEach((_, at) => {
    const [colour, x, y] = [at % 3, Math.floor(at / 3) % (8 * width), Math.floor(at / (3 * 8 * width))];
    // Half of the pixels of a block are 10 above its colour, half as much below.
    picture[at] = 20 + 30 * Math.floor(x / 8) + 80 * Math.floor(y / 8) + colour + (x % 2 === 0 ? 10 : -10);
  });
  const expected = [0, 1].flatMap((y) => [0, 1, 2].flatMap((x) => [0, 1, 2].map((c) => 20 + 30 * x + 80 * y + c)));
  expect([...meanColours(picture, { height, width })]).toEqual(expected);
});

it.each([
  [21, 60 * 104, [0, 3, 6, 9, 11, 14, 17, 20]],
  [21, 90 * 160, [0, 7, 13, 20]],
  [5, 12 * 12, [0, 1, 2, 3, 4]],
  [1, 100, [0]],
  [21, 270 * 480, [10]],
])("%i frames of %i pixels are shown as %j", (frames, pixels, shown) => {
  expect(spread(frames, pixels)).toEqual(shown);
});
