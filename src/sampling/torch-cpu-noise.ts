// What torch.randn draws on a CPU: a 32-bit Mersenne Twister (Matsumoto and Nishimura 1998), then Box–Muller
// (aten/src/ATen/native/cpu/DistributionTemplates.h, normal_fill and normal_kernel).

const STATE = 624;
const SHIFT = 397;

/** mt19937: words of 32 bits. */
class MersenneTwister {
  readonly #state = new Uint32Array(STATE);
  #next = STATE;

  constructor(seed: number) {
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < STATE; i++) {
      const previous = state[i - 1] ?? 0;
      state[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
    }
  }

  next(): number {
    if (this.#next === STATE) this.#refill();
    let y = this.#state[this.#next++] ?? 0;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #refill(): void {
    const state = this.#state;
    for (let i = 0; i < STATE; i++) {
      const y = ((state[i] ?? 0) & 0x80000000) | ((state[(i + 1) % STATE] ?? 0) & 0x7fffffff);
      state[i] = (state[(i + SHIFT) % STATE] ?? 0) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}

/** Numbers that PyTorch fills at once: eight pairs. */
const BLOCK = 16;
const TWO_PI = Math.fround(2 * Math.PI);

/**
 * The float32 values of `torch.randn(count)` as the first draw of a CPU generator with this seed, but for the last bit:
 * PyTorch's logarithms and sines are those of the machine's vector units.
 * @param seed PyTorch takes its lower 32 bits.
 */
export function torchCpuNoise(seed: bigint, count: number): Float32Array {
  const random = new MersenneTwister(Number(seed & 0xffffffffn));
  return count < BLOCK ? fewNumbers(random, count) : manyNumbers(random, count);
}

/** Uniform numbers of 24 bits throughout, then blocks of 16; a rest that fills no block draws the last 16 anew. */
function manyNumbers(random: MersenneTwister, count: number): Float32Array {
  const out = new Float32Array(count);
  const uniform = () => (random.next() & 0xffffff) * 2 ** -24;
  for (let i = 0; i < count; i++) out[i] = uniform();
  for (let first = 0; first + BLOCK <= count; first += BLOCK) toNormal(out, first);
  if (count % BLOCK > 0) {
    for (let i = count - BLOCK; i < count; i++) out[i] = uniform();
    toNormal(out, count - BLOCK);
  }
  return out;
}

/** 16 uniform numbers to normal ones: the cosines of eight pairs, then their sines. */
function toNormal(x: Float32Array, first: number): void {
  for (let i = first; i < first + BLOCK / 2; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - (x[i] ?? 0)));
    const angle = Math.fround(TWO_PI * (x[i + BLOCK / 2] ?? 0));
    x[i] = radius * Math.cos(angle);
    x[i + BLOCK / 2] = radius * Math.sin(angle);
  }
}

/** One pair of float64 after the other: each two uniform numbers of 53 bits make a cosine and a sine. */
function fewNumbers(random: MersenneTwister, count: number): Float32Array {
  const out = new Float32Array(count);
  const uniform = () => {
    const high = random.next() & 0x1fffff;
    return (high * 2 ** 32 + random.next()) * 2 ** -53;
  };
  for (let i = 0; i < count; i += 2) {
    const angle = 2 * Math.PI * uniform();
    const radius = Math.sqrt(-2 * Math.log1p(-uniform()));
    out[i] = radius * Math.cos(angle);
    out[i + 1] = radius * Math.sin(angle); // beyond the end: ignored
  }
  return out;
}
