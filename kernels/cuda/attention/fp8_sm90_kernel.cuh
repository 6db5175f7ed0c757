// Attention forward for Hopper with queries, keys and values in e4m3: FlashAttention-2's algorithm 1 (arXiv
// 2307.08691).
//
// The skeleton is that of attention/sm90_kernel.cuh: warp groups of 64 queries, a producer that walks the keys of all
// blocks, ones beside V whose products are the row sums l. What differs:
// - Scores leave the matrix unit in half precision, with two keys a register, and softmax works on such pairs. So that
// no score can
//   overflow, the queries are first multiplied by 2^-Shape::shift in shared memory. Half precision rounds a score by
//   2^-12 of itself, an order less than e4m3 queries and keys leave uncertain.
// - The maximum of every tile counts, since e4m3 probabilities have no room above it; few tiles raise it.
// - The products of one tile with V are summed by themselves and then added to o in float32: the matrix unit keeps only
// some 13
//   bits of an e4m3 sum, and cuts off the rest (a bias of 4e-4 for a tile, 4e-3 for sums of four).
#pragma once

#include <climits>

#include <cuda_bf16.h>

#include "attention/fp8_sm90_softmax.cuh"
#include "attention/sm90_ring.cuh"
#include "ditrun.h"
#include "runtime/numbers.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tiles/tiles.h"

namespace attentionFp8 {

constexpr int kUnit = DITRUN_FP8_KEYS;
/** Beyond this, 8 m is not exact in half precision, or slopes are not in its range. */
constexpr float kFarMaximum = 1900.0f, kFarSlope = 60000.0f;
constexpr uint32_t kEighth = 0x30003000;  // 1/8 in both lanes

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
  float *oScale;  // e4m3 out only
  // Blocks from wholeBlocks on take a share of the keys of one tile of queries: shares of them a tile. Only with one
  // block of keys.
  float *sharedO, *sharedLse;  // [share, query of the tile, channel] and [share, query of the tile]
  int32_t queryTiles, wholeBlocks, shares;
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
  static constexpr ptx::Swizzle swizzle = headDim == 32   ? ptx::Swizzle::bytes32
                                          : headDim == 64 ? ptx::Swizzle::bytes64
                                                          : ptx::Swizzle::bytes128;
  static constexpr int shift = headDim == 32 ? 7 : headDim == 64 ? 8 : 9;  // 448² · headDim / 2^shift = 50176
  static constexpr int outputColumns = headDim + 8;                        // a group of eight equal sums l
  static constexpr int queryBytes = queries * headDim;
  static constexpr int keyBytes = kUnit * headDim;
  static constexpr int valueBytes = kUnit * headDim;
  static constexpr int valuePitch = kUnit * outputColumns;  // V and its ones
  static constexpr int sharedBytes = 1024 + queryBytes + Tile::stages * (keyBytes + valuePitch);
};

template <class S>
struct Shared {
  uint64_t queryFull;
  uint64_t keyFull[S::Tile::stages], keyEmpty[S::Tile::stages], valueFull[S::Tile::stages], valueEmpty[S::Tile::stages];
  float scale[S::Tile::stages];  // of the keys
};

/** What a block of threads computes: a tile of queries of one head, over all keys or some. */
struct Work {
  int head, queryTile;
  int share;             // counted from the first of all, or -1: all keys
  int firstKey, endKey;  // multiples of kUnit, endKey perhaps beyond the last

  __device__ __forceinline__ explicit Work(const Parameters &p)
      : share(static_cast<int>(blockIdx.x) - p.wholeBlocks), firstKey(0), endKey(INT_MAX) {
    int tile = blockIdx.x;
    if (share >= 0) {
      const int units = (p.length[0] + kUnit - 1) / kUnit, part = share % p.shares;
      tile = p.wholeBlocks + share / p.shares;
      firstKey = units * part / p.shares * kUnit;
      endKey = units * (part + 1) / p.shares * kUnit;
    }
    head = tile / p.queryTiles;
    queryTile = tile - head * p.queryTiles;
  }
  __device__ __forceinline__ int end(int length) const { return min(length, endKey); }
};

/** Walks the KV blocks and fills the ring. One thread. */
template <class S>
__device__ __forceinline__ void produce(const Parameters &p, Shared<S> &shared, char *keys, char *values,
                                        const Work &work, bool observer) {
  constexpr int stages = S::Tile::stages;
  const int column = work.head * S::headDim;
  int stage = 0;
  uint32_t parity = 1;
  for (int block = 0; block < p.blockCount; ++block) {
    if (p.flags[block] != nullptr) {
      const uint64_t start = ptx::globalNanoseconds();
      while (ptx::loadAcquireSystem(p.flags[block]) != 1) __nanosleep(64);
      ptx::fenceProxyAsyncGlobal();
      if (observer && p.waitNanoseconds != nullptr) p.waitNanoseconds[block] += ptx::globalNanoseconds() - start;
    }
    const int tiles = (p.length[block] + kUnit - 1) / kUnit, end = (work.end(p.length[block]) + kUnit - 1) / kUnit;
    const float *scale = p.kScale[block] + static_cast<int64_t>(work.head) * tiles;
    for (int tile = work.firstKey / kUnit; tile < end; ++tile) {
      ptx::mbarrierWait(&shared.keyEmpty[stage], parity);
      shared.scale[stage] = __ldcg(scale + tile);
      ptx::mbarrierExpect(&shared.keyFull[stage], S::keyBytes);
      ptx::tmaLoad(keys + stage * S::keyBytes, &p.k[block], &shared.keyFull[stage], column, tile * kUnit);
      ptx::mbarrierWait(&shared.valueEmpty[stage], parity);
      ptx::mbarrierExpect(&shared.valueFull[stage], S::valueBytes);
      ptx::tmaLoad(values + stage * S::valuePitch, &p.v[block], &shared.valueFull[stage], tile * kUnit, column);
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
  static constexpr int kPartials = S::outputColumns / 2, kRowSum = S::headDim / 2;

  const Parameters &p;
  const Work &work;
  Shared<S> &shared;
  uint64_t queries, keys, values;  // descriptors
  float o[S::headDim / 2];
  float partial[kPartials];  // the last tile's product with V, not yet in o
  float m[2], l[2];          // per row
  float slope[2];            // scale · qScale · 2^shift, in eighths of an octave (log2)
  uint32_t offset[2];        // kOffset - 8 m, or what recentre makes of it
  float largestScale;        // of keys, for which the slopes are in half precision's range; -1 if m is not

  __device__ __forceinline__ Consumer(const Parameters &parameters, const Work &ownWork, Shared<S> &s,
                                      uint32_t queryAddress, uint32_t keyAddress, uint32_t valueAddress)
      : p(parameters), work(ownWork), shared(s) {
    queries = ptx::descriptor(queryAddress, 0, 8 * S::headDim, S::swizzle);
    keys = ptx::descriptor(keyAddress, 0, 8 * S::headDim, S::swizzle);
    values = ptx::descriptor(valueAddress, 0, 8 * kUnit, ptx::Swizzle::bytes128);
  }

  __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) ptx::mbarrierArrive(&empty);
  }

  /** Queues scores = Q Kᵀ of a stage and waits for them, and so for what was queued before. */
  __device__ __forceinline__ void multiplyKeys(uint32_t (&scores)[32], int stage) {
    ptx::wgmmaPin(scores);
    ptx::wgmmaFence();
#pragma unroll
    for (int step = 0; step < S::headDim / 32; ++step)
      ptx::wgmmaE4m3Half(scores, queries + step * 2, keys + (stage * S::keyBytes + step * 32) / 16, step != 0);
    ptx::wgmmaCommit();
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(scores);
    ptx::wgmmaPin(partial);
  }

  /** Queues partial = P V of a stage, P = 2^(c scores - m + kTop), a batch of keys as soon as its P is known. */
  __device__ __forceinline__ void multiplyValues(const uint32_t (&scores)[32], const Line (&lines)[2], int stage) {
    constexpr int kBatch = Tile::chunksPerBatch;
    uint32_t probabilities[4][4];
    ptx::wgmmaPin(partial);
#pragma unroll
    for (int batch = 0; batch < 4; batch += kBatch) {
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch; ++chunk) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = i % 2, j = 8 * chunk + i / 2 * 4 + row;
          probabilities[chunk][i] = exponentials(scores[j], scores[j + 2], lines[row]);
        }
      }
      ptx::wgmmaFence();
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch; ++chunk)
        OutputProduct::multiplyRegisters(partial, probabilities[chunk],
                                         values + (stage * S::valuePitch + chunk * 32) / 16, chunk != 0);
    }
    ptx::wgmmaCommit();
  }

  /** Adds partial to o, and its sums to l. */
  __device__ __forceinline__ void promote() {
#pragma unroll
    for (int i = 0; i < S::headDim / 2; ++i) o[i] += partial[i];
#pragma unroll
    for (int row = 0; row < 2; ++row) l[row] += partial[kRowSum + 2 * row];
  }

  /** The largest score of each of the two rows, over the four threads that share them, as a pair. */
  __device__ __forceinline__ uint32_t largestOf(const uint32_t (&scores)[32]) {
    uint32_t first = scores[0], second = scores[1];
#pragma unroll
    for (int j = 2; j < 32; j += 2) {
      first = half2Max(first, scores[j]);
      second = half2Max(second, scores[j + 1]);
    }
    uint32_t both = half2Max(__byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632));
    both = half2Max(both, __shfl_xor_sync(0xffffffff, both, 1));
    return half2Max(both, __shfl_xor_sync(0xffffffff, both, 2));
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

  /** Raises m to the octaves given, where they are above it, and rescales what was summed. */
  __device__ __forceinline__ void raise(const float (&octaves)[2]) {
    float farthest = 0.0f;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float raised = maxOrNan(m[row], ceilf(octaves[row])),
                  decay = m[row] == raised ? 1.0f : exp2Approx(m[row] - raised);
      m[row] = raised;
      l[row] *= decay;
      offset[row] = bothHalf(fmaf(raised, -8.0f, kOffset));
      farthest = maxOrNan(farthest, fabsf(raised));
#pragma unroll
      for (int j = 0; j < S::headDim / 8; ++j) {
        o[4 * j + 2 * row] *= decay;
        o[4 * j + 2 * row + 1] *= decay;
      }
    }
    largestScale = farthest <= kFarMaximum ? __fdividef(kFarSlope, fmaxf(slope[0], slope[1])) : -1.0f;
  }

  /** For scores too large for half precision arithmetic: takes the tile's largest off them first, exactly near it. */
  __device__ __forceinline__ void recentre(uint32_t (&scores)[32], uint32_t largest, const float (&steps)[2]) {
    const float2 origin = unpackHalf(largest);
    const uint32_t origins[2] = {__byte_perm(largest, 0, 0x1010), __byte_perm(largest, 0, 0x3232)};
    offset[0] = bothHalf(fmaf(origin.x, steps[0], fmaf(m[0], -8.0f, kOffset)));
    offset[1] = bothHalf(fmaf(origin.y, steps[1], fmaf(m[1], -8.0f, kOffset)));
#pragma unroll
    for (int j = 0; j < 32; ++j) scores[j] = half2Subtract(scores[j], origins[j % 2]);
    largestScale = -1.0f;  // these offsets serve no other tile
  }

  /** One tile: its scores, softmax, and the queueing of its product with V; before that, the end of the last tile.
   * pending: the stage whose product with V is in flight, or -1. valid: keys of the tile, if masked. */
  template <bool masked>
  __device__ __forceinline__ void step(int stage, uint32_t parity, int pending, int valid) {
    uint32_t scores[32];
    ptx::mbarrierWait(&shared.keyFull[stage], parity);
    multiplyKeys(scores, stage);
    const float scale = shared.scale[stage];
    __syncwarp();  // every lane has read it
    if (pending >= 0) release(shared.valueEmpty[pending]);
    release(shared.keyEmpty[stage]);
    promote();
    if constexpr (masked) mask(scores, valid);

    float steps[2] = {slope[0] * scale, slope[1] * scale};  // what a score of 1 is worth, in eighths of an octave
    if constexpr (masked) {
      steps[0] = fmaxf(steps[0], 6e-8f);  // not 0 in half precision, so that -infinity stays it
      steps[1] = fmaxf(steps[1], 6e-8f);
    }
    const uint32_t largest = largestOf(scores);
    const float2 eighths = unpackHalf(half2Fma(largest, kEighth, 0x80008000u));
    const float octaves[2] = {eighths.x * steps[0], eighths.y * steps[1]};
    const bool quiet = octaves[0] <= m[0] && octaves[1] <= m[1] && scale <= largestScale;
    if (__builtin_expect(!__all_sync(0xffffffff, quiet), 0)) {
      raise(octaves);
      if (!__all_sync(0xffffffff, scale <= largestScale)) recentre(scores, largest, steps);
    }
    const Line lines[2] = {{bothHalf(steps[0]), offset[0]}, {bothHalf(steps[1]), offset[1]}};
    ptx::mbarrierWait(&shared.valueFull[stage], parity);
    multiplyValues(scores, lines, stage);
  }

  /** All stages of the ring `rounds` times, unrolled so that descriptors and barriers cost no arithmetic. */
  __device__ __forceinline__ void walkRing(int rounds, uint32_t parity) {
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
      for (int stage = 0; stage < Tile::stages; ++stage) {
        step<false>(stage, parity, stage > 0 ? stage - 1 : round > 0 ? Tile::stages - 1 : -1, kUnit);
      }
      parity ^= 1;
    }
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(partial);
    release(shared.valueEmpty[Tile::stages - 1]);
  }

  /** Walks all keys of the work. On return o and l are complete. */
  __device__ __forceinline__ void walk(int firstQuery) {
#pragma unroll
    for (int i = 0; i < S::headDim / 2; ++i) o[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < kPartials; ++i) partial[i] = 0.0f;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = min(firstQuery + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * row, p.queries - 1);
      slope[row] =
          p.qScale[static_cast<int64_t>(query) * p.heads + work.head] * p.scaleLog2 * static_cast<float>(8 << S::shift);
      m[row] = -INFINITY;
      l[row] = 0.0f;
      offset[row] = 0;
    }
    largestScale = -1.0f;
    int position = 0;
    for (int block = 0; block < p.blockCount; ++block) {
      int remaining = work.end(p.length[block]) - work.firstKey;
      while (remaining > 0) {
        const uint32_t parity = position / Tile::stages & 1;
        if (remaining < Tile::stages * kUnit || position % Tile::stages != 0) {
          const int stage = position % Tile::stages;
          step<true>(stage, parity, -1, remaining);
          ptx::wgmmaWait<0>();
          ptx::wgmmaPin(partial);
          release(shared.valueEmpty[stage]);
          position += 1;
          remaining -= kUnit;
        } else {
          const int rounds = remaining / (Tile::stages * kUnit);
          walkRing(rounds, parity);
          position += rounds * Tile::stages;
          remaining -= rounds * Tile::stages * kUnit;
        }
      }
    }
    promote();
  }

  /** Stores this thread's part of one row of a share: o divided by l, but not scaled by channels. Rows past the last
   * query too. */
  __device__ __forceinline__ void storeShare(int row, int rowInTile, float logSum) {
    const int64_t at = static_cast<int64_t>(work.share) * S::queries + rowInTile;
    const int lane = threadIdx.x % 4;
    const float own = 1.0f / l[row];
    if (lane == 0) p.sharedLse[at] = logSum;
    float2 *out = reinterpret_cast<float2 *>(p.sharedO + at * S::headDim) + lane;
#pragma unroll
    for (int j = 0; j < S::headDim / 8; ++j)
      out[4 * j] = make_float2(o[4 * j + 2 * row] * own, o[4 * j + 2 * row + 1] * own);
  }

  /** Scales, merges with a previous partial result, and stores this thread's part of o and lse. */
  template <typename Output>
  __device__ __forceinline__ void store(int firstQuery) {
    const float *scales = p.vScale + work.head * S::headDim;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = firstQuery + threadIdx.x % 32 / 4 + 8 * row;
      const float logSum = (m[row] - kTop - kBias + log2f(l[row])) * attention::kLn2;
      if (work.share >= 0) storeShare(row, query - work.queryTile * S::queries, logSum);
      else if (query < p.queries)
        attention::storeRow<S::headDim, Output>(p, o, row, query, work.head, logSum, l[row],
                                                [scales](int column) { return scales[column]; });
    }
  }
};

/** o = softmax(scale q kᵀ) v of 64 · warpGroups queries of a head, over all keys or a share of them. */
template <int headDim, typename Output>
__global__ void __launch_bounds__(Shape<headDim>::threads, 1) attentionFp8Kernel(const __grid_constant__ Parameters p) {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  extern __shared__ char raw[];
  __shared__ Shared<S> shared;
  char *queries = raw + (1024 - ptx::sharedAddress(raw) % 1024) % 1024;
  char *keys = queries + S::queryBytes, *values = keys + Tile::stages * S::keyBytes;
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x / 128), 0);
  const Work work(p);
  const int firstQuery = work.queryTile * S::queries;

  if (threadIdx.x == 0) {
    ptx::mbarrierInit(&shared.queryFull, 1);
    for (int stage = 0; stage < Tile::stages; ++stage) {
      ptx::mbarrierInit(&shared.keyFull[stage], 1);
      ptx::mbarrierInit(&shared.valueFull[stage], 1);
      ptx::mbarrierInit(&shared.keyEmpty[stage], S::consumers / 32);
      ptx::mbarrierInit(&shared.valueEmpty[stage], S::consumers / 32);
    }
    ptx::fenceMbarrierInit();
  }
  constexpr int kOnesWords = kUnit * 8 / 4;
  for (int i = threadIdx.x; i < Tile::stages * kOnesWords; i += S::threads)
    // four ones
    reinterpret_cast<uint32_t *>(values + i / kOnesWords * S::valuePitch + S::valueBytes)[i % kOnesWords] = 0x38383838;
  ptx::fenceProxyAsyncShared();
  __syncthreads();

  if (group == Tile::warpGroups) {
    ptx::registersDecrease<24>();
    if (threadIdx.x == S::consumers) {
      ptx::mbarrierExpect(&shared.queryFull, S::queryBytes);
      ptx::tmaLoad(queries, &p.q, &shared.queryFull, work.head * headDim, firstQuery);
      produce<S>(p, shared, keys, values, work, blockIdx.x == 0);
    }
  } else {
    ptx::registersIncrease<Tile::consumerRegisters>();
    uint4 *own = reinterpret_cast<uint4 *>(queries + group * 64 * headDim);
    ptx::mbarrierWait(&shared.queryFull, 0);
    for (int i = threadIdx.x % 128; i < 64 * headDim / 16; i += 128) {
      const uint4 x = own[i];
      own[i] = make_uint4(scaleE4m3(x.x, S::shift), scaleE4m3(x.y, S::shift), scaleE4m3(x.z, S::shift),
                          scaleE4m3(x.w, S::shift));
    }
    ptx::fenceProxyAsyncShared();
    ptx::namedBarrierSync(1 + group, 128);
    Consumer<S> consumer(p, work, shared, ptx::sharedAddress(queries) + group * 64 * headDim, ptx::sharedAddress(keys),
                         ptx::sharedAddress(values));
    const int first = firstQuery + threadIdx.x / 32 * 16;
    consumer.walk(first);
    consumer.template store<Output>(first);
  }
}

/** Merges the shares of a row as partial results are (see ditrun_attention), and with a previous one. headDim / 4
 * neighbouring threads have a row. */
template <int headDim, typename Output>
__global__ void __launch_bounds__(256) joinSharesKernel(const __grid_constant__ Parameters p, int tiles) {
  using S = Shape<headDim>;
  constexpr int threadsPerRow = headDim / 4;
  constexpr uint32_t lowestRow = threadsPerRow == 32 ? ~0u : (1u << threadsPerRow % 32) - 1;
  const uint32_t rowMask = lowestRow << threadIdx.x % 32 / threadsPerRow * threadsPerRow;
  const int row = blockIdx.x * (256 / threadsPerRow) + threadIdx.x / threadsPerRow, lane = threadIdx.x % threadsPerRow;
  const int rowInTile = row % S::queries, first = row / S::queries, tile = p.wholeBlocks + first;
  const int head = tile / p.queryTiles, query = (tile - head * p.queryTiles) * S::queries + rowInTile;
  const bool inside = first < tiles && query < p.queries;
  float4 sum = make_float4(0, 0, 0, 0);
  if (inside) {
    const int64_t at = static_cast<int64_t>(first) * p.shares * S::queries + rowInTile;
    const int64_t index = static_cast<int64_t>(head) * p.queries + query,
                  element = (static_cast<int64_t>(query) * p.heads + head) * headDim + 4 * lane;
    const float before = p.previousO ? p.previousLse[index] : -INFINITY;
    float largest = before;
    for (int share = 0; share < p.shares; ++share) largest = fmaxf(largest, p.sharedLse[at + share * S::queries]);
    float total = 0;
    const float4 vScale = *reinterpret_cast<const float4 *>(p.vScale + head * headDim + 4 * lane);
    for (int share = 0; share < p.shares; ++share) {
      const float weight = expf(p.sharedLse[at + share * S::queries] - largest);
      const float4 o = *reinterpret_cast<const float4 *>(p.sharedO + (at + share * S::queries) * headDim + 4 * lane);
      total += weight;
      sum.x = fmaf(weight, o.x, sum.x), sum.y = fmaf(weight, o.y, sum.y), sum.z = fmaf(weight, o.z, sum.z),
      sum.w = fmaf(weight, o.w, sum.w);
    }
    sum.x *= vScale.x, sum.y *= vScale.y, sum.z *= vScale.z, sum.w *= vScale.w;
    if (p.previousO) {
      const float weight = expf(before - largest);
      const float4 o = *reinterpret_cast<const float4 *>(p.previousO + element);
      total += weight;
      sum.x = fmaf(weight, o.x, sum.x), sum.y = fmaf(weight, o.y, sum.y), sum.z = fmaf(weight, o.z, sum.z),
      sum.w = fmaf(weight, o.w, sum.w);
    }
    const float own = 1.0f / total;
    sum.x *= own, sum.y *= own, sum.z *= own, sum.w *= own;
    __syncwarp(rowMask);  // previousLse has been read, which lse may be
    if (p.lse && lane == 0) p.lse[index] = largest + logf(total);
  }
  [[maybe_unused]] float scale = 1;
  if constexpr (sizeof(Output) == 1) {
    float amax = fmaxf(fmaxf(fabsf(sum.x), fabsf(sum.y)), fmaxf(fabsf(sum.z), fabsf(sum.w)));
#pragma unroll
    for (int distance = threadsPerRow / 2; distance > 0; distance /= 2)
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffff, amax, distance));
    scale = scaleOfAmax(amax);
  }
  if (!inside) return;
  Output *out = static_cast<Output *>(p.o) + query * p.oStride + head * headDim + 4 * lane;
  if constexpr (sizeof(Output) == 1) {
    const float reciprocal = reciprocalOfNormal(scale);
    const float values[4] = {quotient(sum.x, scale, reciprocal), quotient(sum.y, scale, reciprocal),
                             quotient(sum.z, scale, reciprocal), quotient(sum.w, scale, reciprocal)};
    *reinterpret_cast<uint32_t *>(out) = packE4m3(values);
    if (lane == 0) p.oScale[static_cast<int64_t>(query) * p.heads + head] = scale;
  } else if constexpr (sizeof(Output) == 4) {
    *reinterpret_cast<float4 *>(out) = sum;
  } else {
    reinterpret_cast<__nv_bfloat162 *>(out)[0] = __floats2bfloat162_rn(sum.x, sum.y);
    reinterpret_cast<__nv_bfloat162 *>(out)[1] = __floats2bfloat162_rn(sum.z, sum.w);
  }
}

}  // namespace attentionFp8
