import { LATENT_CHANNELS, PIXEL_CHANNELS } from "./shape.js";

/** A latent's channels and a constant. */
const TERMS = LATENT_CHANNELS + 1;
/** Of a sample: keeps a channel that hardly varies from being given a huge weight. */
const RIDGE = 1e-3;

/**
 * Colours of latents without decoding them: RGB as a linear map of a latent's channels, fitted by least squares to pictures that the
 * decoder itself has made. So every VAE has its own map, and none is written down here.
 */
export class LatentColours {
  /** Sums over all samples: of products of two terms, [TERMS, TERMS], and of a term with a colour, [TERMS, 3]. */
  readonly #squares = new Float64Array(TERMS * TERMS);
  readonly #products = new Float64Array(TERMS * PIXEL_CHANNELS);
  #samples = 0;
  /** [TERMS, 3]; undefined until it is asked for. */
  #map: Float64Array | undefined;

  /**
   * Learns from one frame.
   * @param latent [pixels, 16], normalised. @param colours [pixels, 3], 0 … 255: the mean of what each latent pixel was decoded to.
   */
  add(latent: Float32Array, colours: Float32Array): void {
    const pixels = latent.length / LATENT_CHANNELS;
    const terms = new Float64Array(TERMS).fill(1);
    for (let pixel = 0; pixel < pixels; pixel++) {
      for (let channel = 0; channel < LATENT_CHANNELS; channel++)
        terms[channel] = latent[pixel * LATENT_CHANNELS + channel] ?? 0;
      for (let row = 0; row < TERMS; row++) {
        const term = terms[row] ?? 0;
        for (let column = 0; column < TERMS; column++)
          addTo(this.#squares, row * TERMS + column, term * (terms[column] ?? 0));
        for (let colour = 0; colour < PIXEL_CHANNELS; colour++) {
          addTo(this.#products, row * PIXEL_CHANNELS + colour, term * (colours[pixel * PIXEL_CHANNELS + colour] ?? 0));
        }
      }
    }
    this.#samples += pixels;
    this.#map = undefined;
  }

  /** Latents float32 [frames, 16, pixels], normalised, to RGB of 8 bits [frames, pixels, 3]. */
  rgb(latents: Float32Array, pixels: number): Uint8Array {
    this.#map ??= this.#fit();
    const map = this.#map;
    const frames = latents.length / (LATENT_CHANNELS * pixels);
    const sums = new Float32Array(frames * pixels * PIXEL_CHANNELS);
    for (let frame = 0; frame < frames; frame++) {
      for (let colour = 0; colour < PIXEL_CHANNELS; colour++) {
        const first = frame * pixels * PIXEL_CHANNELS + colour;
        const constant = map[LATENT_CHANNELS * PIXEL_CHANNELS + colour] ?? 0;
        for (let pixel = 0; pixel < pixels; pixel++) sums[first + pixel * PIXEL_CHANNELS] = constant;
        for (let channel = 0; channel < LATENT_CHANNELS; channel++) {
          const weight = map[channel * PIXEL_CHANNELS + colour] ?? 0;
          const plane = (frame * LATENT_CHANNELS + channel) * pixels;
          for (let pixel = 0; pixel < pixels; pixel++) {
            addTo(sums, first + pixel * PIXEL_CHANNELS, weight * (latents[plane + pixel] ?? 0));
          }
        }
      }
    }
    return new Uint8Array(Uint8ClampedArray.from(sums).buffer);
  }

  /** Solves the normal equations, by elimination: they are symmetric and, with the ridge, positive definite. */
  #fit(): Float64Array {
    const squares = this.#squares.slice();
    const map = this.#products.slice();
    for (let term = 0; term < LATENT_CHANNELS; term++) addTo(squares, term * TERMS + term, RIDGE * this.#samples);
    const subtract = (values: Float64Array, width: number, from: number, row: number, factor: number) => {
      for (let column = 0; column < width; column++)
        addTo(values, from * width + column, -factor * (values[row * width + column] ?? 0));
    };
    for (let row = 0; row < TERMS; row++) {
      const pivot = squares[row * TERMS + row] ?? 1;
      for (let other = 0; other < TERMS; other++) {
        if (other === row) continue;
        const factor = (squares[other * TERMS + row] ?? 0) / pivot;
        subtract(squares, TERMS, other, row, factor);
        subtract(map, PIXEL_CHANNELS, other, row, factor);
      }
    }
    for (let row = 0; row < TERMS; row++) {
      const pivot = squares[row * TERMS + row] ?? 1;
      for (let colour = 0; colour < PIXEL_CHANNELS; colour++) {
        const at = row * PIXEL_CHANNELS + colour;
        map[at] = (map[at] ?? 0) / pivot;
      }
    }
    return map;
  }
}

function addTo(values: Float64Array | Float32Array, index: number, value: number): void {
  values[index] = (values[index] ?? 0) + value;
}
