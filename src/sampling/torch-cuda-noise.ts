// What torch.randn draws on an H100 or an H200: Philox4x32-10 streams, one for each thread of the grid that PyTorch launches
// (aten/src/ATen/native/cuda/DistributionTemplates.h), two Box–Muller pairs from each four words (curand_normal.h).

const BLOCK = 256;
/** 132 multiprocessors of 2048 threads, and so the order of the streams in the tensor. */
const MOST_THREADS = 132 * 2048;
const TWO_PI = Math.fround(6.2831855);
const TURNS_PER_RADIAN = Math.fround(0.15915494);

/**
 * The float32 values of `torch.randn(count, device="cuda")` as the first draw of a generator with this seed.
 * Within 1e-6 of what was recorded: the GPU's sines are approximate, and `sineOfTurns` follows them but for their last bits.
 * @param seed 64 bits.
 */
export function torchCudaNoise(seed: bigint, count: number): Float32Array {
  const out = new Float32Array(count);
  const key0 = Number(seed & 0xffffffffn);
  const key1 = Number((seed >> 32n) & 0xffffffffn);
  const threads = Math.min(Math.ceil(count / BLOCK) * BLOCK, MOST_THREADS);
  const words = new Uint32Array(4);
  for (let round = 0; round * 4 * threads < count; round++) {
    for (let thread = 0; thread < threads; thread++) {
      philox(words, key0, key1, round, thread);
      const first = round * 4 * threads + thread;
      for (let pair = 0; pair < 2; pair++) {
        const radius = radiusOf(words[2 * pair] ?? 0);
        const turns = turnsOf(words[2 * pair + 1] ?? 0);
        const at = first + 2 * pair * threads;
        // A typed array ignores what lies beyond its end, as PyTorch's threads do.
        out[at] = radius * sineOfTurns(turns, 0);
        out[at + threads] = radius * sineOfTurns(turns, 1);
      }
    }
  }
  return out;
}

/** √(-2 ln u), u = word · 2^-32 + 2^-33 in float32. */
function radiusOf(word: number): number {
  return Math.sqrt(-2 * Math.log(Math.fround(Math.fround(word) * 2 ** -32 + 2 ** -33)));
}

/** A random angle in turns, in float32: radians from 0 to 2π, divided by 2π and rounded down. */
function turnsOf(word: number): number {
  const radians = Math.fround(Math.fround(word) * 2 ** -32 * TWO_PI + 2 ** -33 * TWO_PI);
  const turns = radians * TURNS_PER_RADIAN;
  const nearest = Math.fround(turns);
  return nearest > turns ? floatBelow(nearest) : nearest;
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The next smaller float32 of a positive one. */
function floatBelow(value: number): number {
  float[0] = value;
  bits[0] = (bits[0] ?? 0) - 1;
  return float[0] ?? Number.NaN;
}

const QUADRANT = 2 ** 23;

/**
 * The GPU's approximate sine of an angle in turns, a quarter turn on for the cosine (__sincosf). The angle is cut to 23 bits of a
 * quadrant, which are inverted in the second and fourth: found by comparing with recorded values.
 */
function sineOfTurns(turns: number, quarters: 0 | 1): number {
  const phase = (turns * 4 * QUADRANT) | 0;
  const quadrant = ((phase >> 23) + quarters) & 3;
  const within = phase & (QUADRANT - 1);
  const angle = quadrant & 1 ? QUADRANT - 1 - within : within;
  const sine = Math.sin(angle * (Math.PI / 2 / QUADRANT));
  return quadrant & 2 ? -sine : sine;
}

/** words = Philox4x32-10 (Salmon et al. 2011) of the counter (round, 0, thread, 0). */
function philox(words: Uint32Array, seed0: number, seed1: number, round: number, thread: number): void {
  let key0 = seed0;
  let key1 = seed1;
  let x = round;
  let y = 0;
  let z = thread;
  let w = 0;
  for (let pass = 0; pass < 10; pass++) {
    const low0 = Math.imul(0xd2511f53, x) >>> 0;
    const low1 = Math.imul(0xcd9e8d57, z) >>> 0;
    const high0 = highWord(0xd2511f53 * x, low0);
    const high1 = highWord(0xcd9e8d57 * z, low1);
    x = (high1 ^ y ^ key0) >>> 0;
    y = low1;
    z = (high0 ^ w ^ key1) >>> 0;
    w = low0;
    key0 = (key0 + 0x9e3779b9) >>> 0;
    key1 = (key1 + 0xbb67ae85) >>> 0;
  }
  words[0] = x;
  words[1] = y;
  words[2] = z;
  words[3] = w;
}

/** The upper 32 bits of a product, given as a float64 that was rounded, and its exact lower 32 bits. */
function highWord(product: number, low: number): number {
  return ((product - low) * 2 ** -32 + 0.5) >>> 0;
}
