// Exponentials of the f16 Hopper attention kernel: 2^s of pairs of scores s (log2), as they leave wgmma in half
// precision.
//
// The special-function unit takes three issue slots a pair: two ex2 and a PRMT that joins their results. The polynomial
// takes five:
//   t = s + T rounds to T + i, i = round(s), in t's low bits, since halves from 1024 on are integers
//   h = 2^-7 (a (s - i) + g) = a' s + (K - a' t), in two multiply-adds
//   w = C + h^2 is near 2^-14 2^(s - i + 1/2) in [2^-14, 2^-13); there, and below, halves step evenly by 2^-24
//   bits(w) + 1024 bits(t) = the bits of 2^(s + 1/2), both lanes in one integer operation: T ends in 14 (what w lacks
//   of exponent 15 is
//       one), and what the low lane's t leaves in the high lane is taken off that lane's C
// It is right while |s| <= 14 (kLimit), which the kernel sees to, and larger than 2^s by a constant factor, which the
// kernel takes out of the sums. a, K and C come from a search over the halves near the best quadratic: rms
// error 1.1e-3, rounding to f16 included.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ptx/arithmetic.cuh"

namespace attentionF16 {

using ptx::half2Fma;

/** Largest |s| for which exp2Polynomial is right. */
constexpr float kLimit = 14.0f;
/** What exp2Polynomial has to be multiplied by: 2^-1/2 over the mean of its errors. */
constexpr float kPolynomialScale = 0.70710678f / (1.0f - 5.5e-4f);

__host__ __device__ constexpr uint32_t both(uint32_t half) { return half << 16 | half; }

/** Passed with the kernel's parameters, since as literals they would be loaded into a register again for every use. */
struct Constants {
  uint32_t shift = both(0x640e);  // T = 1038
  uint32_t root = both(0x1ca8);   // a' = 2^-7 · 1192/2048
  uint32_t minusRoot = both(0x9ca8);
  uint32_t offset = both(0x44ba);          // K = 605/128
  uint32_t base = 705u - 400 << 16 | 705;  // C, in steps of 2^-24; the low lane leaves T >> 6 = 400 in the high one
};

/** About 2^(s + 1/2) of two scores, as packed halves. Five issue slots. */
__device__ __forceinline__ uint32_t exp2Polynomial(uint32_t s, const Constants &constants) {
  const uint32_t t = ptx::half2Add(s, constants.shift);
  const uint32_t h = half2Fma(s, constants.root, half2Fma(t, constants.minusRoot, constants.offset));
  return half2Fma(h, h, constants.base) + (t << 10);
}

/** Rounds to nearest even; what f16 cannot hold becomes infinite. */
__device__ __forceinline__ uint32_t packHalf(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t &>(pair);
}

__device__ __forceinline__ float2 unpackHalf(uint32_t pair) {
  return __half22float2(reinterpret_cast<const __half2 &>(pair));
}

}  // namespace attentionF16
