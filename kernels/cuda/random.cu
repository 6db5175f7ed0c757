// Random weights: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), one counter an element.
#include "device.h"
#include "numbers.cuh"

__device__ inline uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

__global__ void fillRandom(const __grid_constant__ ditrun_random_args args) {
  const int64_t count = int64_t(args.rows) * args.columns, threads = int64_t(gridDim.x) * blockDim.x;
  const uint2 key = make_uint2(uint32_t(args.seed), uint32_t(args.seed >> 32));
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    const int64_t row = i / args.columns, column = i - row * args.columns;
    const uint64_t element = uint64_t(args.row0 + row) * uint64_t(args.fullColumns) + uint64_t(args.column0 + column);
    const uint4 words = philox4x32(make_uint4(uint32_t(element), uint32_t(element >> 32), args.tensorId, 0), key);
    // Each multiplication and addition rounds on its own (no FMA), so that every module gives the same bits.
    float value;
    if (args.distribution == DITRUN_UNIFORM) {
      const float unit = __fadd_rn(__fmul_rn(float(words.x >> 8), 0x1p-23f), -1.0f);
      value = __fmul_rn(args.amplitude, unit);
    } else {
      const uint32_t halves = (words.x & 0xffff) + (words.x >> 16) + (words.y & 0xffff) + (words.y >> 16) + (words.z & 0xffff) + (words.z >> 16) +
                              (words.w & 0xffff) + (words.w >> 16);
      const float centered = __fadd_rn(float(halves), -262140.0f);  // 8 · 32767.5
      const float reciprocal = 0x1.3988e2p-16f;                     // float32 of 1 / sqrt(8 (65536² - 1) / 12)
      value = __fmul_rn(__fmul_rn(args.amplitude, centered), reciprocal);
    }
    storeOne(asPointer<void>(args.out), row * args.ldo + column, args.outDtype, __fadd_rn(value, args.offset));
  }
}

int ditrun_fill_random(const ditrun_random_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->out == 0 || a->rows < 0 || a->columns <= 0 || a->ldo < a->columns || a->row0 < 0 || a->column0 < 0 || a->column0 + a->columns > a->fullColumns)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_fill_random got %d rows and columns %lld to %lld of %lld, with a stride of %lld.", a ? a->rows : 0,
                (long long)(a ? a->column0 : 0), (long long)(a ? a->column0 + a->columns : 0), (long long)(a ? a->fullColumns : 0), (long long)(a ? a->ldo : 0));
  if (!isFloatOrF16(a->outDtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_fill_random writes f32, bf16 or f16, not %s (dtype %d).", dtypeName(a->outDtype), a->outDtype);
  if (a->distribution != DITRUN_UNIFORM && a->distribution != DITRUN_NORMAL)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_fill_random knows no distribution %d (0 uniform, 1 normal).", a->distribution);
  if (a->rows == 0) return DITRUN_OK;
  fillRandom<<<gridFor(int64_t(a->rows) * a->columns, 256, deviceFacts().multiprocessors), 256, 0, asStream(stream)>>>(*a);
  return launched("ditrun_fill_random");
}
