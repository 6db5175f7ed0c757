// Loads, stores and conversions shared by the memory-bound kernels. All arithmetic is float32; bf16 and e4m3 are
// storage.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "ditrun.h"
#include "ptx/arithmetic.cuh"

/** Elements that one thread moves at a time: 16 bytes of bf16, twice 16 of float32. */
constexpr int vectorWidth = 8;

__host__ __device__ inline int dtypeBytes(int dtype) {
  switch (dtype) {
    case DITRUN_F32:
    case DITRUN_I32:
      return 4;
    case DITRUN_BF16:
    case DITRUN_F16:
      return 2;
    case DITRUN_E4M3:
      return 1;
    default:
      return 0;
  }
}

inline const char *dtypeName(int dtype) {
  switch (dtype) {
    case DITRUN_F32:
      return "f32";
    case DITRUN_BF16:
      return "bf16";
    case DITRUN_E4M3:
      return "e4m3";
    case DITRUN_F16:
      return "f16";
    case DITRUN_I32:
      return "i32";
    default:
      return "unknown";
  }
}

inline bool isFloat(int dtype) { return dtype == DITRUN_F32 || dtype == DITRUN_BF16; }
inline bool isFloatOrF16(int dtype) { return isFloat(dtype) || dtype == DITRUN_F16; }
inline bool aligned16(uint64_t address) { return address % 16 == 0; }

__device__ inline float loadOne(const void *pointer, int64_t index, int dtype) {
  switch (dtype) {
    case DITRUN_F32:
      return static_cast<const float *>(pointer)[index];
    case DITRUN_BF16:
      return __bfloat162float(static_cast<const __nv_bfloat16 *>(pointer)[index]);
    case DITRUN_F16:
      return __half2float(static_cast<const __half *>(pointer)[index]);
    case DITRUN_I32:
      return float(static_cast<const int32_t *>(pointer)[index]);
    default:
      return float(static_cast<const __nv_fp8_e4m3 *>(pointer)[index]);
  }
}

/** Rounds to nearest even; e4m3 saturates at ±448; i32 truncates. */
__device__ inline void storeOne(void *pointer, int64_t index, int dtype, float value) {
  switch (dtype) {
    case DITRUN_F32:
      static_cast<float *>(pointer)[index] = value;
      break;
    case DITRUN_BF16:
      static_cast<__nv_bfloat16 *>(pointer)[index] = __float2bfloat16_rn(value);
      break;
    case DITRUN_F16:
      static_cast<__half *>(pointer)[index] = __float2half_rn(value);
      break;
    case DITRUN_I32:
      static_cast<int32_t *>(pointer)[index] = int32_t(value);
      break;
    default:
      static_cast<__nv_fp8_storage_t *>(pointer)[index] = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
  }
}

// Below, `narrow` is what elements of two bytes are: bf16, or f16 where a kernel is compiled for it; isNarrow says that
// a tensor has such, and is float32 else.

__device__ inline uint32_t packBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&pair);
}

__device__ inline uint32_t packF16(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&pair);
}

/** Two values rounded to bf16 or f16, to nearest even; what f16 cannot hold becomes infinite. */
template <int dtype>
__device__ inline uint32_t packPair(float low, float high) {
  static_assert(dtype == DITRUN_BF16 || dtype == DITRUN_F16);
  return dtype == DITRUN_BF16 ? packBf16(low, high) : packF16(low, high);
}

template <int dtype>
__device__ inline void unpackPair(uint32_t pair, float &low, float &high) {
  static_assert(dtype == DITRUN_BF16 || dtype == DITRUN_F16);
  if constexpr (dtype == DITRUN_BF16) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
  } else {
    const float2 values = __half22float2(*reinterpret_cast<const __half2 *>(&pair));
    low = values.x, high = values.y;
  }
}

/** 8 elements, still packed, so that several loads can be in flight before the first is used. index is a multiple of 8.
 */
struct Packed {
  uint4 low, high;  // high: float32 only
};

__device__ inline Packed loadPacked(const void *pointer, int64_t index, bool isNarrow) {
  Packed packed;
  if (isNarrow) {
    packed.low = *reinterpret_cast<const uint4 *>(static_cast<const __nv_bfloat16 *>(pointer) + index);
    packed.high = make_uint4(0, 0, 0, 0);
  } else {
    const uint4 *source = reinterpret_cast<const uint4 *>(static_cast<const float *>(pointer) + index);
    packed.low = source[0];
    packed.high = source[1];
  }
  return packed;
}

template <int narrow = DITRUN_BF16>
__device__ inline void unpack(const Packed &packed, bool isNarrow, float (&values)[vectorWidth]) {
  const uint32_t words[8] = {packed.low.x,  packed.low.y,  packed.low.z,  packed.low.w,
                             packed.high.x, packed.high.y, packed.high.z, packed.high.w};
  if (isNarrow) {
#pragma unroll
    for (int i = 0; i < 4; i++) unpackPair<narrow>(words[i], values[2 * i], values[2 * i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = __uint_as_float(words[i]);
  }
}

template <int narrow = DITRUN_BF16>
__device__ inline void load8(const void *pointer, int64_t index, bool isNarrow, float (&values)[vectorWidth]) {
  unpack<narrow>(loadPacked(pointer, index, isNarrow), isNarrow, values);
}

template <int narrow = DITRUN_BF16>
__device__ inline void store8(void *pointer, int64_t index, bool isNarrow, const float (&values)[vectorWidth]) {
  if (isNarrow) {
    *reinterpret_cast<uint4 *>(static_cast<__nv_bfloat16 *>(pointer) + index) =
        make_uint4(packPair<narrow>(values[0], values[1]), packPair<narrow>(values[2], values[3]),
                   packPair<narrow>(values[4], values[5]), packPair<narrow>(values[6], values[7]));
  } else {
    float4 *destination = reinterpret_cast<float4 *>(static_cast<float *>(pointer) + index);
    destination[0] = make_float4(values[0], values[1], values[2], values[3]);
    destination[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

/** Runs of 8, or of 4 where one side is float32: then 16 bytes of it a thread, and neighbouring threads touch
 * neighbouring ones. */
template <int narrow = DITRUN_BF16>
__device__ inline void loadRun(const void *pointer, int64_t index, bool isNarrow, float (&values)[8]) {
  load8<narrow>(pointer, index, isNarrow, values);
}
template <int narrow = DITRUN_BF16>
__device__ inline void storeRun(void *pointer, int64_t index, bool isNarrow, const float (&values)[8]) {
  store8<narrow>(pointer, index, isNarrow, values);
}

template <int narrow = DITRUN_BF16>
__device__ inline void loadRun(const void *pointer, int64_t index, bool isNarrow, float (&values)[4]) {
  if (isNarrow) {
    const uint2 pairs = *reinterpret_cast<const uint2 *>(static_cast<const __nv_bfloat16 *>(pointer) + index);
    unpackPair<narrow>(pairs.x, values[0], values[1]);
    unpackPair<narrow>(pairs.y, values[2], values[3]);
  } else {
    const float4 four = *reinterpret_cast<const float4 *>(static_cast<const float *>(pointer) + index);
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  }
}

template <int narrow = DITRUN_BF16>
__device__ inline void storeRun(void *pointer, int64_t index, bool isNarrow, const float (&values)[4]) {
  if (isNarrow)
    *reinterpret_cast<uint2 *>(static_cast<__nv_bfloat16 *>(pointer) + index) =
        make_uint2(packPair<narrow>(values[0], values[1]), packPair<narrow>(values[2], values[3]));
  else
    *reinterpret_cast<float4 *>(static_cast<float *>(pointer) + index) =
        make_float4(values[0], values[1], values[2], values[3]);
}

/** 4 values to e4m3, round to nearest even, saturating. */
__device__ inline uint32_t packE4m3(const float *values) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(values[0], values[1]), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(values[2], values[3]), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

__device__ inline void storeRunE4m3(void *pointer, int64_t index, const float (&values)[8]) {
  *reinterpret_cast<uint2 *>(static_cast<uint8_t *>(pointer) + index) =
      make_uint2(packE4m3(values), packE4m3(values + 4));
}
__device__ inline void storeRunE4m3(void *pointer, int64_t index, const float (&values)[4]) {
  *reinterpret_cast<uint32_t *>(static_cast<uint8_t *>(pointer) + index) = packE4m3(values);
}

/** The activations of ditrun_activation, in float32. */
__device__ inline float activate(float x, int activation) {
  switch (activation) {
    case DITRUN_GELU:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case DITRUN_GELU_TANH:
      return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case DITRUN_SILU:
      return x / (1.0f + expf(-x));
    default:
      return x;
  }
}

/** Exact GELU to 1e-7 |x|, far inside bf16's rounding, in half of erff's instructions: x Φ(x) = max(x, 0) - |x|
 * erfc(|x| / √2) / 2 with erfc by formula 7.1.26 of Abramowitz and Stegun, whose factor exp(-x²/2) also keeps the tail
 * right in proportion. */
__device__ inline float geluForBf16(float x) {
  const float z = fabsf(x) * 0.70710678118654752f;
  const float t = __fdividef(1.0f, fmaf(0.3275911f, z, 1.0f));
  float p = fmaf(1.061405429f, t, -1.453152027f);
  p = fmaf(p, t, 1.421413741f);
  p = fmaf(p, t, -0.284496736f);
  p = fmaf(p, t, 0.254829592f);
  return fmaxf(x, 0.0f) - 0.5f * fabsf(x) * (p * t) * __expf(-z * z);
}

/** activate() for values that are about to be stored as bf16 (toBf16) or float32. */
template <int activation>
__device__ inline float activateFor(float x, bool toBf16) {
  if (activation == DITRUN_GELU && toBf16) return geluForBf16(x);
  // to 1e-5, and 0 where the divisor overflows
  if (activation == DITRUN_SILU && toBf16) return __fdividef(x, 1.0f + __expf(-x));
  return activate(x, activation);
}

/** The smallest amax that a row's e4m3 scale is made from, so that a row of zeros divides by something. */
constexpr float smallestAmax = 1e-12f;
constexpr float largestE4m3 = 448.0f;

/** x / divisor rounded to nearest, where reciprocal is 1 / divisor rounded to nearest and nothing overflows:
 * Markstein's correction of x * reciprocal, a quarter of the instructions of __fdiv_rn for many quotients of one
 * divisor. */
__device__ inline float quotient(float x, float divisor, float reciprocal) {
  const float estimate = x * reciprocal;
  return fmaf(fmaf(-estimate, divisor, x), reciprocal, estimate);
}

/** What a row (or head) of this largest absolute value is divided by: amax / 448, rounded to nearest. */
__device__ inline float scaleOfAmax(float amax) {
  return quotient(fmaxf(amax, smallestAmax), largestE4m3, 1.0f / largestE4m3);
}

/** 1 / x rounded to nearest where x and the result are normal numbers: __frcp_rn without the branch for others. */
__device__ inline float reciprocalOfNormal(float x) {
  const float estimate = ptx::reciprocalApprox(x);
  return fmaf(fmaf(-x, estimate, 1.0f), estimate, estimate);
}

/** Blocks for a loop over items with a grid stride: enough to fill the device, no more than there is work. */
inline int gridFor(int64_t items, int threads, int multiprocessors) {
  const int64_t blocks = (items + threads - 1) / threads, most = int64_t(multiprocessors) * 32;
  return int(blocks < 1 ? 1 : blocks < most ? blocks : most);
}
