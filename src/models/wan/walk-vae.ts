import type { LatentSize } from "../schema.js";
import type { Walk } from "../walk/walk.js";

/** The published VAE's decoder (worker/models/wan/vae/shape.ts): channels at full resolution, and of each level in them. */
const WIDTH = 96;
const LATENT_CHANNELS = 16;
const PIXEL_CHANNELS = 3;
const LEVELS = [4, 4, 2, 1] as const;
const BLOCKS = 3;
const TEMPORAL = [true, true, false] as const;
const QUERY_BLOCK = 4096;

interface Volume {
  readonly frames: number;
  readonly rows: number;
  readonly width: number;
  readonly channels: number;
}

/**
 * Decoding on paper, on the rank with the most rows that has a neighbour on each side: as worker/models/wan/vae computes it, a latent
 * frame at a time. @param loads whether its weights are to be counted.
 */
export function walkDecode(walk: Walk, size: LatentSize, pixelBytes: number): void {
  const { memory, world, vae: dtype } = walk;
  const ranks = Math.min(world, size.height);
  const rows = Math.ceil(size.height / ranks);
  const halo = ranks === 1 ? 0 : ranks === 2 ? 1 : 2;
  const all = size.frames * size.height * size.width;
  // The latent, channels last; the frame at hand; pixels of four frames, and two copies of them, on rank 0.
  walk.keep(all * LATENT_CHANNELS);
  walk.keep(rows * size.width * LATENT_CHANNELS, dtype);
  const pixels = 4 * 64 * size.height * size.width * PIXEL_CHANNELS;
  memory.keep(3 * pixels * pixelBytes);
  decoder(walk, { rows, halo, ranks, size, later: false });
  decoder(walk, { rows, halo, ranks, size, later: true, pixelBytes });
}

/** One latent frame: the first of a video, or (which counts for all others) a later one. Caches and weights are counted with that. */
function decoder(
  walk: Walk,
  {
    rows,
    halo,
    ranks,
    size,
    later,
    pixelBytes = 1,
  }: {
    readonly rows: number;
    readonly halo: number;
    readonly ranks: number;
    readonly size: LatentSize;
    readonly later: boolean;
    readonly pixelBytes?: number;
  },
): void {
  const { memory, vae: dtype } = walk;
  const count = later ? size.frames - 1 : 1;
  const counts = (body: () => void) => walk.times(count, body);
  const elements = (x: Volume, more = 0) => x.frames * (x.rows + more) * x.width * x.channels;
  /** A convolution's weights and bias, the two frames that it keeps, its neighbours' rows, and its work. */
  const convolve = (x: Volume, outChannels: number, [kt, kh]: readonly [number, number], upsample = 1) => {
    const taps = kt * kh * kh;
    if (later) {
      walk.keep(outChannels * (taps * x.channels + 1), dtype);
      if (kt > 1) walk.keep(2 * (x.rows + (kh > 1 ? halo : 0)) * x.width * x.channels, dtype);
    }
    const early = kt > 1 && x.frames >= 4 ? 2 : x.frames;
    if (kh > 1 && halo > 0) {
      for (const place of ["above/even", "above/odd", "below/even", "below/odd"])
        memory.block(`halo/${place}`, early * x.width * x.channels * (dtype === "fp32" ? 4 : 2));
      const times = x.frames / early;
      counts(() =>
        walk.times(times, () =>
          walk.work({ kind: "halo", bytes: early * x.width * x.channels * (dtype === "fp32" ? 4 : 2), ranks }),
        ),
      );
    }
    const flops = 2 * x.frames * x.rows * x.width * upsample ** 2 * taps * x.channels * outChannels;
    counts(() => walk.work({ kind: "convolution", flops, dtype }));
  };
  /** Norm, SiLU, convolution. */
  const unit = (x: Volume, outChannels: number) => {
    if (later) walk.keep(x.channels);
    memory.scope(() => {
      const early = x.frames >= 4 ? x.frames - 2 : x.frames;
      walk.take(elements({ ...x, frames: early }, halo), dtype);
      counts(() => walk.pass(2 * elements(x) * (dtype === "fp32" ? 4 : 2)));
      convolve(x, outChannels, [3, 3]);
    });
  };
  const residual = (x: Volume, channels: number): Volume => {
    const out = { ...x, channels };
    if (channels !== x.channels) {
      walk.take(elements(out), dtype);
      if (later) walk.keep(channels * (x.channels + 1), dtype);
      counts(() => walk.work({ kind: "convolution", flops: 2 * elements(x) * channels, dtype }));
    }
    memory.scope(() => {
      walk.take(elements(out), dtype);
      unit(x, channels);
      unit(out, channels);
    });
    return out;
  };

  memory.scope(() => {
    const latent = { frames: 1, rows, width: size.width, channels: LATENT_CHANNELS };
    const deepest = LEVELS[0] * WIDTH;
    let x: Volume = { ...latent, channels: deepest };
    walk.take(elements(x), dtype);
    if (later) walk.keep(LATENT_CHANNELS * (LATENT_CHANNELS + 1), dtype);
    memory.scope(() => {
      walk.take(elements(latent, halo), dtype);
      convolve(latent, deepest, [3, 3]);
    });
    x = residual(x, deepest);
    attend(walk, { own: rows * size.width, all: size.height * size.width, channels: deepest, ranks, later, counts });
    x = residual(x, deepest);
    for (const [level, multiplier] of LEVELS.entries()) {
      for (let block = 0; block < BLOCKS; block++) x = residual(x, multiplier * WIDTH);
      const temporal = TEMPORAL[level];
      if (temporal === undefined) continue;
      const before = x;
      const doubled = temporal && later;
      const wide = { ...x, frames: doubled ? 2 * x.frames : x.frames };
      const out = { frames: wide.frames, rows: 2 * x.rows, width: 2 * x.width, channels: x.channels / 2 };
      walk.take(elements(out), dtype);
      memory.scope(() => {
        if (doubled || halo > 0) walk.take(elements(wide, halo), dtype);
        if (doubled) {
          memory.scope(() => {
            walk.take(2 * elements(before), dtype);
            convolve(before, 2 * before.channels, [3, 1]);
          });
        }
        convolve(wide, out.channels, [1, 3], 2);
      });
      x = out;
    }
    walk.take(elements({ ...x, channels: PIXEL_CHANNELS }), dtype);
    unit(x, PIXEL_CHANNELS);
    if (ranks === 1) return;
    const part = elements({ ...x, channels: PIXEL_CHANNELS }) * pixelBytes;
    const whole = x.frames * 64 * size.height * size.width * PIXEL_CHANNELS * pixelBytes;
    walk.gatherPart("world", ranks, part);
    memory.take(whole);
    counts(() => walk.work({ kind: "gather", group: "world", bytes: whole, ranks }));
  });
}

/** The one attention layer: this rank's pixels to those of the whole frame. */
function attend(
  walk: Walk,
  {
    own,
    all,
    channels,
    ranks,
    later,
    counts,
  }: {
    readonly own: number;
    readonly all: number;
    readonly channels: number;
    readonly ranks: number;
    readonly later: boolean;
    readonly counts: (body: () => void) => void;
  },
): void {
  const { memory, vae: dtype } = walk;
  if (later) {
    walk.keep(channels);
    walk.keep(4 * channels * (channels + 1), dtype);
  }
  memory.scope(() => {
    const bytes = dtype === "fp32" ? 4 : 2;
    walk.take(all * channels, dtype);
    if (ranks > 1) {
      walk.gatherPart("world", ranks, own * channels * bytes);
      counts(() => walk.work({ kind: "gather", group: "world", bytes: all * channels * bytes, ranks }));
    }
    // q and what is attended of this rank; k, v, and v transposed of all.
    for (const rows of [own, all, all, own]) walk.take(rows * channels, dtype);
    walk.take(all * channels, dtype);
    const queries = Math.min(QUERY_BLOCK, own);
    memory.scope(() => {
      walk.take(queries * all, "fp32");
      if (dtype !== "fp32") walk.take(queries * all, dtype);
    });
    const flops = 2 * channels ** 2 * (2 * own + 2 * all) + 4 * own * all * channels;
    counts(() => walk.work({ kind: "convolution", flops, dtype }));
    counts(() => walk.pass(own * all * 12));
  });
}
