// What makes keys of what the product left: RMSNorm and rotation, as ditrun_rms_norm does them, rounded as it would store them.
#pragma once
#include "device.h"
#include "rows.cuh"

/** Eight neighbouring bf16 numbers of a row to keys, from the row's factor, their weights and their pairs' cos and sin. */
__device__ inline uint4 keysOf(const uint4 &packed, float factor, const float (&weight)[8], const float (&turn)[8]) {
  float x[8];
  unpackRun(packed, x);
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = x[j] * factor * weight[j];
#pragma unroll
  for (int j = 0; j < 8; j += 2) rotate(x[j], x[j + 1], turn[j], turn[j + 1]);
  return make_uint4(packBf16(x[0], x[1]), packBf16(x[2], x[3]), packBf16(x[4], x[5]), packBf16(x[6], x[7]));
}

/** One number of a key, of any dtype and alignment; as it is where there are no row factors. */
template <class Args>
__device__ inline float loadKey(const Args &a, int64_t row, int column) {
  const void *k = asPointer<void>(a.k);
  const float x = loadOne(k, row * a.ldk + column, a.dtype);
  if (!a.rowFactor) return x;
  const float factor = asPointer<float>(a.rowFactor)[row], *weight = asPointer<float>(a.weight);
  const int even = column & ~1;
  const float *turn = asPointer<float>(a.rope) + row * a.headDim + even % a.headDim;
  float first = (even == column ? x : loadOne(k, row * a.ldk + even, a.dtype)) * factor * weight[even];
  float second = (even == column ? loadOne(k, row * a.ldk + even + 1, a.dtype) : x) * factor * weight[even + 1];
  rotate(first, second, turn[0], turn[1]);
  const float key = even == column ? first : second;
  return a.dtype == DITRUN_BF16 ? __bfloat162float(__float2bfloat16_rn(key)) : key;
}

/** Refuses row factors without what goes with them. */
inline int checkKeyNorm(const char *name, uint64_t rowFactor, uint64_t weight, uint64_t rope, int headDim) {
  if (!rowFactor || (rowFactor % 4 == 0 && weight && rope && weight % 4 == 0 && rope % 4 == 0 && headDim > 0 && headDim % 2 == 0)) return DITRUN_OK;
  return fail(DITRUN_INVALID_ARGUMENT, "%s makes keys by row factors (0x%llx), a weight (0x%llx), a rotary table (0x%llx) and an even head dimension, got %d.", name,
              (unsigned long long)rowFactor, (unsigned long long)weight, (unsigned long long)rope, headDim);
}
