// Softmax arithmetic of the e4m3 Hopper kernel, on pairs of scores in half precision.
//
// With m the row's maximum (log2, an integer) a probability is p = 2^(c s - m + 8), at most 2^8 of e4m3's 448. The bit
// pattern of an e4m3 number counts eighths of its logarithm, interpolated linearly between powers of two (Schraudolph,
// Neural Computation 11, 1999): so round(8 (c s - m + 15)) is p in e4m3. 1024 added, half precision rounds it to an
// integer and leaves it in the low byte: one multiply-add, one maximum with 1024 (for what is too small for e4m3) and
// half a byte permutation for two probabilities, where ex2 and the conversion take five issue slots and the
// special-function unit binds (bench/NOTES.md). The interpolation is too large by 2^kBias in the mean, which cancels
// against l and is taken off in lse, and has a standard deviation of 1.8 %, beside the 2.6 % of rounding to e4m3 in any
// case.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ptx/arithmetic.cuh"

namespace attentionFp8 {

using ptx::exp2Approx, ptx::half2Fma, ptx::half2Max, ptx::half2Subtract, ptx::maxOrNan;

/** log2 of the mean of (1 + f) / 2^f over f in [0, 1). */
constexpr float kBias = 0.0575f;
/** log2 of the largest probability as the matrix unit sees it. */
constexpr float kTop = 8.0f;

__device__ __forceinline__ uint32_t packHalf(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ __forceinline__ uint32_t bothHalf(float x) { return packHalf(x, x); }

__device__ __forceinline__ float2 unpackHalf(uint32_t pair) {
  float2 both;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}\n"
      : "=f"(both.x), "=f"(both.y)
      : "r"(pair));
  return both;
}

/** Four halves to e4m3, the first in the lowest byte; NaN stays NaN. */
__device__ __forceinline__ uint32_t packHalvesE4m3(uint32_t first, uint32_t second) {
  uint32_t packed;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f16x2 low, %1;\ncvt.rn.satfinite.e4m3x2.f16x2 high, %2;\nmov.b32 %0, {low, high};\n}\n"
      : "=r"(packed)
      : "r"(first), "r"(second));
  return packed;
}

/** e4m3 times 2^-shift, rounded to e4m3: exact but for what falls below its normal range. */
__device__ __forceinline__ uint32_t scaleE4m3(uint32_t four, int shift) {
  uint32_t low, high;
  asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}\n"
      : "=r"(low), "=r"(high)
      : "r"(four));
  const uint32_t half = static_cast<uint32_t>(15 - shift) << 10, factor = half << 16 | half;
  return packHalvesE4m3(half2Fma(low, factor, 0x80008000u), half2Fma(high, factor, 0x80008000u));
}

/** What scores of one row that share a scale are multiplied by, and what is added, in both lanes. */
struct Line {
  uint32_t slope, offset;
};
constexpr float kOffset = 1024.0f + 8.0f * (kTop + 7.0f);  // less 8 m

/** Probabilities of four keys. NaN becomes e4m3's NaN. */
__device__ __forceinline__ uint32_t exponentials(uint32_t first, uint32_t second, const Line &line) {
  constexpr uint32_t k1024 = 0x64006400;
  return __byte_perm(half2Max(half2Fma(first, line.slope, line.offset), k1024),
                     half2Max(half2Fma(second, line.slope, line.offset), k1024), 0x6420);
}

}  // namespace attentionFp8
