// What the Hopper attention kernels have in common: the ring of shared-memory stages that a producer fills with keys
// and values for the warp groups, and how a finished row is merged and stored. S is a kernel's Shape, Parameters its
// arguments.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "runtime/numbers.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

namespace attention {

constexpr float kLn2 = 0.6931471805599453f;

/** How a block of threads and its shared memory are laid out for operands of two bytes. */
template <class TileType, int dimension>
struct RingShape {
  using Tile = TileType;
  static constexpr int headDim = dimension;
  static constexpr int queries = 64 * Tile::warpGroups;
  static constexpr int consumers = 128 * Tile::warpGroups;
  static constexpr int threads = consumers + 128;
  static constexpr int columns = headDim < 64 ? headDim : 64;  // one swizzled row holds 64 or 128 bytes
  static constexpr int slabs = headDim / columns;
  static constexpr int rowBytes = 2 * columns;
  static constexpr ptx::Swizzle swizzle = columns == 32 ? ptx::Swizzle::bytes64 : ptx::Swizzle::bytes128;
  static constexpr int queryBytes = 2 * queries * headDim;
  static constexpr int tileBytes = 2 * Tile::keys * headDim;  // of K, and of V
  static constexpr int slabBytes = Tile::keys * rowBytes;
  static constexpr int valueBytes = tileBytes + slabBytes;  // V and its ones
  static constexpr int outputColumns = headDim + 8;         // a group of eight equal sums l
  static constexpr int ringBytes = Tile::stages * (tileBytes + valueBytes);
};

template <class S>
struct Shared {
  uint64_t queryFull;
  uint64_t keyFull[S::Tile::stages], keyEmpty[S::Tile::stages], valueFull[S::Tile::stages], valueEmpty[S::Tile::stages];
  int repeat;
};

/** Where the n-th tile since the start lies in the ring of stages, and the parity of its barriers' phase. */
template <int stages>
struct Place {
  static_assert((stages & (stages - 1)) == 0, "a power of two, so that a mask finds the stage");
  int stage;
  uint32_t parity;
  __device__ __forceinline__ explicit Place(int n) : stage(n & (stages - 1)), parity(n / stages & 1) {}
};

/** The maximum over the four threads that share two rows. */
__device__ __forceinline__ float quadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

template <class S>
__device__ __forceinline__ void initRing(Shared<S> &shared) {
  for (int stage = 0; stage < S::Tile::stages; ++stage) {
    ptx::mbarrierInit(&shared.keyFull[stage], 1);
    ptx::mbarrierInit(&shared.valueFull[stage], 1);
    ptx::mbarrierInit(&shared.keyEmpty[stage], S::consumers / 32);
    ptx::mbarrierInit(&shared.valueEmpty[stage], S::consumers / 32);
  }
}

/** Writes the ones beside every stage of V; two of them are a word. All threads of the block. */
template <class S>
__device__ __forceinline__ void fillOnes(char *values) {
  for (int stage = 0; stage < S::Tile::stages; ++stage) {
    uint32_t *ones = reinterpret_cast<uint32_t *>(values + stage * S::valueBytes + S::tileBytes);
    for (int i = threadIdx.x; i < S::slabBytes / 4; i += S::threads) ones[i] = S::twoOnes;
  }
}

/** Readies barriers and ones. All threads of the block. */
template <class S>
__device__ __forceinline__ void startRing(Shared<S> &shared, char *values) {
  if (threadIdx.x == 0) {
    ptx::mbarrierInit(&shared.queryFull, 1);
    initRing(shared);
    shared.repeat = 0;
    ptx::fenceMbarrierInit();
  }
  fillOnes<S>(values);
  ptx::fenceProxyAsyncShared();
  __syncthreads();
}

/** Fetches the block's queries of head blockIdx.y. One thread. */
template <class S, class Parameters>
__device__ __forceinline__ void loadQueries(const Parameters &p, Shared<S> &shared, char *queries, int firstQuery) {
  ptx::mbarrierExpect(&shared.queryFull, S::queryBytes);
  for (int slab = 0; slab < S::slabs; ++slab)
    ptx::tmaLoad(queries + slab * S::queries * S::rowBytes, &p.q, &shared.queryFull,
                 blockIdx.y * S::headDim + slab * S::columns, firstQuery);
}

/** Walks the KV blocks of one head and fills the ring. One thread. Returns the position after it. */
template <class S, class Parameters>
__device__ __forceinline__ int produce(const Parameters &p, Shared<S> &shared, char *keys, char *values, int head,
                                       int position, bool observer) {
  const int column = head * S::headDim;
  for (int block = 0; block < p.blockCount; ++block) {
    if (p.flags[block] != nullptr) {
      const uint64_t start = ptx::globalNanoseconds();
      while (ptx::loadAcquireSystem(p.flags[block]) != 1) __nanosleep(64);
      ptx::fenceProxyAsyncGlobal();
      if (observer && p.waitNanoseconds != nullptr) p.waitNanoseconds[block] += ptx::globalNanoseconds() - start;
    }
    for (int row = 0; row < p.length[block]; row += S::Tile::keys) {
      const Place<S::Tile::stages> place(position++);
      const int stage = place.stage;
      ptx::mbarrierWait(&shared.keyEmpty[stage], place.parity ^ 1);
      ptx::mbarrierExpect(&shared.keyFull[stage], S::tileBytes);
      for (int slab = 0; slab < S::slabs; ++slab)
        ptx::tmaLoad(keys + stage * S::tileBytes + slab * S::slabBytes, &p.k[block], &shared.keyFull[stage],
                     column + slab * S::columns, row);
      ptx::mbarrierWait(&shared.valueEmpty[stage], place.parity ^ 1);
      ptx::mbarrierExpect(&shared.valueFull[stage], S::tileBytes);
      for (int slab = 0; slab < S::slabs; ++slab)
        ptx::tmaLoad(values + stage * S::valueBytes + slab * S::slabBytes, &p.v[block], &shared.valueFull[stage],
                     column + slab * S::columns, row);
    }
  }
  return position;
}

/** Each channel of the output counts as it is. */
struct Unscaled {
  __device__ __forceinline__ float operator()(int) const { return 1.0f; }
};

/** Merges one row of a finished tile with a previous partial result, and stores this thread's part of it and of lse. o,
 * as wgmma leaves it, is still to be divided by l and multiplied by what channelScale has for a column of the head; row
 * is 0 or 1 of the thread's two. In e4m3 the row of this head gets a scale. */
template <int headDim, typename Output, class Parameters, int count, class Scale = Unscaled>
__device__ __forceinline__ void storeRow(const Parameters &p, const float (&o)[count], int row, int query, int head,
                                         float logSum, float l, Scale channelScale = {}) {
  const int lane = threadIdx.x % 32, first = 2 * (lane % 4);
  float own = 1.0f / l, previous = 0.0f;
  const int64_t index = static_cast<int64_t>(head) * p.queries + query;
  if (p.previousO != nullptr) {
    const float before = p.previousLse[index];
    const float larger = fmaxf(before, logSum);
    const float merged = larger + logf(expf(before - larger) + expf(logSum - larger));
    own *= expf(logSum - merged);
    previous = expf(before - merged);
    logSum = merged;
  }
  __syncwarp(0xfu << (lane & ~3));  // the row's four threads have read previousLse, which lse may be
  if (p.lse != nullptr && lane % 4 == 0) p.lse[index] = logSum;
  Output *out = static_cast<Output *>(p.o) + query * p.oStride + head * headDim + first;
  const float *before = p.previousO + (static_cast<int64_t>(query) * p.heads + head) * headDim + first;
  [[maybe_unused]] float values[headDim / 4];  // e4m3 only: all of them decide their scale
#pragma unroll
  for (int j = 0; j < headDim / 8; ++j) {
    float x = o[4 * j + 2 * row] * (own * channelScale(first + 8 * j)),
          y = o[4 * j + 2 * row + 1] * (own * channelScale(first + 8 * j + 1));
    if (p.previousO != nullptr) {
      const float2 old = *reinterpret_cast<const float2 *>(before + 8 * j);
      x = fmaf(old.x, previous, x);
      y = fmaf(old.y, previous, y);
    }
    if constexpr (sizeof(Output) == 1) values[2 * j] = x, values[2 * j + 1] = y;
    else if constexpr (sizeof(Output) == 4) *reinterpret_cast<float2 *>(out + 8 * j) = make_float2(x, y);
    else *reinterpret_cast<__nv_bfloat162 *>(out + 8 * j) = __floats2bfloat162_rn(x, y);
  }
  if constexpr (sizeof(Output) == 1) {
    float amax = 0;
#pragma unroll
    for (int i = 0; i < headDim / 4; ++i) amax = fmaxf(amax, fabsf(values[i]));
    const uint32_t row = 0xfu << (lane & ~3);
    amax = fmaxf(amax, __shfl_xor_sync(row, amax, 1));
    amax = fmaxf(amax, __shfl_xor_sync(row, amax, 2));
    const float scale = scaleOfAmax(amax), reciprocal = reciprocalOfNormal(scale);
    if (lane % 4 == 0) p.oScale[static_cast<int64_t>(query) * p.heads + head] = scale;
#pragma unroll
    for (int j = 0; j < headDim / 8; ++j)
      *reinterpret_cast<__nv_fp8x2_storage_t *>(out + 8 * j) = __nv_cvt_float2_to_fp8x2(
          make_float2(quotient(values[2 * j], scale, reciprocal), quotient(values[2 * j + 1], scale, reciprocal)),
          __NV_SATFINITE, __NV_E4M3);
  }
}

}  // namespace attention
