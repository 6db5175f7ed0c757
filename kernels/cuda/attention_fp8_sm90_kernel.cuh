// Attention forward for Hopper with queries, keys and values in e4m3: FlashAttention-2's algorithm 1 (arXiv 2307.08691).
//
// The skeleton is that of attention_sm90_kernel.cuh: warp groups of 64 queries, a producer that walks the keys of all blocks, ones
// beside V whose products are the row sums l. What differs:
// - Scores leave the matrix unit in half precision, with two keys a register, and softmax works on such pairs. So that no score can
//   overflow, the queries are first multiplied by 2^-Shape::shift in shared memory. Half precision rounds a score by 2^-12 of itself,
//   an order less than e4m3 queries and keys leave uncertain.
// - The maximum is exact at every step, since e4m3 probabilities have no room above it.
// - The products of one step with V are summed by themselves and then added to o in float32, which also rescales o: the matrix unit
//   keeps only some 13 bits of an e4m3 sum.
#pragma once

#include <cuda_bf16.h>

#include "attention_fp8_sm90_softmax.cuh"
#include "ditrun.h"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tiles.h"

namespace attention_fp8 {

constexpr int kUnit = DITRUN_FP8_KEYS;
constexpr float kLn2 = 0.6931471805599453f;
/** Beyond this, 8 m is not exact in half precision (or, for slopes, not in its range). */
constexpr float kFarMaximum = 1900.0f, kFarSlope = 60000.0f;

struct Parameters {
  CUtensorMap q;
  CUtensorMap k[DITRUN_MAX_KV_BLOCKS], v[DITRUN_MAX_KV_BLOCKS];
  const uint32_t *flags[DITRUN_MAX_KV_BLOCKS];
  const float *kScale[DITRUN_MAX_KV_BLOCKS];
  int32_t length[DITRUN_MAX_KV_BLOCKS];
  const float *qScale, *vScale;
  void *o;
  float *lse;
  const float *previousO, *previousLse;
  unsigned long long *waitNanoseconds;
  int64_t oStride;
  int32_t queries, heads, blockCount;
  float scaleLog2;  // scale · log2(e)
};

template <int dimension>
struct Shape {
  using Tile = AttentionFp8Tile<dimension>;
  static constexpr int headDim = dimension;
  static constexpr int queries = 64 * Tile::warpGroups;
  static constexpr int consumers = 128 * Tile::warpGroups;
  static constexpr int threads = consumers + 128;
  static constexpr int keys = kUnit * Tile::units;  // of a step
  static constexpr ptx::Swizzle swizzle = headDim == 32   ? ptx::Swizzle::bytes32
                                          : headDim == 64 ? ptx::Swizzle::bytes64
                                                          : ptx::Swizzle::bytes128;
  static constexpr int shift = headDim == 32 ? 7 : headDim == 64 ? 8 : 9;  // 448² · headDim / 2^shift = 50176
  static constexpr int outputColumns = headDim + 8;                       // a group of eight equal sums l
  static constexpr int queryBytes = queries * headDim;
  static constexpr int keyBytes = kUnit * headDim;
  static constexpr int valueBytes = kUnit * headDim;
  static constexpr int valuePitch = kUnit * outputColumns;  // V and its ones
  static constexpr int keyStage = Tile::units * keyBytes, valueStage = Tile::units * valuePitch;
  static constexpr int sharedBytes = 1024 + queryBytes + Tile::stages * (keyStage + valueStage);
};

template <class S>
struct Shared {
  uint64_t queryFull;
  uint64_t keyFull[S::Tile::stages], keyEmpty[S::Tile::stages], valueFull[S::Tile::stages], valueEmpty[S::Tile::stages];
  float scale[S::Tile::stages][S::Tile::units];  // of the keys
};

/** Walks the KV blocks and fills the ring. One thread. */
template <class S>
__device__ __forceinline__ void produce(const Parameters &p, Shared<S> &shared, char *keys, char *values, bool observer) {
  constexpr int stages = S::Tile::stages, units = S::Tile::units;
  const int column = blockIdx.y * S::headDim;
  int stage = 0;
  uint32_t parity = 1;
  for (int block = 0; block < p.blockCount; ++block) {
    if (p.flags[block] != nullptr) {
      const uint64_t start = ptx::global_nanoseconds();
      while (ptx::load_acquire_system(p.flags[block]) != 1) __nanosleep(64);
      ptx::fence_proxy_async_global();
      if (observer && p.waitNanoseconds != nullptr) p.waitNanoseconds[block] += ptx::global_nanoseconds() - start;
    }
    const int scales = (p.length[block] + kUnit - 1) / kUnit;
    const float *scale = p.kScale[block] + static_cast<int64_t>(blockIdx.y) * scales;
    for (int unit = 0; unit < scales; unit += units) {
      ptx::mbarrier_wait(&shared.keyEmpty[stage], parity);
#pragma unroll
      for (int u = 0; u < units; ++u) shared.scale[stage][u] = __ldcg(scale + min(unit + u, scales - 1));
      ptx::mbarrier_expect(&shared.keyFull[stage], S::keyStage);
#pragma unroll
      for (int u = 0; u < units; ++u)
        ptx::tma_load(keys + stage * S::keyStage + u * S::keyBytes, &p.k[block], &shared.keyFull[stage], column, (unit + u) * kUnit);
      ptx::mbarrier_wait(&shared.valueEmpty[stage], parity);
      ptx::mbarrier_expect(&shared.valueFull[stage], units * S::valueBytes);
#pragma unroll
      for (int u = 0; u < units; ++u)
        ptx::tma_load(values + stage * S::valueStage + u * S::valuePitch, &p.v[block], &shared.valueFull[stage], (unit + u) * kUnit, column);
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

/** One warp group's 64 queries: scores, softmax and output in registers. */
template <class S>
struct Consumer {
  using Tile = typename S::Tile;
  using OutputProduct = ptx::WgmmaE4m3<S::outputColumns>;
  static constexpr int units = Tile::units;

  const Parameters &p;
  Shared<S> &shared;
  uint64_t queries, keys, values;  // descriptors
  float o[S::headDim / 2];
  float partial[S::outputColumns / 2];  // the last step's product with V, not yet in o
  float m[2], l[2], decay[2];           // per row; decay: what o is multiplied by before partial is added
  float slope[2];                       // scale · qScale · 2^shift in eighths of log2

  __device__ __forceinline__ Consumer(const Parameters &parameters, Shared<S> &s, uint32_t queryAddress, uint32_t keyAddress, uint32_t valueAddress)
      : p(parameters), shared(s) {
    queries = ptx::descriptor(queryAddress, 0, 8 * S::headDim, S::swizzle);
    keys = ptx::descriptor(keyAddress, 0, 8 * S::headDim, S::swizzle);
    values = ptx::descriptor(valueAddress, 0, 8 * kUnit, ptx::Swizzle::bytes128);
  }

  __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&empty);
  }

  __device__ __forceinline__ void multiply_keys(uint32_t (&scores)[32], int stage, int unit) {
    ptx::wgmma_pin(scores);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < S::headDim / 32; ++step)
      ptx::wgmma_e4m3_half(scores, queries + step * 2, keys + (stage * S::keyStage + unit * S::keyBytes + step * 32) / 16, step != 0);
    ptx::wgmma_commit();
  }

  /** o = decay o + partial, and l likewise. */
  __device__ __forceinline__ void promote() {
#pragma unroll
    for (int i = 0; i < S::headDim / 2; ++i) o[i] = fmaf(o[i], decay[i / 2 % 2], partial[i]);
#pragma unroll
    for (int row = 0; row < 2; ++row) l[row] = fmaf(l[row], decay[row], partial[S::headDim / 2 + 2 * row]);
  }

  /** The largest score of each of the two rows, over the four threads that share them, as a pair. */
  __device__ __forceinline__ uint32_t largest_of(const uint32_t (&scores)[32]) {
    uint32_t first = scores[0], second = scores[1];
#pragma unroll
    for (int j = 2; j < 32; j += 2) {
      first = half2_max(first, scores[j]);
      second = half2_max(second, scores[j + 1]);
    }
    uint32_t both = half2_max(__byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632));
    both = half2_max(both, __shfl_xor_sync(0xffffffff, both, 1));
    both = half2_max(both, __shfl_xor_sync(0xffffffff, both, 2));
    return both;
  }

  __device__ __forceinline__ void mask(uint32_t (&scores)[32], int valid) {
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int j = 0; j < 32; ++j) {
      const int key = 8 * (j / 2) + first;
      // A -infinity in place of either.
      if (key + 1 >= valid) scores[j] = __byte_perm(scores[j], 0xfc00, key >= valid ? 0x5454 : 0x5410);
    }
  }

  /** One step: scores, the last step's output, softmax, and the queueing of this step's product with V.
   * pending: the stage whose product with V is in flight, or -1. */
  template <bool masked>
  __device__ __forceinline__ void step(int stage, uint32_t parity, int pending, int valid) {
    uint32_t scores[units][32];
    ptx::mbarrier_wait(&shared.keyFull[stage], parity);
    multiply_keys(scores[0], stage, 0);
    ptx::wgmma_wait<0>();
    ptx::wgmma_pin(partial);
    ptx::wgmma_pin(scores[0]);
#pragma unroll
    for (int unit = 1; unit < units; ++unit) multiply_keys(scores[unit], stage, unit);
    if (pending >= 0) release(shared.valueEmpty[pending]);
    promote();
    float steps[units][2];  // eighths of an octave (log2) that a score of 1 is worth
#pragma unroll
    for (int unit = 0; unit < units; ++unit) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        steps[unit][row] = slope[row] * shared.scale[stage][unit];
        if constexpr (masked) steps[unit][row] = fmaxf(steps[unit][row], 6e-8f);  // not 0, so that -infinity stays it
      }
    }
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int unit = 0; unit < units; ++unit) ptx::wgmma_pin(scores[unit]);
    release(shared.keyEmpty[stage]);
    if constexpr (masked) {
#pragma unroll
      for (int unit = 0; unit < units; ++unit) mask(scores[unit], valid - unit * kUnit);
    }

    constexpr uint32_t kEighth = 0x30003000;
    uint32_t largest[units];
    float highest[2] = {m[0], m[1]}, steepest = 0.0f;
#pragma unroll
    for (int unit = 0; unit < units; ++unit) {
      largest[unit] = largest_of(scores[unit]);
      const float2 octaves = unpack_half(half2_fma(largest[unit], kEighth, 0x80008000u));
      highest[0] = max_or_nan(highest[0], ceilf(octaves.x * steps[unit][0]));
      highest[1] = max_or_nan(highest[1], ceilf(octaves.y * steps[unit][1]));
      steepest = fmaxf(steepest, fmaxf(steps[unit][0], steps[unit][1]));
    }
    Line lines[units][2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      decay[row] = exp2_approx(m[row] - highest[row]);
      m[row] = highest[row];
      const uint32_t offset = both_half(fmaf(m[row], -8.0f, kOffset));
#pragma unroll
      for (int unit = 0; unit < units; ++unit) lines[unit][row] = {both_half(steps[unit][row]), offset};
    }
    const bool near = fmaxf(fabsf(m[0]), fabsf(m[1])) <= kFarMaximum && steepest <= kFarSlope;
    if (!__all_sync(0xffffffff, near)) recentre(scores, largest, steps, lines);

    ptx::mbarrier_wait(&shared.valueFull[stage], parity);
    uint32_t probabilities[4 * units][4];
    ptx::wgmma_pin(partial);
#pragma unroll
    for (int batch = 0; batch < 4 * units; batch += Tile::chunksPerBatch) {
#pragma unroll
      for (int chunk = batch; chunk < batch + Tile::chunksPerBatch; ++chunk) exponentiate(scores[chunk / 4], chunk % 4, lines[chunk / 4], probabilities[chunk]);
      ptx::wgmma_fence();
#pragma unroll
      for (int chunk = batch; chunk < batch + Tile::chunksPerBatch; ++chunk)
        OutputProduct::multiply_registers(partial, probabilities[chunk], values + (stage * S::valueStage + chunk / 4 * S::valuePitch + chunk % 4 * 32) / 16,
                                          chunk != 0);
    }
    ptx::wgmma_commit();
  }

  /** Probabilities of 32 keys, as the second product's operand. */
  __device__ __forceinline__ void exponentiate(const uint32_t (&scores)[32], int chunk, const Line (&lines)[2], uint32_t (&probabilities)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2, j = 8 * chunk + i / 2 * 4 + row;
      probabilities[i] = exponentials(scores[j], scores[j + 2], lines[row]);
    }
  }

  /** For scores too large for half precision arithmetic: takes each unit's largest off them first, exactly near it. */
  __device__ __forceinline__ void recentre(uint32_t (&scores)[units][32], const uint32_t (&largest)[units], const float (&steps)[units][2],
                                           Line (&lines)[units][2]) {
#pragma unroll
    for (int unit = 0; unit < units; ++unit) {
      const float2 origin = unpack_half(largest[unit]);
      const uint32_t origins[2] = {__byte_perm(largest[unit], 0, 0x1010), __byte_perm(largest[unit], 0, 0x3232)};
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        lines[unit][row] = {both_half(steps[unit][row]), both_half(fmaf(row == 0 ? origin.x : origin.y, steps[unit][row], fmaf(m[row], -8.0f, kOffset)))};
      }
#pragma unroll
      for (int j = 0; j < 32; ++j) scores[unit][j] = half2_subtract(scores[unit][j], origins[j % 2]);
    }
  }

  /** Walks all keys. On return o and l are complete. */
  __device__ __forceinline__ void walk(int firstQuery) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < S::headDim / 2; ++i) o[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < S::outputColumns / 2; ++i) partial[i] = 0.0f;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = min(firstQuery + lane / 4 + 8 * row, p.queries - 1);
      slope[row] = p.qScale[static_cast<int64_t>(query) * p.heads + blockIdx.y] * p.scaleLog2 * static_cast<float>(8 << S::shift);
      m[row] = -INFINITY;
      l[row] = 0.0f;
      decay[row] = 0.0f;
    }
    int position = 0;
    for (int block = 0; block < p.blockCount; ++block) {
      int remaining = p.length[block];
      while (remaining > 0) {
        const uint32_t parity = position / Tile::stages & 1;
        if (remaining < Tile::stages * S::keys || position % Tile::stages != 0) {
          const int stage = position % Tile::stages;
          step<true>(stage, parity, -1, remaining);
          ptx::wgmma_wait<0>();
          ptx::wgmma_pin(partial);
          release(shared.valueEmpty[stage]);
          position += 1;
          remaining -= S::keys;
        } else {
          const int rounds = remaining / (Tile::stages * S::keys);
          walk_ring(rounds, parity);
          position += rounds * Tile::stages;
          remaining -= rounds * Tile::stages * S::keys;
        }
      }
    }
    promote();
  }

  /** All stages of the ring `rounds` times, unrolled so that descriptors and barriers cost no arithmetic. */
  __device__ __forceinline__ void walk_ring(int rounds, uint32_t parity) {
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
      for (int stage = 0; stage < Tile::stages; ++stage)
        step<false>(stage, parity, stage > 0 ? stage - 1 : round > 0 ? Tile::stages - 1 : -1, S::keys);
      parity ^= 1;
    }
    ptx::wgmma_wait<0>();
    ptx::wgmma_pin(partial);
    release(shared.valueEmpty[Tile::stages - 1]);
  }

  /** Scales, merges with a previous partial result, and stores this thread's part of o and lse. */
  template <typename Output>
  __device__ __forceinline__ void store(int firstQuery) {
    const int lane = threadIdx.x % 32, head = blockIdx.y;
    const float *channelScale = p.vScale + head * S::headDim + 2 * (lane % 4);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = firstQuery + lane / 4 + 8 * row;
      if (query >= p.queries) continue;
      float logSum = (m[row] - kTop - kBias + log2f(l[row])) * kLn2;
      float own = 1.0f / l[row], previous = 0.0f;
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
      Output *out = static_cast<Output *>(p.o) + query * p.oStride + head * S::headDim + 2 * (lane % 4);
      const float *before = p.previousO + (static_cast<int64_t>(query) * p.heads + head) * S::headDim + 2 * (lane % 4);
#pragma unroll
      for (int j = 0; j < S::headDim / 8; ++j) {
        float x = o[4 * j + 2 * row] * (own * channelScale[8 * j]), y = o[4 * j + 2 * row + 1] * (own * channelScale[8 * j + 1]);
        if (p.previousO != nullptr) {
          const float2 old = *reinterpret_cast<const float2 *>(before + 8 * j);
          x = fmaf(old.x, previous, x);
          y = fmaf(old.y, previous, y);
        }
        if constexpr (sizeof(Output) == 4)
          *reinterpret_cast<float2 *>(out + 8 * j) = make_float2(x, y);
        else
          *reinterpret_cast<__nv_bfloat162 *>(out + 8 * j) = __floats2bfloat162_rn(x, y);
      }
    }
  }
};

/** o = softmax(scale q kᵀ) v of 64 · warpGroups queries of head blockIdx.y. */
template <int headDim, typename Output>
__global__ void __launch_bounds__(Shape<headDim>::threads, 1) attention_fp8_kernel(const __grid_constant__ Parameters p) {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  extern __shared__ char raw[];
  __shared__ Shared<S> shared;
  char *queries = raw + (1024 - ptx::shared_address(raw) % 1024) % 1024;
  char *keys = queries + S::queryBytes, *values = keys + Tile::stages * S::keyStage;
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x / 128), 0);
  const int firstQuery = blockIdx.x * S::queries;

  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&shared.queryFull, 1);
    for (int stage = 0; stage < Tile::stages; ++stage) {
      ptx::mbarrier_init(&shared.keyFull[stage], 1);
      ptx::mbarrier_init(&shared.valueFull[stage], 1);
      ptx::mbarrier_init(&shared.keyEmpty[stage], S::consumers / 32);
      ptx::mbarrier_init(&shared.valueEmpty[stage], S::consumers / 32);
    }
    ptx::fence_mbarrier_init();
  }
  constexpr int kOnesWords = kUnit * 8 / 4;
  for (int i = threadIdx.x; i < Tile::stages * Tile::units * kOnesWords; i += S::threads)
    reinterpret_cast<uint32_t *>(values + i / kOnesWords * S::valuePitch + S::valueBytes)[i % kOnesWords] = 0x38383838;  // four ones
  ptx::fence_proxy_async_shared();
  __syncthreads();

  if (group == Tile::warpGroups) {
    ptx::registers_decrease<24>();
    if (threadIdx.x == S::consumers) {
      ptx::mbarrier_expect(&shared.queryFull, S::queryBytes);
      ptx::tma_load(queries, &p.q, &shared.queryFull, blockIdx.y * headDim, firstQuery);
      produce<S>(p, shared, keys, values, blockIdx.x == 0 && blockIdx.y == 0);
    }
  } else {
    ptx::registers_increase<Tile::consumerRegisters>();
    uint4 *own = reinterpret_cast<uint4 *>(queries + group * 64 * headDim);
    ptx::mbarrier_wait(&shared.queryFull, 0);
    for (int i = threadIdx.x % 128; i < 64 * headDim / 16; i += 128) {
      const uint4 x = own[i];
      own[i] = make_uint4(scale_e4m3(x.x, S::shift), scale_e4m3(x.y, S::shift), scale_e4m3(x.z, S::shift), scale_e4m3(x.w, S::shift));
    }
    ptx::fence_proxy_async_shared();
    ptx::named_barrier_sync(1 + group, 128);
    Consumer<S> consumer(p, shared, ptx::shared_address(queries) + group * 64 * headDim, ptx::shared_address(keys), ptx::shared_address(values));
    const int first = firstQuery + threadIdx.x / 32 * 16;
    consumer.walk(first);
    consumer.template store<Output>(first);
  }
}

}  // namespace attention_fp8
