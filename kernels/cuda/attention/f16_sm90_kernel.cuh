// Attention forward for Hopper with queries, keys and values in f16: FlashAttention-2's algorithm 1 (arXiv 2307.08691).
//
// The skeleton is that of attention/sm90_kernel.cuh. What f16 allows:
// - Scores leave the matrix unit in half precision, two keys a register, and exponentials are taken of such pairs:
// fewer instructions, and
//   fewer registers for the matrix unit to write. For that the reference m of softmax is 0, and the queries are first
//   multiplied by c = scale · log2(e) and rounded to f16 again (in a copy): a score is then the logarithm of its
//   probability (log2).
// - Keys whose exponential is a polynomial have sums of their own (o and l), for it is larger by a constant factor.
// Rounding a score s in half precision costs 2^-12 |s| and what cancels on the way to it, which is no more than
// rounding queries and keys to f16 leaves uncertain.
//
// That serves rows whose scores are small: all of the first tile within kFixed (log2), for all rows of a warp group.
// Those of a polynomial are watched (|s| <= kLimit; NaN and infinities are not), those of the special-function unit
// overflow visibly. Where a warp group finds such scores at the end, or at the first tile, the walk is taken with
// scores in float32 of the queries as they are, a running maximum and exponentials in float32: the first time for the
// warp group, the second time for the block. All warps of a group take the same way.
//
// What was too large for f16 when the operands were rounded to it is infinite, and shows: an infinite query makes the
// first tile's scores infinite, which are made NaN, and an infinite value an infinite sum. Only an infinite key may
// hide, as a score of -infinity in rows of one sign; so each block looks for such keys among its share of all keys, and
// walks twice if it finds one, with infinite scores made NaN.
#pragma once

#include "attention/f16_sm90_softmax.cuh"
#include "attention/sm90_ring.cuh"
#include "ditrun.h"
#include "ptx/wgmma.cuh"
#include "tiles/tiles.h"

namespace attentionF16 {

using attention::Place, attention::Shared, ptx::exp2Approx, ptx::half2Max;

/** The half-precision walk is taken where no score of the first tile is farther from 0 than this (log2). */
constexpr float kFixed = 9.0f;
/** The running maximum's probability is at most 2^kTop: less than that below it, f16 keeps all of its bits. */
constexpr float kTop = 8.0f;
/** A score that is masked, finite so that its products with 0 are 0. */
constexpr float kMasked = -1e30f;

struct Parameters {
  CUtensorMap q;
  CUtensorMap k[DITRUN_MAX_KV_BLOCKS], v[DITRUN_MAX_KV_BLOCKS];
  const uint4 *keys[DITRUN_MAX_KV_BLOCKS];  // eight halves each
  int64_t keyStride[DITRUN_MAX_KV_BLOCKS];  // of such eights
  const uint32_t *flags[DITRUN_MAX_KV_BLOCKS];
  int32_t length[DITRUN_MAX_KV_BLOCKS];
  void *o;
  float *lse;
  const float *previousO, *previousLse;
  unsigned long long *waitNanoseconds;
  int64_t oStride;
  int32_t queries, heads, blockCount, tiles;
  float scaleLog2;  // scale · log2(e)
  Constants constants;
};

template <int headDim>
struct Shape : attention::RingShape<AttentionF16Tile<headDim>, headDim> {
  static constexpr uint32_t twoOnes = 0x3c003c00;  // f16
  // queries as they are and times c
  static constexpr int sharedBytes = 1024 + 2 * Shape::queryBytes + Shape::ringBytes;
};

/** Whether a chunk of 16 keys goes to the special-function unit. */
__device__ constexpr bool takesMufu(int chunk, int eighths) {
  constexpr int rank[8] = {0, 4, 2, 6, 1, 5, 3, 7};
  return rank[chunk % 8] < eighths;
}

/** Whether one of this block's share of the head's keys is not finite. threads threads, of which this is the thread-th.
 */
template <class S>
__device__ __forceinline__ bool findInfiniteKey(const Parameters &p, int thread, int threads) {
  constexpr int perRow = S::headDim / 8;
  bool found = false;
  for (int block = 0; block < p.blockCount; ++block) {
    if (p.flags[block] != nullptr) {
      if (thread % 32 == 0)
        while (ptx::loadAcquireSystem(p.flags[block]) != 1) __nanosleep(256);
      __syncwarp();
    }
    for (int64_t i = blockIdx.x * threads + thread; i < int64_t(p.length[block]) * perRow;
         i += int64_t(gridDim.x) * threads) {
      const uint4 eight = p.keys[block][i / perRow * p.keyStride[block] + blockIdx.y * perRow + i % perRow];
      for (const uint32_t pair : {eight.x, eight.y, eight.z, eight.w})
        found = found || (pair & 0x7c00) == 0x7c00 || (pair & 0x7c000000) == 0x7c000000;
    }
  }
  return found;
}

/** One warp group's 64 queries: scores, softmax and output in registers. */
template <int headDim>
struct Consumer {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  static constexpr int kPairs = Tile::keys / 4, kChunks = Tile::keys / 16;
  static constexpr int kExact = Tile::exactKeys, kPlain = Tile::plainKeys;  // of a stage that walkOne takes at a time
  static constexpr int kOutputs = S::outputColumns / 2;
  static constexpr bool kPolynomial = Tile::mufuEighths < 8;
  using Scores = ptx::WgmmaHalf<Tile::keys>;
  using OutputProduct = ptx::WgmmaF16<S::outputColumns>;

  const Parameters &p;
  Shared<S> &shared;
  uint64_t queries, scaled, keys, values;  // descriptors
  float o[kOutputs];
  float polynomial[kPolynomial ? kOutputs : 4];  // o of the keys that take the polynomial
  float m[2], l[2];                              // per row
  int position;                                  // stages walked since the start
  bool running;                                  // the maximum runs along; the first tile may end that
  bool exact;                                    // it does for all tiles
  bool second;                                   // so it is from the start, since the first walk went wrong
  bool repeat;
  uint32_t largest;  // of the polynomials' |s|, as a pair

  __device__ __forceinline__ Consumer(const Parameters &parameters, Shared<S> &s, uint32_t queryAddress,
                                      uint32_t scaledAddress, uint32_t keyAddress, uint32_t valueAddress)
      : p(parameters), shared(s), position(0), exact(false), second(false), repeat(false) {
    constexpr int group = 8 * S::rowBytes;
    queries = ptx::descriptor(queryAddress, 0, group, S::swizzle);
    scaled = ptx::descriptor(scaledAddress, 0, group, S::swizzle);
    keys = ptx::descriptor(keyAddress, 0, group, S::swizzle);
    values = ptx::descriptor(valueAddress, S::slabBytes, group, S::swizzle);
  }

  /** Writes this warp group's queries, times c, to their copy. */
  __device__ __forceinline__ void scaleQueries(const char *from, char *to) {
    for (int slab = 0; slab < S::slabs; ++slab) {
      const int first = slab * S::queries * S::rowBytes / 16;
      for (int i = first + threadIdx.x % 128; i < first + 64 * S::rowBytes / 16; i += 128) {
        uint4 eight = reinterpret_cast<const uint4 *>(from)[i];
        for (uint32_t *pair : {&eight.x, &eight.y, &eight.z, &eight.w}) {
          const float2 q = unpackHalf(*pair);
          *pair = packHalf(q.x * p.scaleLog2, q.y * p.scaleLog2);
        }
        reinterpret_cast<uint4 *>(to)[i] = eight;
      }
    }
    ptx::fenceProxyAsyncShared();
    ptx::namedBarrierSync(2 + threadIdx.x / 128, 128);
  }

  __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) ptx::mbarrierArrive(&empty);
  }

  /** Whether `mine` is true in the whole warp group: its warps must take the same way, since they multiply together. */
  __device__ __forceinline__ bool allOfGroup(bool mine) {
    return __all_sync(0xffffffff, ptx::namedBarrierAll(2 + threadIdx.x / 128, 128, mine));
  }

  __device__ __forceinline__ void pinOutputs() {
    ptx::wgmmaPin(o);
    if constexpr (kPolynomial) ptx::wgmmaPin(polynomial);
  }

  /** Queues scores = Q Kᵀ of `Product::keys` keys from `firstKey` of a stage on. */
  template <class Product, class Sums>
  __device__ __forceinline__ void queueKeys(Sums &scores, uint64_t from, int stage, int firstKey) {
    ptx::wgmmaPin(scores);
    ptx::wgmmaFence();
#pragma unroll
    for (int step = 0; step < headDim / 16; ++step) {
      const int slab = step * 16 / S::columns, within = step * 16 % S::columns * 2;
      Product::multiplyShared(
          scores, from + (slab * S::queries * S::rowBytes + within) / 16,
          keys + (stage * S::tileBytes + slab * S::slabBytes + firstKey * S::rowBytes + within) / 16, step != 0);
    }
    ptx::wgmmaCommit();
  }

  __device__ __forceinline__ uint64_t valuesOf(int stage, int key) {
    return values + (stage * S::valueBytes + key * S::rowBytes) / 16;
  }

  /** Queues the products of P = 2^s with V of a stage, a batch of keys as soon as its P is known. */
  __device__ __forceinline__ void multiplyValues(const uint32_t (&scores)[kPairs], int stage) {
    constexpr int kBatch = Tile::chunksPerBatch;
    uint32_t probabilities[kChunks][4];
#pragma unroll
    for (int batch = 0; batch < kChunks; batch += kBatch) {
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch && chunk < kChunks; ++chunk) {
        const bool mufu = takesMufu(chunk, Tile::mufuEighths);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t s = scores[4 * chunk + i];
          probabilities[chunk][i] = mufu ? ptx::half2Exp2Approx(s) : exp2Polynomial(s, p.constants);
          // Two of a time: one instruction has three inputs.
          if (!mufu && i % 2 == 0)
            largest = half2Max(half2Max(ptx::half2Abs(s), ptx::half2Abs(scores[4 * chunk + i + 1])), largest);
        }
      }
      ptx::wgmmaFence();
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch && chunk < kChunks; ++chunk) {
        if constexpr (kPolynomial) {
          if (!takesMufu(chunk, Tile::mufuEighths)) {
            OutputProduct::multiplyRegisters(polynomial, probabilities[chunk], valuesOf(stage, 16 * chunk));
            continue;
          }
        }
        OutputProduct::multiplyRegisters(o, probabilities[chunk], valuesOf(stage, 16 * chunk));
      }
    }
    ptx::wgmmaCommit();
  }

  /** All stages of the ring `rounds` times, whole, with scores in half precision. Unrolled, so that descriptors and
   * barriers cost no arithmetic. position is a multiple of the number of stages. */
  __device__ __forceinline__ void walkRing(int rounds) {
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      const uint32_t parity = position / Tile::stages & 1;
#pragma unroll
      for (int stage = 0; stage < Tile::stages; ++stage) {
        uint32_t scores[kPairs];
        ptx::mbarrierWait(&shared.keyFull[stage], parity);
        queueKeys<Scores>(scores, scaled, stage, 0);
        ptx::wgmmaWait<0>();
        ptx::wgmmaPin(scores);
        pinOutputs();
        release(shared.keyEmpty[stage]);
        if (stage > 0) release(shared.valueEmpty[stage - 1]);
        else if (round > 0) release(shared.valueEmpty[Tile::stages - 1]);
        ptx::mbarrierWait(&shared.valueFull[stage], parity);
        multiplyValues(scores, stage);
      }
      position += Tile::stages;
    }
    ptx::wgmmaWait<0>();
    pinOutputs();
    release(shared.valueEmpty[Tile::stages - 1]);
  }

  /** Raises m to the maximum of these scores, less kTop, rounded up; few tiles do. */
  template <int count>
  __device__ __forceinline__ void raiseMaximum(const float (&scores)[count]) {
    float raised[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float maximum = scores[2 * row];
#pragma unroll
      for (int j = 0; j < count / 4; ++j)
        maximum = fmaxf(maximum, fmaxf(scores[4 * j + 2 * row], scores[4 * j + 2 * row + 1]));
      raised[row] = fmaxf(m[row], ceilf(attention::quadMax(maximum) * p.scaleLog2) - kTop);
    }
    if (__all_sync(0xffffffff, m[0] == raised[0] && m[1] == raised[1])) return;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float factor = m[row] == raised[row] ? 1.0f : exp2Approx(m[row] - raised[row]);
#pragma unroll
      for (int j = 0; j < kOutputs / 4; ++j) {
        o[4 * j + 2 * row] *= factor;
        o[4 * j + 2 * row + 1] *= factor;
      }
      m[row] = raised[row];
    }
  }

  /** After the first scores, whose largest magnitude is given: m stays 0 when that suits all rows of the warp group. */
  __device__ __forceinline__ void decide(float magnitude) {
    exact = !allOfGroup(magnitude * p.scaleLog2 <= kFixed);
    running = exact;
    if (!exact) m[0] = m[1] = 0.0f;
  }

  /** One stage with scores in float32 of the queries as they are. plain: all of its keys are there, and it is not the
   * first; nor is it the second walk, where infinite scores become NaN. */
  template <bool plain>
  __device__ __forceinline__ void walkOne(int valid) {
    const Place<Tile::stages> place(position++);
    const int stage = place.stage;
    constexpr int kKeys = plain ? kPlain : kExact;
    ptx::mbarrierWait(&shared.keyFull[stage], place.parity);
    ptx::mbarrierWait(&shared.valueFull[stage], place.parity);
#pragma unroll 1
    for (int first = 0; first < (plain ? Tile::keys : min(valid, Tile::keys)); first += kKeys) {
      float scores[kKeys / 2];
      queueKeys<ptx::WgmmaF16<kKeys>>(scores, queries, stage, first);
      ptx::wgmmaWait<0>();
      ptx::wgmmaPin(scores);
      if constexpr (!plain) {
        const int firstOfLane = first + 2 * (threadIdx.x % 4);
        float magnitude = 0.0f;
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) {
          scores[i] = fmaf(scores[i], 0.0f, scores[i]);  // NaN for what is infinite
          magnitude = ptx::maxOrNan(magnitude, fabsf(scores[i]));
          if (8 * (i / 4) + firstOfLane + i % 2 >= valid) scores[i] = kMasked;
        }
        if (running && !exact) decide(magnitude);
      }
      if (plain || running) raiseMaximum(scores);
      uint32_t probabilities[kKeys / 16][4];
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) {
        const float reference = -m[i % 2];
        probabilities[i / 4][i % 4] = packHalf(exp2Approx(fmaf(scores[2 * i], p.scaleLog2, reference)),
                                               exp2Approx(fmaf(scores[2 * i + 1], p.scaleLog2, reference)));
      }
      ptx::wgmmaPin(o);
      ptx::wgmmaFence();
#pragma unroll
      for (int chunk = 0; chunk < kKeys / 16; ++chunk)
        OutputProduct::multiplyRegisters(o, probabilities[chunk], valuesOf(stage, first + 16 * chunk));
      ptx::wgmmaCommit();
      ptx::wgmmaWait<0>();
      ptx::wgmmaPin(o);
    }
    release(shared.keyEmpty[stage]);
    release(shared.valueEmpty[stage]);
  }

  __device__ __forceinline__ void clearPolynomial() {
    if constexpr (kPolynomial) {
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) polynomial[i] = 0.0f;
    }
  }

  /** Walks all keys. On return o, l and m are complete, l summed over the row, and repeat says whether they are wrong.
   */
  __device__ __forceinline__ void walk() {
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) o[i] = 0.0f;
    clearPolynomial();
    m[0] = m[1] = -INFINITY;
    running = true;
    largest = 0;
    int block = 0, remaining = p.length[0];
    const auto advance = [&](int keys) {
      remaining -= keys;
      if (remaining <= 0 && ++block < p.blockCount) remaining = p.length[block];
    };
    while (block < p.blockCount && (second || !exact)) {
      const int before = position;
      if (running || remaining < Tile::stages * Tile::keys || position % Tile::stages != 0) walkOne<false>(remaining);
      else walkRing(remaining / (Tile::stages * Tile::keys));
      advance((position - before) * Tile::keys);
    }
    if (exact && !second) {
      while (block < p.blockCount) {
        if (remaining >= Tile::keys) walkOne<true>(Tile::keys);
        else walkOne<false>(remaining);
        advance(Tile::keys);
      }
      clearPolynomial();  // again, so that its registers are free meanwhile
    }
    if constexpr (kPolynomial) {
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) o[i] = fmaf(polynomial[i], kPolynomialScale, o[i]);
    }
    l[0] = o[headDim / 2];
    l[1] = o[headDim / 2 + 2];
    const float2 farthest = unpackHalf(largest);
    if (!exact)
      repeat = !allOfGroup(farthest.x <= kLimit && farthest.y <= kLimit && l[0] < INFINITY && l[1] < INFINITY);
  }

  /** Scales, merges with a previous partial result, and stores this thread's part of o and lse. */
  template <typename Output>
  __device__ __forceinline__ void store(int firstQuery, int head) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = firstQuery + threadIdx.x % 32 / 4 + 8 * row;
      if (query < p.queries)
        attention::storeRow<headDim, Output>(p, o, row, query, head, (m[row] + log2f(l[row])) * attention::kLn2,
                                             l[row]);
    }
  }
};

/** o = softmax(scale q kᵀ) v of 64 · warpGroups queries of head blockIdx.y. */
template <int headDim, typename Output>
__global__ void __launch_bounds__(Shape<headDim>::threads, 1) attentionF16Kernel(const __grid_constant__ Parameters p) {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  extern __shared__ char raw[];
  __shared__ Shared<S> shared;
  char *queries = raw + (1024 - ptx::sharedAddress(raw) % 1024) % 1024;
  char *scaled = queries + S::queryBytes, *keys = scaled + S::queryBytes, *values = keys + Tile::stages * S::tileBytes;
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x / 128), 0);
  const int firstQuery = blockIdx.x * S::queries;

  attention::startRing<S>(shared, values);

  if (group == Tile::warpGroups) {
    ptx::registersDecrease<24>();
    const bool elected = threadIdx.x == S::consumers;
    if (elected) {
      attention::loadQueries<S>(p, shared, queries, firstQuery);
      attention::produce<S>(p, shared, keys, values, blockIdx.y, 0, blockIdx.x == 0 && blockIdx.y == 0);
    } else if (threadIdx.x >= S::consumers + 32) {
      if (findInfiniteKey<S>(p, threadIdx.x - S::consumers - 32, 96)) shared.repeat = 1;
    }
    __syncwarp();
    ptx::namedBarrierSync(1, S::threads);
    if (shared.repeat != 0 && elected) attention::produce<S>(p, shared, keys, values, blockIdx.y, p.tiles, false);
  } else {
    ptx::registersIncrease<Tile::consumerRegisters>();
    char *own = queries + group * 64 * S::rowBytes, *ownScaled = scaled + group * 64 * S::rowBytes;
    Consumer<headDim> consumer(p, shared, ptx::sharedAddress(own), ptx::sharedAddress(ownScaled),
                               ptx::sharedAddress(keys), ptx::sharedAddress(values));
    ptx::mbarrierWait(&shared.queryFull, 0);
    consumer.scaleQueries(own, ownScaled);
    for (int pass = 0;; ++pass) {
      consumer.walk();
      if (pass == 1) break;
      if (consumer.repeat) shared.repeat = 1;
      ptx::namedBarrierSync(1, S::threads);
      if (shared.repeat == 0) break;
      consumer.exact = consumer.second = true;
    }
    consumer.template store<Output>(firstQuery + threadIdx.x / 32 * 16, blockIdx.y);
  }
}

}  // namespace attentionF16
