// Attention forward for Hopper over few keys, where what surrounds the walk over the keys costs as much as the walk.
//
// The tiles, the ring and the products are those of attention/sm90_kernel.cuh, but a block of threads stays on its
// multiprocessor and takes one tile of queries after the other: the next queries and their first keys arrive while the
// last products run, their scores are queued before the output is stored, and that leaves by the copy engine from the
// place of its queries. The maximum runs along (no tile is walked twice), and all exponentials take the
// special-function unit. Outputs are bf16, or e4m3 with a scale for each row of a head, with nothing to merge.
#pragma once

#include "attention/sm90_kernel.cuh"
#include "ptx/stmatrix.cuh"

namespace attention {

template <int headDim>
struct ShortShape : Shape<headDim> {
  using S = Shape<headDim>;
  static constexpr int sharedBytes = S::sharedBytes + S::queryBytes;  // two tiles of queries
};

template <int headDim>
struct ShortShared {
  Shared<Shape<headDim>> ring;
  uint64_t queryFull[2], outputFull[2];  // of the two tiles of queries; the output takes their place
};

template <int headDim>
struct ShortConsumer : Consumer<headDim> {
  using S = Shape<headDim>;
  using Tile = typename S::Tile;
  using Base = Consumer<headDim>;
  using Base::l, Base::m, Base::o, Base::p, Base::position, Base::shared;

  using Base::Base;

  /** Queues the scores of the stage that comes next. */
  __device__ __forceinline__ void queueNext(float (&scores)[Base::kScores]) {
    const Place<Tile::stages> place(position);
    this->queueKeys(scores, place.stage, place.parity);
  }

  /** Takes the scores in flight and queues the product with their V. */
  template <bool first>
  __device__ __forceinline__ void step(float (&scores)[Base::kScores], int remaining) {
    const Place<Tile::stages> place(position++);
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(scores);
    this->release(shared.keyEmpty[place.stage]);
    if constexpr (first) {
#pragma unroll
      for (int i = 0; i < Base::kOutputs; ++i) o[i] = 0.0f;
      m[0] = m[1] = -INFINITY;
    } else {
      ptx::wgmmaPin(o);
      this->release(shared.valueEmpty[Place<Tile::stages>(position - 2).stage]);
    }
    if (remaining < Tile::keys) this->mask(scores, remaining);
    this->template raiseMaximum<!first>(scores);
    this->template multiplyValues<Exponentials::exact>(scores, place.stage, place.parity);
  }

  /** Walks all keys with a running maximum. The first scores are in flight at the start, the last product with V at the
   * end. */
  __device__ __forceinline__ void walk(float (&scores)[Base::kScores]) {
    int block = 0, remaining = p.length[0];
    step<true>(scores, remaining);
    for (;;) {
      remaining -= Tile::keys;
      if (remaining <= 0) {
        if (++block == p.blockCount) break;
        remaining = p.length[block];
      }
      queueNext(scores);
      step<false>(scores, remaining);
    }
  }

  /** After the wait for the last product. */
  __device__ __forceinline__ void finish() {
    ptx::wgmmaPin(o);
    this->release(shared.valueEmpty[Place<Tile::stages>(position - 1).stage]);
    this->takeSums();
  }

  /** Writes lse, and the scaled output to this warp group's 64 rows at `area`, swizzled as the copy engine reads it. */
  template <typename Output>
  __device__ __forceinline__ void stageOutput(int firstQuery, int head, uint32_t area) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float own[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      own[row] = 1.0f / l[row];
      const int query = firstQuery + 16 * warp + lane / 4 + 8 * row;
      if (p.lse != nullptr && lane % 4 == 0 && query < p.queries)
        p.lse[static_cast<int64_t>(head) * p.queries + query] = (m[row] + log2f(l[row])) * kLn2;
    }
    if constexpr (sizeof(Output) == 1) {
      static_assert(headDim == 128, "a row is one swizzled row of 128 bytes");
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float amax = 0;
#pragma unroll
        for (int j = 0; j < headDim / 8; ++j)
          amax = fmaxf(amax, fmaxf(fabsf(o[4 * j + 2 * half] * own[half]), fabsf(o[4 * j + 2 * half + 1] * own[half])));
        const float scale = scaleOfAmax(quadMax(amax)), reciprocal = reciprocalOfNormal(scale);
        const int row = 16 * warp + lane / 4 + 8 * half, query = firstQuery + row;
        if (lane % 4 == 0 && query < p.queries) p.oScale[static_cast<int64_t>(query) * p.heads + head] = scale;
#pragma unroll
        for (int j = 0; j < headDim / 8; ++j) {
          const float2 pair = make_float2(quotient(o[4 * j + 2 * half] * own[half], scale, reciprocal),
                                          quotient(o[4 * j + 2 * half + 1] * own[half], scale, reciprocal));
          asm volatile("st.shared.b16 [%0], %1;" ::"r"(area + row * headDim + ((j / 2 ^ row % 8) * 16) + j % 2 * 8 +
                                                       lane % 4 * 2),
                       "h"(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3))
                       : "memory");
        }
      }
      return;
    }
    // Lane 8 i + r names row r of matrix i: rows 0 to 7 and 8 to 15 of eight columns, then of the next eight.
    const int row = 16 * warp + lane % 16;
    constexpr int kGroups = S::columns / 8;  // of eight columns in a slab
    const int pattern = S::rowBytes == 128 ? row % 8 : row / 2 % 4;
#pragma unroll
    for (int j = 0; j < headDim / 8; j += 2) {
      const int group = j % kGroups + lane / 16;
      const uint32_t address =
          area + j / kGroups * (S::queries * S::rowBytes) + row * S::rowBytes + ((group ^ pattern) * 16);
      ptx::storeMatrices(address, packBf16(o[4 * j] * own[0], o[4 * j + 1] * own[0]),
                         packBf16(o[4 * j + 2] * own[1], o[4 * j + 3] * own[1]),
                         packBf16(o[4 * j + 4] * own[0], o[4 * j + 5] * own[0]),
                         packBf16(o[4 * j + 6] * own[1], o[4 * j + 7] * own[1]));
    }
  }
};

/** The tiles of queries that a block takes: every gridDim.x-th of all heads, a head's tiles in a row. */
template <int headDim>
struct QueryTile {
  int head, first, buffer;
  uint32_t parity;
  __device__ __forceinline__ QueryTile(const Parameters &p, int n) : buffer(n % 2), parity(n / 2 % 2) {
    const int perHead = (p.queries + Shape<headDim>::queries - 1) / Shape<headDim>::queries;
    const int tile = blockIdx.x + n * gridDim.x;
    head = tile / perHead;
    first = tile % perHead * Shape<headDim>::queries;
  }
  __device__ __forceinline__ bool exists(const Parameters &p) const { return head < p.heads; }
};

/** Brings the queries of all tiles of the block, and takes the outputs from their places. One thread. */
template <int headDim, typename Output>
__device__ __forceinline__ void carry(const Parameters &p, ShortShared<headDim> &shared, char *queries) {
  using S = ShortShape<headDim>;
  for (int n = 0;; ++n) {
    const QueryTile<headDim> now(p, n);
    char *place = queries + now.buffer * S::queryBytes;
    if (n >= 2) {
      const QueryTile<headDim> done(p, n - 2);
      if (!done.exists(p)) break;
      ptx::mbarrierWait(&shared.outputFull[done.buffer], done.parity);
      for (int group = 0; group < S::Tile::warpGroups && done.first + group * 64 < p.queries; ++group)
        for (int slab = 0; slab < (sizeof(Output) == 1 ? 1 : S::slabs); ++slab)
          ptx::tmaStore(&p.output, place + (slab * S::queries + group * 64) * S::rowBytes,
                        done.head * headDim + slab * S::columns, done.first + group * 64);
      ptx::tmaStoreCommit();
      ptx::tmaStoreWaitRead();
    }
    if (!now.exists(p)) continue;
    ptx::mbarrierExpect(&shared.queryFull[now.buffer], S::queryBytes);
    for (int slab = 0; slab < S::slabs; ++slab)
      ptx::tmaLoad(place + slab * S::queries * S::rowBytes, &p.q, &shared.queryFull[now.buffer],
                   now.head * headDim + slab * S::columns, now.first);
  }
  ptx::tmaStoreWait();
}

template <int headDim, typename Output>
__global__ void __launch_bounds__(Shape<headDim>::threads, 1)
    attentionShortKernel(const __grid_constant__ Parameters p) {
  using S = ShortShape<headDim>;
  using Tile = typename S::Tile;
  extern __shared__ char raw[];
  __shared__ ShortShared<headDim> shared;
  char *queries = raw + (1024 - ptx::sharedAddress(raw) % 1024) % 1024;
  char *keys = queries + 2 * S::queryBytes, *values = keys + Tile::stages * S::tileBytes;
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x / 128), 0);

  if (threadIdx.x == 0) {
    initRing(shared.ring);
    for (int buffer = 0; buffer < 2; ++buffer) {
      ptx::mbarrierInit(&shared.queryFull[buffer], 1);
      ptx::mbarrierInit(&shared.outputFull[buffer], S::consumers / 32);
    }
    ptx::fenceMbarrierInit();
  }
  fillOnes<Shape<headDim>>(values);
  ptx::fenceProxyAsyncShared();
  __syncthreads();

  if (group == Tile::warpGroups) {
    ptx::registersDecrease<24>();
    if (threadIdx.x == S::consumers) {
      int position = 0;
      for (int n = 0;; ++n) {
        const QueryTile<headDim> tile(p, n);
        if (!tile.exists(p)) {  // the consumers' last, unused product waits for keys too
          const Place<Tile::stages> place(position);
          ptx::mbarrierWait(&shared.ring.keyEmpty[place.stage], place.parity ^ 1);
          ptx::mbarrierArrive(&shared.ring.keyFull[place.stage]);
          break;
        }
        position =
            produce<Shape<headDim>>(p, shared.ring, keys, values, tile.head, position, blockIdx.x == 0 && n == 0);
      }
    } else if (threadIdx.x == S::consumers + 32) {
      carry<headDim, Output>(p, shared, queries);
    }
  } else {
    ptx::registersIncrease<Tile::consumerRegisters>();
    const uint32_t own = ptx::sharedAddress(queries + group * 64 * S::rowBytes);
    ShortConsumer<headDim> consumer(p, shared.ring, own, ptx::sharedAddress(keys), ptx::sharedAddress(values));
    const uint64_t firstQueries = consumer.queries;
    float scores[ShortConsumer<headDim>::kScores];
    ptx::mbarrierWait(&shared.queryFull[0], 0);
    consumer.queueNext(scores);
    for (int n = 0;; ++n) {
      const QueryTile<headDim> tile(p, n), next(p, n + 1);
      consumer.walk(scores);
      const bool more = next.exists(p);
      if (more) ptx::mbarrierWait(&shared.queryFull[next.buffer], next.parity);
      consumer.queries = firstQueries + next.buffer * S::queryBytes / 16;
      consumer.queueNext(scores);  // after the last tile: of no meaning, but without a branch
      ptx::wgmmaWait<1>();
      consumer.finish();
      ptx::namedBarrierSync(2 + group, 128);  // the whole group has multiplied these queries, so their place is free
      consumer.template stageOutput<Output>(tile.first + group * 64, tile.head, own + tile.buffer * S::queryBytes);
      ptx::fenceProxyAsyncShared();
      __syncwarp();
      consumer.release(shared.outputFull[tile.buffer]);
      if (!more) break;
    }
    ptx::wgmmaWait<0>();
    ptx::wgmmaPin(scores);
  }
}

}  // namespace attention
