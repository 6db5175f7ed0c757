// The Hopper GEMM: out = gate * activation(alpha * A · Wᵀ + bias) + residual, on TMA, mbarriers and wgmma.
//
// A block has two warp groups that multiply and one warp group whose threads only queue copies into a ring of shared-memory
// stages (one stage: 128 bytes of k). It walks over many tiles, so the copies for the next tile run during the epilogue of the last.
// Two arrangements (tiles.h):
// - shared: both warp groups work on one tile, each on half of its rows, and both read every stage. A cluster of two blocks has
//   tiles one above the other and the same W, of which each loads half for both.
// - resident: k is small enough for all of W's panel to stay in shared memory. Each warp group has tiles and a ring of its own, so
//   that one's epilogue falls into the other's products, and only A is loaded.
// Rounding: float32 sums, all of the epilogue in float32, one rounding when out is stored.
#pragma once

#include <cuda.h>

#include "numbers.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/tma_tiles.cuh"
#include "ptx/wgmma_gemm.cuh"
#include "tiles.h"

namespace gemm_sm90 {

struct Parameters {
  CUtensorMap a, w, out;
  const float *aScale, *wScale, *gate;  // scales: e4m3 only
  const void *bias, *residual;
  int64_t ldResidual, residualStride, biasStride;
  int32_t m, n, kSteps;             // kSteps: of 128 bytes
  int32_t rowTiles, columnTiles;    // columnTiles: of all batches
  int32_t columnTilesPerBatch;
  int32_t aBatched, wBatched;       // 0 where all batches share the operand
  int32_t biasBf16, residualBf16;
  float alpha;
};

template <class Tile, int dtype>
struct Shape {
  using Element = std::conditional_t<dtype == DITRUN_E4M3, __nv_fp8_e4m3, __nv_bfloat16>;
  static constexpr int elementBytes = sizeof(Element);
  static constexpr int stageColumns = 128 / elementBytes;  // of k
  static constexpr int rows = 64;                          // of a warp group
  static constexpr int tileRows = Tile::resident ? rows : 2 * rows;
  static constexpr int rings = Tile::resident ? 2 : 1;
  static constexpr int aBytes = tileRows * 128;
  static constexpr int wBytes = Tile::columns * 128;
  static constexpr int stageBytes = Tile::resident ? aBytes : aBytes + wBytes;
  static constexpr int residentBytes = Tile::residentSteps * wBytes;
  static constexpr int boxBytes = 16 * 128;  // what one warp stores at a time
  static constexpr int stagingBytes = 8 * 2 * boxBytes;
  static constexpr int barriers = rings * 2 * Tile::stages + Tile::residentSteps;
  static constexpr int sharedBytes = 1024 + residentBytes + rings * Tile::stages * stageBytes + stagingBytes + 8 * barriers;
  // A product's width. With promotion its sums are a second set of registers, so it covers half of the columns at a time.
  static constexpr int width = Tile::promote && Tile::columns > 128 ? Tile::columns / 2 : Tile::columns;
  static constexpr int blocks = Tile::columns / width;
  static constexpr int sums = width / 2;  // registers
  static_assert(sharedBytes <= 232448, "more shared memory than a block of sm_90 has");
  static_assert(!(Tile::resident && Tile::cluster != 1) && !(Tile::promote && dtype != DITRUN_E4M3));
};

/** The activations for values about to be stored as bf16, to about 1e-6: GELU by tanh as x σ(2u), which also keeps its tail right. */
template <int activation>
__device__ __forceinline__ float activate_for_store(float x) {
  if constexpr (activation == DITRUN_GELU_TANH) {
    const float twice = x * fmaf(0.071354816f, x * x, 1.5957691216f);  // 2 √(2/π) (x + 0.044715 x³)
    return __fdividef(x, 1.0f + __expf(-twice));
  }
  return activateFor<activation>(x, true);
}

/** Where a block's work lies. */
struct Place {
  int row, column, batch;
};

/** Tile t of the shared arrangement: groups of row tiles, through which the columns go, so that what runs at one time shares its
 * operands in the second-level cache. */
template <class Tile, int tileRows>
__device__ __forceinline__ Place place_shared(const Parameters &p, int t, int rank) {
  constexpr int groupRows = Tile::rowGroup / Tile::cluster;
  const int perGroup = groupRows * p.columnTiles, group = t / perGroup, inside = t - group * perGroup;
  const int first = group * groupRows, height = min(groupRows, p.rowTiles - first);
  const int column = inside / height, row = first + inside - column * height;
  const int batch = column / p.columnTilesPerBatch;
  return {(row * Tile::cluster + rank) * tileRows, (column - batch * p.columnTilesPerBatch) * Tile::columns, batch};
}

/** The vectors along the columns, for the four columns of 16 that a thread holds. */
struct Columns {
  float scale[4], bias[4], gate[4];
};

__device__ __forceinline__ float2 pair_at(const void *pointer, int64_t index, bool isBf16) {
  if (!isBf16) return *reinterpret_cast<const float2 *>(static_cast<const float *>(pointer) + index);
  const uint32_t bits = *reinterpret_cast<const uint32_t *>(static_cast<const __nv_bfloat16 *>(pointer) + index);
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

template <bool scaled>
__device__ __forceinline__ void load_columns(const Parameters &p, int column, int batch, Columns &into) {
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int at = min(column + 8 * j, p.n - 2);  // a tile may reach past n; what it computes there is not stored
    float2 bias = make_float2(0, 0), gate = make_float2(1, 1);
    if (scaled) {
      const float2 scale = *reinterpret_cast<const float2 *>(p.wScale + int64_t(p.wBatched ? batch : 0) * p.n + at);
      into.scale[2 * j] = scale.x, into.scale[2 * j + 1] = scale.y;
    }
    if (p.bias) bias = pair_at(p.bias, batch * p.biasStride + at, p.biasBf16);
    if (p.gate) gate = *reinterpret_cast<const float2 *>(p.gate + at);
    into.bias[2 * j] = bias.x, into.bias[2 * j + 1] = bias.y;
    into.gate[2 * j] = gate.x, into.gate[2 * j + 1] = gate.y;
  }
}

/** A thread's eight elements of the residual in 16 columns, as they are stored. */
struct Residual {
  uint2 bits[4];  // [row][8 columns]
};

__device__ __forceinline__ void load_residual(const Parameters &p, const int64_t (&rowStart)[2], int column, Residual &into) {
  if (!p.residual) return;
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int at = min(column + 8 * j, p.n - 2);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (p.residualBf16)
        into.bits[2 * r + j].x = *reinterpret_cast<const uint32_t *>(static_cast<const __nv_bfloat16 *>(p.residual) + rowStart[r] + at);
      else
        into.bits[2 * r + j] = *reinterpret_cast<const uint2 *>(static_cast<const float *>(p.residual) + rowStart[r] + at);
    }
  }
}

/** Rounds a warp group's sums [64, columns] and stores them: each warp 16 rows × 128 bytes at a time, through its own shared memory. */
template <class S, class Tile, bool scaled, bool outBf16, int activation>
__device__ __forceinline__ void store_tile(const Parameters &p, float (&sums)[S::blocks][S::sums], const Place &place, uint32_t staging) {
  constexpr int groups = Tile::columns / 16, ahead = 4;
  constexpr int groupsPerBox = outBf16 ? 4 : 2;
  const int lane = threadIdx.x % 32, row = place.row + threadIdx.x % 128 / 32 * 16, column = place.column + 2 * (lane % 4);
  float rowScale[2] = {p.alpha, p.alpha};
  int64_t rowStart[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int at = min(row + lane / 4 + 8 * r, p.m - 1);
    if (scaled) rowScale[r] *= p.aScale[int64_t(p.aBatched ? place.batch : 0) * p.m + at];
    rowStart[r] = place.batch * p.residualStride + at * p.ldResidual;
  }
  Residual residual[ahead];
#pragma unroll
  for (int g = 0; g < ahead; g++) load_residual(p, rowStart, column + 16 * g, residual[g]);
  Columns columns[2];
  load_columns<scaled>(p, column, place.batch, columns[0]);

#pragma unroll
  for (int g = 0; g < groups; g++) {
    if (g + 1 < groups) load_columns<scaled>(p, column + 16 * (g + 1), place.batch, columns[(g + 1) % 2]);
    const Columns &c = columns[g % 2];
    const float *sum = &sums[g * 16 / S::width][g * 16 % S::width / 2];
    float value[2][4];  // [row][column]
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float product = sum[i / 2 * 4 + 2 * r + i % 2];
        value[r][i] = fmaf(product, scaled ? rowScale[r] * c.scale[i] : rowScale[r], c.bias[i]);
        if (activation != DITRUN_IDENTITY) value[r][i] = activate_for_store<activation>(value[r][i]);
      }
    if (p.residual) {
      const Residual &add = residual[g % ahead];
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const uint2 bits = add.bits[2 * r + i / 2];
          const uint32_t word = i % 2 ? bits.y : bits.x;
          const float other = __uint_as_float(!p.residualBf16 ? word : i % 2 ? bits.x & 0xffff0000u : bits.x << 16);
          value[r][i] = fmaf(value[r][i], c.gate[i], other);
        }
    } else if (p.gate) {
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) value[r][i] *= c.gate[i];
    }
    if (g + ahead < groups) load_residual(p, rowStart, column + 16 * (g + ahead), residual[g % ahead]);

    const uint32_t box = staging + g / groupsPerBox % 2 * S::boxBytes;
    if (g % groupsPerBox == 0) {
      if (lane == 0) ptx::tma_store_wait_read<1>();
      __syncwarp();
    }
    // Rows of 128 bytes whose 16-byte chunks are swizzled as the copy engine expects.
    if constexpr (outBf16) {
      const int chunk = g % groupsPerBox * 2 + lane / 16, inBox = lane % 16;
      ptx::store_matrices(box + inBox * 128 + ((chunk ^ inBox % 8) << 4), packBf16(value[0][0], value[0][1]), packBf16(value[1][0], value[1][1]),
                          packBf16(value[0][2], value[0][3]), packBf16(value[1][2], value[1][3]));
    } else {
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const int chunk = g % groupsPerBox * 4 + 2 * j + lane % 4 / 2, inBox = lane / 4 + 8 * r;
          asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(box + inBox * 128 + ((chunk ^ inBox % 8) << 4) + lane % 2 * 8), "f"(value[r][2 * j]),
                       "f"(value[r][2 * j + 1])
                       : "memory");
        }
    }
    if (g % groupsPerBox == groupsPerBox - 1) {
      ptx::fence_proxy_async_shared();
      __syncwarp();
      if (lane == 0) {
        ptx::tma_store_tile(&p.out, box, place.column + (g - g % groupsPerBox) * 16, row, place.batch);
        ptx::tma_store_commit();
      }
    }
  }
}

template <class Tile, int dtype, bool outBf16, int activation>
__global__ void __launch_bounds__(384, 1) gemm_kernel(const __grid_constant__ Parameters p) {
  using S = Shape<Tile, dtype>;
  using Product = ptx::WideProduct<typename S::Element, S::width>;
  extern __shared__ uint8_t memory[];
  const uint32_t base = (ptx::shared_address(memory) + 1023) & ~1023u;
  const uint32_t residentW = base, stages = base + S::residentBytes, stagings = stages + S::rings * Tile::stages * S::stageBytes;
  const uint32_t barriers = stagings + S::stagingBytes;
  const auto full = [&](int ring, int stage) { return barriers + 8 * (ring * 2 * Tile::stages + stage); };
  const auto empty = [&](int ring, int stage) { return barriers + 8 * (ring * 2 * Tile::stages + Tile::stages + stage); };
  const auto residentFull = [&](int step) { return barriers + 8 * (S::rings * 2 * Tile::stages + step); };
  const auto stageAt = [&](int ring, int stage) { return stages + (ring * Tile::stages + stage) * S::stageBytes; };
  const int rank = Tile::cluster > 1 ? int(ptx::cluster_rank()) : 0;

  if (threadIdx.x == 0) {
    for (int ring = 0; ring < S::rings; ring++)
      for (int stage = 0; stage < Tile::stages; stage++) {
        ptx::mbarrier_init_at(full(ring, stage), 1);
        ptx::mbarrier_init_at(empty(ring, stage), 8 / S::rings * Tile::cluster);  // warps that read the stage, or the W in it
      }
    for (int step = 0; step < Tile::residentSteps; step++) ptx::mbarrier_init_at(residentFull(step), 1);
    ptx::fence_mbarrier_init();
  }
  if constexpr (Tile::cluster > 1) ptx::cluster_sync();
  else __syncthreads();

  // Tiles of this block (shared), or of ring r (resident): first, first + step, …
  const int clusters = gridDim.x / Tile::cluster;
  const int tiles = Tile::resident ? p.rowTiles : p.rowTiles * p.columnTiles;
  const int workers = gridDim.x / p.columnTiles;  // resident: blocks that share a panel
  const int step = Tile::resident ? 2 * workers : clusters;
  const auto first = [&](int ring) { return Tile::resident ? int(blockIdx.x) / p.columnTiles * 2 + ring : int(blockIdx.x) / Tile::cluster; };
  const auto place = [&](int tile) -> Place {
    if constexpr (Tile::resident) {
      const int column = blockIdx.x % p.columnTiles, batch = column / p.columnTilesPerBatch;
      return {tile * S::tileRows, (column - batch * p.columnTilesPerBatch) * Tile::columns, batch};
    } else {
      return place_shared<Tile, S::tileRows>(p, tile, rank);
    }
  };

  if (threadIdx.x < 128) {
    ptx::registers_decrease<24>();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0 && warp < S::rings) {
      int stage = 0, parity = 0;
      for (int tile = first(warp); tile < tiles; tile += step) {
        const Place at = place(tile);
        for (int i = 0; i < p.kSteps; i++) {
          ptx::mbarrier_wait_at(empty(warp, stage), parity ^ 1);
          const uint32_t to = stageAt(warp, stage), barrier = full(warp, stage);
          ptx::mbarrier_expect_at(barrier, S::stageBytes);
          ptx::tma_load_tile(to, &p.a, barrier, i * S::stageColumns, at.row, p.aBatched ? at.batch : 0);
          if constexpr (!Tile::resident) {
            const int wBatch = p.wBatched ? at.batch : 0;
            if constexpr (Tile::cluster == 1) {
              ptx::tma_load_tile(to + S::aBytes, &p.w, barrier, i * S::stageColumns, at.column, wBatch);
            } else {
              constexpr int half = Tile::columns / 2;
              ptx::tma_load_tile_multicast(to + S::aBytes + rank * half * 128, &p.w, barrier, i * S::stageColumns, at.column + rank * half, wBatch, 3);
            }
          }
          if (++stage == Tile::stages) stage = 0, parity ^= 1;
        }
      }
    } else if (threadIdx.x == 64 && Tile::resident) {
      const Place at = place(0);
      for (int i = 0; i < p.kSteps; i++) {
        ptx::mbarrier_expect_at(residentFull(i), S::wBytes);
        ptx::tma_load_tile(residentW + i * S::wBytes, &p.w, residentFull(i), i * S::stageColumns, at.column, p.wBatched ? at.batch : 0);
      }
    }
  } else {
    ptx::registers_increase<240>();
    const int group = threadIdx.x / 128 - 1, ring = Tile::resident ? group : 0, lane = threadIdx.x % 32;
    const uint32_t staging = stagings + (threadIdx.x / 32 - 4) * 2 * S::boxBytes;
    const uint32_t ownRows = Tile::resident ? 0 : group * S::rows * 128;
    const auto release = [&](int stage) {
      if constexpr (Tile::cluster > 1) {
        if (lane < Tile::cluster) ptx::mbarrier_arrive_at(empty(ring, stage), lane);
      } else if (lane == 0) {
        ptx::mbarrier_arrive_local(empty(ring, stage));
      }
    };
    int stage = 0, parity = 0;
    bool waitForW = Tile::resident;
    for (int tile = first(ring); tile < tiles; tile += step) {
      Place at = place(tile);
      if constexpr (!Tile::resident) at.row += group * S::rows;
      float sums[S::blocks][S::sums];
      int previous = 0;
      for (int i = 0; i < p.kSteps; i++) {
        if (waitForW) ptx::mbarrier_wait_at(residentFull(i), 0);
        ptx::mbarrier_wait_at(full(ring, stage), parity);
        const uint32_t a = stageAt(ring, stage) + ownRows, w = Tile::resident ? residentW + i * S::wBytes : stageAt(ring, stage) + S::aBytes;
        const uint64_t descA = ptx::descriptor(a, 16, 1024, ptx::Swizzle::bytes128), descW = ptx::descriptor(w, 16, 1024, ptx::Swizzle::bytes128);
        if constexpr (!Tile::promote) {
          ptx::wgmma_fence();
#pragma unroll
          for (int step = 0; step < 4; step++) Product::product(sums[0], descA + 2 * step, descW + 2 * step, i > 0 || step > 0);
          ptx::wgmma_commit();
          if (i > 0) {
            ptx::wgmma_wait<1>();
            release(previous);
          }
          previous = stage;
        } else {
          // Hopper sums e4m3 products with about 13 bits: 128 of k at a time, then float32.
#pragma unroll
          for (int block = 0; block < S::blocks; block++) {
            float part[S::sums];
            ptx::wgmma_fence();
#pragma unroll
            for (int step = 0; step < 4; step++) Product::product(part, descA + 2 * step, descW + block * (S::width * 128 >> 4) + 2 * step, step > 0);
            ptx::wgmma_commit();
            ptx::wgmma_wait<0>();
            ptx::wgmma_pin(part);
            if (block == S::blocks - 1) release(stage);
#pragma unroll
            for (int j = 0; j < S::sums; j++) sums[block][j] = i > 0 ? sums[block][j] + part[j] : part[j];
          }
        }
        if (++stage == Tile::stages) stage = 0, parity ^= 1;
      }
      if constexpr (!Tile::promote) {
        ptx::wgmma_wait<0>();
        ptx::wgmma_pin(sums[0]);
        release(previous);
      }
      waitForW = false;
      store_tile<S, Tile, dtype == DITRUN_E4M3, outBf16, activation>(p, sums, at, staging);
    }
    if (lane == 0) ptx::tma_store_wait_read<0>();
  }
  // A block stays until its partner has queued nothing more for it.
  if constexpr (Tile::cluster > 1) {
    __syncwarp();
    ptx::cluster_sync();
  }
}

}  // namespace gemm_sm90
