// Exponentials for the Hopper attention kernel: p = 2^(c s - m) of pairs of scores, rounded to bf16 once.
//
// One multiprocessor computes 16 exponentials a clock on its special-function unit, but needs 28 to keep pace with the
// matrix units at head dimension 32. So part of the pairs take a polynomial in packed half precision:
//   X = 1024 (c s - m - 1/2), from float32, saturated to the half range (so c s - m lies within 64 of 1/2)
//   t = X / 1024 + T rounds to i = round(c s - m - 1/2) in t's low bits, because T is near 1500, where halves are
//   integers f = X / 1024 - i in [-1/2, 1/2], exact w = B + 2^(f + 1/2) - 1, by a polynomial; B is in [8, 16), where
//   halves step by 2^-7 as bf16 does in [1, 2): so this
//       rounds to the 7 mantissa bits of the result, to nearest
//   bits(w) + 128 bits(t) = the bits of 2^i 2^(f + 1/2) in bf16, both lanes in one integer operation: T and B of the
//   two
//       lanes differ so that constants and the carry of the low lane cancel.
// Eight issue slots and a half per pair, against five for two float32 ex2 and a pack, and no special-function unit.
#pragma once

#include <cstdint>

#include "ptx/arithmetic.cuh"

namespace attention {

using ptx::bf162Multiply, ptx::exp2Approx, ptx::half2Fma, ptx::half2Subtract;

/** Largest distance of c s from m (log2) that the polynomial represents; further scores saturate there. */
constexpr float kWindow = 63.0f;

__device__ __forceinline__ uint32_t packBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__host__ __device__ constexpr uint32_t both(uint32_t half) { return half << 16 | half; }

/** Passed with the kernel's parameters, since as literals they would be loaded into a register again for every use. */
struct PolynomialConstants {
  uint32_t inverse = 0x14001400;  // 2^-10
  uint32_t shift = 0x65ed65ee;    // T: 1517 and 1518
  uint32_t slope = 0x3bec3bec;    // 0.9902
};

/** The constants of exp2Fixed, for scores s that a thread holds as 2^k s (k makes 2^-k c about 2^-10):
 *   t = c1 s + T rounds to i = round(c s) in t's low bits; both lanes have the same T, and B cancels the carry of the
 * low lane d = K - a t, h = c2 s + d = a (c s - i) + g, where K = a T + g lies on the grid of halves by choice of a and
 * T w = B + h^2: h^2 + 89/128 is near 2^(c s - i + 1/2), and B = 12 with its carry; w + 128 t is 2^(c s + 1/2) in bf16
 * a, T and g come from a search over all halves near the best quadratic (rms error 1.2e-3; the best has 1.04e-3). */
struct FixedConstants {
  uint32_t shift = both(0x65ea);         // T = 1514
  uint32_t negativeRoot = both(0xb8ac);  // -a = -1196/2048
  uint32_t offset = both(0x62ea);        // K = 885
  uint32_t base = 0x4a264a59;            // 12 + 38/128 and 12 + 89/128
  uint32_t scale = 0, rootScale = 0;     // c1 = 2^-k c, c2 = a 2^-k c
};
constexpr float kFixedRoot = 1196.0f / 2048.0f;

/** 2^(c s + 1/2) of two scores, as packed bf16: the exponential with the reference m fixed at -1/2. Six issue slots. */
__device__ __forceinline__ uint32_t exp2Fixed(float low, float high, const FixedConstants &constants) {
  uint32_t s;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(s) : "f"(high), "f"(low));
  const uint32_t t = half2Fma(s, constants.scale, constants.shift);
  const uint32_t d = half2Fma(t, constants.negativeRoot, constants.offset);
  const uint32_t h = half2Fma(s, constants.rootScale, d);
  return half2Fma(h, h, constants.base) + (t << 7);
}

/** 2^x of two x given as 1024 (x - 1/2), as packed bf16. Relative error before rounding: 1.1e-3 rms (degree 2), 6e-5
 * (3). */
template <int degree>
__device__ __forceinline__ uint32_t exp2Polynomial(float low, float high, const PolynomialConstants &constants) {
  // B - 1 + 181/128, where 181/128 is near 2^(1/2); B is 9 and 9 + 77/128.
  constexpr uint32_t kB = (0x4800u + 128 + 181 - 128 + 77) << 16 | (0x4800u + 128 + 181 - 128);
  uint32_t x;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  const uint32_t t = half2Fma(x, constants.inverse, constants.shift);
  const uint32_t f = half2Fma(x, constants.inverse, half2Subtract(constants.shift, t));
  uint32_t w;
  if constexpr (degree == 2) {
    w = half2Fma(f, both(0x3569), constants.slope);  // 0.3381
  } else {
    w = half2Fma(f, half2Fma(f, both(0x2CF4), both(0x357D)), both(0x3BD8));  // 0.0774, 0.3430, 0.9805
  }
  w = half2Fma(f, w, kB);
  return w + (t << 7);
}

}  // namespace attention
