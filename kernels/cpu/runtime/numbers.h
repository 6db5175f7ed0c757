// Numbers: eight-wide float vectors, exp and erf on them, and the conversions of bf16, f16 and e4m3.
// Vectors are the compiler's own (vector_size), so one source serves AVX2 and NEON.
#pragma once

#include <cstdint>

namespace ditrun {

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef float v8Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

inline v8 load8(const float *from) { return *reinterpret_cast<const v8Unaligned *>(from); }
inline void store8(float *to, v8 x) { *reinterpret_cast<v8Unaligned *>(to) = x; }
inline v8 all8(float x) { return v8{x, x, x, x, x, x, x, x}; }

/** Elements of the 16 that are a's eight and then b's eight, by their places. */
template <int... Places>
inline v8 shuffle8(v8 a, v8 b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, Places...);
#else
  return __builtin_shuffle(a, b, v8i{Places...});  // g++ before version 12
#endif
}

inline float sum8(v8 x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

inline float max8(v8 x) {
  float best = x[0];
  for (int lane = 1; lane < 8; lane++) best = x[lane] > best ? x[lane] : best;
  return best;
}

/**
 * e^x, within 2 units in the last place for x in [-87.33, 88.37]; beyond them the value at the bound (1.2e-38, 2.4e38).
 * NaN stays NaN. Range reduction by Cody and Waite: x = n ln 2 + r, |r| <= ln 2 / 2, then 1 + r + r^2 P(r) with P a
 * minimax fit (relative error 3e-9).
 */
inline v8 exp8(v8 x) {
  x = x < -87.33f ? all8(-87.33f) : x;
  x = x > 88.37f ? all8(88.37f) : x;
  const float toInteger = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  const v8 shifted = x * 1.44269504f + toInteger;
  const v8 n = shifted - toInteger;
  v8 r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  v8 p = r * 0.0013814544f + 0.0083687147f;
  p = p * r + 0.041668389f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  const v8 fraction = (r * r) * p + r + 1.0f;
  const v8i power = (reinterpret_cast<v8i>(shifted) << 23) + 0x3f800000;  // the bits of 2^n
  return fraction * reinterpret_cast<v8>(power);
}

/**
 * erf(x) within about 1.2e-7 of 1: x + x P(x^2) for |x| <= 1, and 1 - e^-(t + Q(t)) with t = |x| above it, P and Q
 * minimax fits (errors 4e-8 and 1e-9).
 */
inline v8 erf8(v8 x) {
  const v8 t = x < 0.0f ? -x : x;
  const v8 s = x * x;
  v8 p = s * -0.00056314655f + 0.0049175634f;
  p = p * s - 0.026711324f;
  p = p * s + 0.11280181f;
  p = p * s - 0.37612325f;
  p = p * s + 0.12837912f;
  const v8 small = x + x * p;
  const v8 u = t < 4.0f ? t : all8(4.0f);
  v8 q = u * -0.00018637926f + 0.0029476590f;
  q = q * u - 0.021838067f;
  q = q * u + 0.10310676f;
  q = q * u + 0.63814485f;
  q = q * u + 0.12708919f;
  q = q * u + 0.00034152230f;
  const v8 large = 1.0f - exp8(-(u + q));
  return t > 1.0f ? (x < 0.0f ? -large : large) : small;
}

/** The same bits as a number of another type: std::bit_cast, which g++ 10 lacks. */
template <class To, class From>
inline To bitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Conversions, each a few integer operations without branches so that loops over them vectorise.

inline bool isFinite(float x) { return (bitCast<uint32_t>(x) & 0x7f800000) != 0x7f800000; }

inline float fromBf16(uint16_t x) { return bitCast<float>(static_cast<uint32_t>(x) << 16); }

/** Nearest even; a NaN stays a (quiet) NaN. */
inline uint16_t toBf16(float x) {
  const uint32_t bits = bitCast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

inline float fromF16(uint16_t x) {
  const uint32_t magnitude = static_cast<uint32_t>(x & 0x7fff) << 13;
  const float finite = bitCast<float>(magnitude) * 0x1p112f;
  const float special = bitCast<float>(magnitude | 0x7f800000);
  const float value = (x & 0x7c00) == 0x7c00 ? special : finite;
  return bitCast<float>(bitCast<uint32_t>(value) | (static_cast<uint32_t>(x & 0x8000) << 16));
}

/** Nearest even; above 65504 by half a step or more, infinity. */
inline uint16_t toF16(float x) {
  const uint32_t bits = bitCast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t a = bits & 0x7fffffff;
  const uint32_t normal = (a - (112u << 23) + 0xfff + ((a >> 13) & 1)) >> 13;
  const uint32_t tiny = bitCast<uint32_t>(bitCast<float>(a) * 0x1p24f + 8388608.0f) - 0x4b000000;
  uint32_t result = a < (113u << 23) ? tiny : normal;
  result = a >= 0x477ff000 ? 0x7c00 : result;  // 65520
  result = a > 0x7f800000 ? 0x7e00 : result;
  return static_cast<uint16_t>(result | sign);
}

/** fp8 e4m3 (exponent bias 7, no infinities, NaN 0x7f; arXiv 2209.05433). */
inline float fromE4m3(uint8_t x) {
  const uint32_t magnitude = static_cast<uint32_t>(x & 0x7f) << 20;
  const float finite = bitCast<float>(magnitude) * 0x1p120f;
  const uint32_t bits = (x & 0x7f) == 0x7f ? 0x7fc00000 : bitCast<uint32_t>(finite);
  return bitCast<float>(bits | (static_cast<uint32_t>(x & 0x80) << 24));
}

/** Nearest even, saturating at 448 (infinities too); NaN to NaN. */
inline uint8_t toE4m3(float x) {
  const uint32_t bits = bitCast<uint32_t>(x);
  const uint32_t a = bits & 0x7fffffff;
  const uint32_t normal = ((a + 0x7ffff + ((a >> 20) & 1)) >> 20) - (120u << 3);
  const uint32_t tiny = bitCast<uint32_t>(bitCast<float>(a) * 0x1p9f + 8388608.0f) - 0x4b000000;
  uint32_t result = a < (121u << 23) ? tiny : normal;
  result = a >= 0x43e00000 ? 0x7e : result;  // 448
  result = a > 0x7f800000 ? 0x7f : result;
  return static_cast<uint8_t>(result | ((bits >> 24) & 0x80));
}

}  // namespace ditrun
