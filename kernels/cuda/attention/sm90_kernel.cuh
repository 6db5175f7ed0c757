// Attention forward for Hopper: FlashAttention-2's algorithm 1 (arXiv 2307.08691) on TMA, mbarriers and wgmma.
//
// A block of threads owns 64 queries of one head per warp group; one more warp (the producer) walks the keys and values
// of all KV blocks through a ring of shared-memory stages. Scores are float32 in registers, probabilities go to the
// second matrix product as bf16 registers, and a column of ones beside V makes that product sum them as well (the row
// sum l).
//
// The maximum is lazy. Softmax does not depend on the reference m that is subtracted, and bf16 probabilities keep their
// relative precision at any magnitude, so m is the rounded maximum of the first tile and stays; where that is near 0 in
// all rows of a warp group, m is a constant, which makes the polynomial exponential cheaper. A row whose scores later
// grow shows in l: past one limit the warp group takes the running maximum of every later tile; past another the tiles
// themselves lost precision, and the block walks all keys once more with a running maximum from the start. All warps of
// a group take the same way: their products are one instruction, and warps that went different ways have given wrong
// rows.
#pragma once

#include <cuda_bf16.h>

#include "attention/sm90_ring.cuh"
#include "attention/sm90_softmax.cuh"
#include "ditrun.h"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tiles/tiles.h"

namespace attention {

/** Rounds through the ring before growth is looked for again, where polynomials take part. */
constexpr int kRounds = 4;
/** The reference is fixed at -1/2 when no maximum of the first tile is farther from 0 than this (log2). */
constexpr float kFixed = 8.0f;

struct Parameters {
  CUtensorMap q, output;  // output: only for the kernel for few keys
  CUtensorMap k[DITRUN_MAX_KV_BLOCKS], v[DITRUN_MAX_KV_BLOCKS];
  const uint32_t *flags[DITRUN_MAX_KV_BLOCKS];
  int32_t length[DITRUN_MAX_KV_BLOCKS];
  void *o;
  float *lse;
  const float *previousO, *previousLse;
  unsigned long long *waitNanoseconds;
  float *oScale;  // e4m3 out only
  int64_t oStride;
  int32_t queries, heads, blockCount, tiles;
  float scaleLog2;  // scale · log2(e), over queryScale
  // a power of two as two bf16, by which the kernel multiplies Q; the kernel for few keys does not
  uint32_t queryScale;
  PolynomialConstants polynomial;
  FixedConstants fixed;
};

template <int headDim>
struct Shape : RingShape<AttentionTile<headDim>, headDim> {
  static constexpr uint32_t twoOnes = 0x3f803f80;  // bf16
  static constexpr int sharedBytes = 1024 + Shape::queryBytes + Shape::ringBytes;
};

/** Which of eight consecutive pairs of scores go to the special-function unit; alternates between rows and columns. */
__device__ constexpr bool takesMufu(int pair, int eighths) {
  constexpr int rank[8] = {0, 6, 5, 2, 7, 1, 3, 4};
  return rank[pair % 8] < eighths;
}

/** How exponentials are taken: all by the special-function unit; part of them by a polynomial; or that and m = -1/2. */
enum class Exponentials { exact, mixed, fixed };

/** How much the keys between two looks may add to l before the maximum must run along, and before they lost precision:
 * the polynomials' arguments are rounded as halves, so they want to be small; the exact ones must only not overflow. */
__device__ constexpr float growthCareful(Exponentials how) {
  return how == Exponentials::exact ? 0x1p60f : how == Exponentials::mixed ? 0x1p13f : 0x1p17f;
}
__device__ constexpr float growthLost(Exponentials how) {
  return how == Exponentials::exact ? 0x1p80f : how == Exponentials::mixed ? 0x1p16f : 0x1p18f;
}

/** One warp group's 64 queries: scores, softmax and output in registers. */
template <int headDim>
struct Consumer {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  static constexpr int kScores = Tile::keys / 2, kChunks = Tile::keys / 16;
  static constexpr int kOutputs = S::outputColumns / 2;
  static constexpr bool kPolynomial = Tile::mufuEighths < 8;
  using ScoreProduct = ptx::Wgmma<Tile::keys>;
  using OutputProduct = ptx::Wgmma<S::outputColumns>;

  const Parameters &p;
  Shared<S> &shared;
  uint64_t queries, keys, values;  // descriptors
  float o[kOutputs];
  float m[2], l[2];                 // per row; l as of the last look
  int position;                     // stages walked since the start
  bool running, repeat, everyTile;  // running: the next tile raises m; everyTile: each does
  bool fixed;                       // m is -1/2

  __device__ __forceinline__ Consumer(const Parameters &parameters, Shared<S> &s, uint32_t queryAddress,
                                      uint32_t keyAddress, uint32_t valueAddress)
      : p(parameters), shared(s), position(0), repeat(false), everyTile(false), fixed(false) {
    constexpr int group = 8 * S::rowBytes;
    queries = ptx::descriptor(queryAddress, 0, group, S::swizzle);
    keys = ptx::descriptor(keyAddress, 0, group, S::swizzle);
    values = ptx::descriptor(valueAddress, S::slabBytes, group, S::swizzle);
  }

  /** Multiplies this warp group's queries in shared memory by queryScale. */
  __device__ __forceinline__ void scaleQueries(char *area) {
    for (int i = threadIdx.x % 128; i < 64 * headDim * 2 / 16; i += 128) {
      static_assert(S::slabs == 1 || !kPolynomial, "one slab of queries");
      uint4 &eight = reinterpret_cast<uint4 *>(area)[i];
      eight = {bf162Multiply(eight.x, p.queryScale), bf162Multiply(eight.y, p.queryScale),
               bf162Multiply(eight.z, p.queryScale), bf162Multiply(eight.w, p.queryScale)};
    }
    ptx::fenceProxyAsyncShared();
    ptx::namedBarrierSync(2 + threadIdx.x / 128, 128);
  }

  /** Queues scores = Q Kᵀ of a stage, waits for them, and frees the stage's K. */
  __device__ __forceinline__ void multiplyKeys(float (&scores)[kScores], int stage, uint32_t parity) {
    queueKeys(scores, stage, parity);
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(scores);
    release(shared.keyEmpty[stage]);
  }

  __device__ __forceinline__ void queueKeys(float (&scores)[kScores], int stage, uint32_t parity) {
    ptx::mbarrierWait(&shared.keyFull[stage], parity);
    ptx::wgmmaPin(scores);
    ptx::wgmmaFence();
#pragma unroll
    for (int step = 0; step < headDim / 16; ++step) {
      const int slab = step * 16 / S::columns, within = step * 16 % S::columns * 2;
      ScoreProduct::multiplyShared(scores, queries + (slab * S::queries * S::rowBytes + within) / 16,
                                   keys + (stage * S::tileBytes + slab * S::slabBytes + within) / 16, step != 0);
    }
    ptx::wgmmaCommit();
  }

  /** Queues o += P V of a stage, P = 2^(c scores - m), a batch of keys as soon as its P is known. */
  template <Exponentials how>
  __device__ __forceinline__ void multiplyValues(const float (&scores)[kScores], int stage, uint32_t parity) {
    constexpr int kBatch = Tile::chunksPerBatch;
    uint32_t probabilities[kChunks][4];
    ptx::mbarrierWait(&shared.valueFull[stage], parity);
#pragma unroll
    for (int batch = 0; batch < kChunks; batch += kBatch) {
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch && chunk < kChunks; ++chunk)
        exponentiate<how>(scores, chunk, probabilities[chunk]);
      ptx::wgmmaFence();
#pragma unroll
      for (int chunk = batch; chunk < batch + kBatch && chunk < kChunks; ++chunk)
        OutputProduct::multiplyRegisters(o, probabilities[chunk],
                                         values + (stage * S::valueBytes + chunk * 16 * S::rowBytes) / 16);
    }
    ptx::wgmmaCommit();
  }

  __device__ __forceinline__ void release(uint64_t &empty) {
    if (threadIdx.x % 32 == 0) ptx::mbarrierArrive(&empty);
  }

  __device__ __forceinline__ void rescale(int row, float factor) {
#pragma unroll
    for (int j = 0; j < kOutputs / 4; ++j) {
      o[4 * j + 2 * row] *= factor;
      o[4 * j + 2 * row + 1] *= factor;
    }
    l[row] *= factor;
  }

  /** Raises m to this tile's maximum, rounded up to an integer so that m + 1/2 is exact. Before any output none is
   * scaled. */
  template <bool scaleOutput = true>
  __device__ __forceinline__ void raiseMaximum(const float (&scores)[kScores]) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float maximum = scores[2 * row];
#pragma unroll
      for (int j = 0; j < kScores / 4; ++j)
        maximum = fmaxf(maximum, fmaxf(scores[4 * j + 2 * row], scores[4 * j + 2 * row + 1]));
      const float raised = fmaxf(m[row], ceilf(quadMax(maximum) * p.scaleLog2));
      if constexpr (scaleOutput) rescale(row, m[row] == raised ? 1.0f : exp2Approx(m[row] - raised));
      m[row] = raised;
    }
  }

  /** Whether `mine` is true in the whole warp group: its warps must take the same way, since they multiply together. */
  __device__ __forceinline__ bool allOfGroup(bool mine) {
    return __all_sync(0xffffffff, ptx::namedBarrierAll(2 + threadIdx.x / 128, 128, mine));
  }

  /** After the first tile's maximum: fixes m when it suits all rows of the warp group. */
  __device__ __forceinline__ void fixReference() {
    fixed = allOfGroup(fabsf(m[0]) <= kFixed && fabsf(m[1]) <= kFixed);
    if (fixed) m[0] = m[1] = -0.5f;
  }

  /** Takes l from the column of ones; o must be complete. */
  __device__ __forceinline__ void takeSums() {
    l[0] = o[headDim / 2];
    l[1] = o[headDim / 2 + 2];
  }

  /** Judges what the last keys added to the row sums; o must be complete. NaN counts as growth. */
  __device__ __forceinline__ void checkGrowth(float careful, float lost) {
    const float before[2] = {l[0], l[1]};
    takeSums();
    const float added = fmaxf(l[0] - before[0], l[1] - before[1]);
    if (allOfGroup(added <= careful)) return;
    running = everyTile = true;
    repeat = repeat || !allOfGroup(added <= lost);
  }

  __device__ __forceinline__ void mask(float (&scores)[kScores], int valid) {
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      if (8 * (i / 4) + first + i % 2 >= valid) scores[i] = -INFINITY;
  }

  /** 2^(c scores - m) of 16 keys, as the second product's operand. */
  template <Exponentials how>
  __device__ __forceinline__ void exponentiate(const float (&scores)[kScores], int chunk,
                                               uint32_t (&probabilities)[4]) {
    const float scale = p.scaleLog2, scale1024 = 1024.0f * scale;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = 4 * chunk + i, row = i % 2;
      const float low = scores[2 * pair], high = scores[2 * pair + 1];
      if (how == Exponentials::exact || takesMufu(pair, Tile::mufuEighths)) {
        const float reference = how == Exponentials::fixed ? -0.5f : m[row];
        const float p0 = exp2Approx(fmaf(low, scale, -reference)), p1 = exp2Approx(fmaf(high, scale, -reference));
        probabilities[i] = packBf16(p0, p1);
      } else if (how == Exponentials::fixed) {
        probabilities[i] = exp2Fixed(low, high, p.fixed);
      } else {
        const float offset = -1024.0f * (m[row] + 0.5f);
        probabilities[i] = exp2Polynomial<Tile::polynomialDegree>(fmaf(low, scale1024, offset),
                                                                  fmaf(high, scale1024, offset), p.polynomial);
      }
    }
  }

  /** One stage of any length, which may raise m. */
  __device__ __forceinline__ void walkOne(int valid) {
    const Place<Tile::stages> place(position++);
    float scores[kScores];
    multiplyKeys(scores, place.stage, place.parity);
    if (valid < Tile::keys) mask(scores, valid);
    if (running) raiseMaximum(scores);
    if (kPolynomial && running && !everyTile) fixReference();  // the very first tile
    running = everyTile;
    multiplyValues<Exponentials::exact>(scores, place.stage, place.parity);
    completeValues(place.stage);
    if (everyTile) return;
    const Exponentials how = fixed ? Exponentials::fixed : kPolynomial ? Exponentials::mixed : Exponentials::exact;
    checkGrowth(growthCareful(how), growthLost(how));
  }

  /** All stages of the ring `rounds` times, whole and with m fixed; position is a multiple of their number. Unrolled,
   * so that descriptors and barriers cost no arithmetic: what binds is the sum of issue slots and matrix cycles
   * (bench/NOTES.md). With one way of taking exponentials the last product stays in flight from round to round; ptxas
   * serialises two such loops in one kernel (C7515). */
  template <Exponentials how>
  __device__ __forceinline__ void walkRing(int rounds) {
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      const uint32_t parity = position / Tile::stages & 1;
#pragma unroll
      for (int stage = 0; stage < Tile::stages; ++stage) {
        float scores[kScores];
        multiplyKeys(scores, stage, parity);
        if (stage > 0) {
          release(shared.valueEmpty[stage - 1]);
        } else if (!kPolynomial) {
          ptx::wgmmaPin(o);
          if (round > 0) release(shared.valueEmpty[Tile::stages - 1]);
        }
        multiplyValues<how>(scores, stage, parity);
      }
      position += Tile::stages;
      if (kPolynomial) completeValues(Tile::stages - 1);
    }
    if (!kPolynomial) completeValues(Tile::stages - 1);
    checkGrowth(growthCareful(how), growthLost(how));
  }

  /** Waits for the products with V, and frees the last stage. */
  __device__ __forceinline__ void completeValues(int stage) {
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(o);
    release(shared.valueEmpty[stage]);
  }

  /** Walks all keys. On return o, l and m are complete, l summed over the row. */
  __device__ __forceinline__ void walk() {
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) o[i] = 0.0f;
    l[0] = l[1] = 0.0f;
    m[0] = m[1] = -INFINITY;
    running = true;
    fixed = false;
    for (int block = 0; block < p.blockCount; ++block) {
      int remaining = p.length[block];
      while (remaining > 0) {
        const int before = position;
        if (running || remaining < Tile::stages * Tile::keys || position % Tile::stages != 0) {
          walkOne(remaining);
        } else {
          const int rounds = remaining / (Tile::stages * Tile::keys);
          if constexpr (!kPolynomial) walkRing<Exponentials::exact>(rounds);
          else if (fixed) walkRing<Exponentials::fixed>(min(kRounds, rounds));
          else walkRing<Exponentials::mixed>(min(kRounds, rounds));
        }
        remaining -= (position - before) * Tile::keys;
      }
    }
    takeSums();
  }

  /** Scales, merges with a previous partial result, and stores this thread's part of o and lse. */
  template <typename Output>
  __device__ __forceinline__ void store(int firstQuery, int head) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int query = firstQuery + threadIdx.x % 32 / 4 + 8 * row;
      if (query < p.queries) storeRow<headDim, Output>(p, o, row, query, head, (m[row] + log2f(l[row])) * kLn2, l[row]);
    }
  }
};

template <int headDim, typename Output>
__global__ void __launch_bounds__(Shape<headDim>::threads, 1) attentionKernel(const __grid_constant__ Parameters p) {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  extern __shared__ char raw[];
  __shared__ Shared<S> shared;
  char *queries = raw + (1024 - ptx::sharedAddress(raw) % 1024) % 1024;
  char *keys = queries + S::queryBytes, *values = keys + Tile::stages * S::tileBytes;
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x / 128), 0);
  const int firstQuery = blockIdx.x * S::queries;

  startRing<S>(shared, values);

  if (group == Tile::warpGroups) {
    ptx::registersDecrease<24>();
    const bool elected = threadIdx.x == S::consumers;
    if (elected) {
      loadQueries<S>(p, shared, queries, firstQuery);
      produce<S>(p, shared, keys, values, blockIdx.y, 0, blockIdx.x == 0 && blockIdx.y == 0);
    }
    __syncwarp();
    ptx::namedBarrierSync(1, S::threads);
    if (shared.repeat != 0 && elected) produce<S>(p, shared, keys, values, blockIdx.y, p.tiles, false);
  } else {
    ptx::registersIncrease<Tile::consumerRegisters>();
    Consumer<headDim> consumer(p, shared, ptx::sharedAddress(queries) + group * 64 * S::rowBytes,
                               ptx::sharedAddress(keys), ptx::sharedAddress(values));
    ptx::mbarrierWait(&shared.queryFull, 0);
    if constexpr (Consumer<headDim>::kPolynomial) consumer.scaleQueries(queries + group * 64 * S::rowBytes);
    for (int pass = 0;; ++pass) {
      consumer.walk();
      if (pass == 1) break;
      if (consumer.repeat) shared.repeat = 1;
      ptx::namedBarrierSync(1, S::threads);
      if (shared.repeat == 0) break;
      consumer.everyTile = true;
    }
    consumer.template store<Output>(firstQuery + threadIdx.x / 32 * 16, blockIdx.y);
  }
}

}  // namespace attention
