// The Hopper GEMM: out = gate * activation(alpha * A · Wᵀ + bias) + residual, on TMA, mbarriers and wgmma.
//
// A block has two warp groups that multiply and one warp group whose threads only queue copies into a ring of
// shared-memory stages (one stage: 128 bytes of k). It walks over many tiles, so the copies for the next tile run
// during the epilogue of the last. Two arrangements (tiles/tiles.h):
// - shared: both warp groups work on one tile, each on half of its rows, and both read every stage. A cluster of two
// blocks has
//   tiles one above the other and the same W, of which each loads half for both.
// - resident: k is small enough for all of W's panel to stay in shared memory. Each warp group has tiles and a ring of
// its own, so
//   that one's epilogue falls into the other's products, and only A is loaded.
// Where e4m3 sums go to float32 some steps at a time there are two sets of accumulators: during the epilogue of one
// tile, which needs one of them, the first steps of the next are multiplied into the other (not with a residual, whose
// prefetch takes those registers). Rounding: float32 sums, all of the epilogue in float32, one rounding when out is
// stored.
#pragma once

#include <cuda.h>

#include "runtime/numbers.cuh"
#include "ptx/arithmetic.cuh"
#include "ptx/cluster.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tma_tiles.cuh"
#include "ptx/wgmma_gemm.cuh"
#include "tiles/tiles.h"

namespace hopperGemm {

struct Parameters {
  CUtensorMap a, w;
  CUtensorMap outBoxes;                 // all but float32
  const float *aScale, *wScale, *gate;  // scales: e4m3 only; aScale [m], or with blockScales [m, kSteps]
  const float *outScale;                // e4m3 out only
  const void *bias;
  const float *residual;
  float *out;  // float32 only
  int64_t ldo, outStride, ldResidual, residualStride, biasStride;
  int32_t m, n, kSteps;           // kSteps: of 128 bytes
  int32_t rowTiles, columnTiles;  // columnTiles: of all batches
  int32_t columnTilesPerBatch;
  int32_t aBatched, wBatched;  // 0 where all batches share the operand
  int32_t biasBf16;
  float alpha;
};

/** Of a row of e4m3 out, stored at a time. */
constexpr int e4m3BoxBytes(int tileColumns) { return tileColumns % 128 == 0 ? 128 : 64; }

template <class Tile, int dtype, int outDtype>
struct Shape {
  using Element = std::conditional_t<dtype == DITRUN_E4M3, __nv_fp8_e4m3, __nv_bfloat16>;
  static constexpr int elementBytes = sizeof(Element);
  static constexpr int stepColumns = 128 / elementBytes;  // of k
  static constexpr int rows = 64;                         // of a warp group
  static constexpr int tileRows = Tile::resident ? rows : 2 * rows;
  static constexpr int sums = Tile::columns / 2;  // registers
  static constexpr int rings = Tile::resident ? 2 : 1;
  static constexpr int aBytes = tileRows * 128;
  static constexpr int wBytes = Tile::columns * 128;
  static constexpr int stageBytes = Tile::resident ? aBytes : aBytes + wBytes;
  static constexpr int residentBytes = Tile::residentSteps * wBytes;
  static constexpr int boxBytes = 16 * 128;  // what one warp stores at a time
  static constexpr int e4m3BoxBytes = hopperGemm::e4m3BoxBytes(Tile::columns);
  static constexpr int boxes = outDtype == DITRUN_F32 ? 1 : 2;
  static constexpr int stagingBytes = 8 * boxes * boxBytes;
  static constexpr int vectorBytes = 8 * Tile::columns;  // the epilogue's vectors along the columns
  static constexpr int mostShared = 232448, mostBarriers = 64;
  static constexpr int stages =
      (mostShared - residentBytes - stagingBytes - vectorBytes - 8 * mostBarriers) / (rings * stageBytes);
  static constexpr int barriers = rings * 2 * stages + Tile::residentSteps + 2;
  static constexpr int sharedBytes =
      residentBytes + rings * stages * stageBytes + stagingBytes + vectorBytes + 8 * barriers;
  static_assert(barriers <= mostBarriers && stages >= 3);
  static_assert(!(Tile::resident && Tile::cluster != 1) && !(Tile::promoteSteps && dtype != DITRUN_E4M3));
};

/** The activations for values about to be stored as bf16 or e4m3, to about 1e-6 (GELU by tanh before e4m3: 5e-4 of x),
 * in as few instructions as that takes: 14 (GELU: the formula of geluForBf16) and 7 (GELU by tanh, as x σ(2u), u =
 * √(2/π) (x + 0.044715 x³), which also keeps its tail right). */
template <int activation, int outDtype>
__device__ __forceinline__ float activateForStore(float x) {
  if constexpr (activation == DITRUN_GELU_TANH && outDtype == DITRUN_E4M3) {
    // tanh to 2^-11: half of the special-function unit's time, and nothing that e4m3 shows
    const float half = 0.5f * x;
    return fmaf(half, ptx::tanhApprox(x * fmaf(0.035677408f, x * x, 0.79788456f)), half);
  }
  if constexpr (activation == DITRUN_GELU_TANH) {
    const float exponent = x * fmaf(-0.10294325f, x * x, -2.3022082f);  // -2u log2(e)
    return x * ptx::reciprocalApprox(1.0f + ptx::exp2Approx(exponent));
  }
  if constexpr (activation == DITRUN_GELU) {
    const float size = fabsf(x), root = x * 0.84932180f;  // √(log2(e) / 2): e^(-x²/2) = 2^(-root²)
    const float t = ptx::reciprocalApprox(fmaf(0.23164189f, size, 1.0f));
    float half = fmaf(-0.53070271f, t, 0.72657601f);
    half = fmaf(half, t, -0.71070687f);
    half = fmaf(half, t, 0.14224837f);
    half = fmaf(half, t, -0.12741480f);
    return fmaf(half * t, size * ptx::exp2Approx(-root * root), fmaxf(x, 0.0f));
  }
  return x;
}

/** Where a block's work lies. */
struct Place {
  int row, column, batch;
};

/** Tile t of the shared arrangement: groups of row tiles, through which the columns go, so that what runs at one time
 * shares its operands in the second-level cache. */
template <class Tile, int tileRows>
__device__ __forceinline__ Place placeShared(const Parameters &p, int t, int rank) {
  constexpr int groupRows = Tile::rowGroup / Tile::cluster;
  const int perGroup = groupRows * p.columnTiles, group = t / perGroup, inside = t - group * perGroup;
  const int first = group * groupRows, height = min(groupRows, p.rowTiles - first);
  const int column = inside / height, row = first + inside - column * height;
  const int batch = column / p.columnTilesPerBatch;
  return {(row * Tile::cluster + rank) * tileRows, (column - batch * p.columnTilesPerBatch) * Tile::columns, batch};
}

/** One warp writes a tile's columns as the epilogue reads them: for every two columns their scales (alpha · wScale ·
 * gate), then their biases (bias · gate). Columns past n get zeros. */
template <class S, class Tile, bool scaled>
__device__ __forceinline__ void loadColumns(const Parameters &p, const Place &place, uint32_t vectors) {
  for (int c = threadIdx.x % 32; c < Tile::columns; c += 32) {
    const int column = place.column + c;
    float scale = 0, bias = 0;
    if (column < p.n) {
      scale = p.alpha;
      if (scaled) scale *= p.wScale[int64_t(p.wBatched ? place.batch : 0) * p.n + column];
      if (p.bias) bias = loadOne(p.bias, place.batch * p.biasStride + column, p.biasBf16 ? DITRUN_BF16 : DITRUN_F32);
      if (p.gate) scale *= p.gate[column], bias *= p.gate[column];
    }
    const uint32_t at = vectors + c / 2 * 16 + c % 2 * 4;
    asm volatile("st.shared.f32 [%0], %1;\nst.shared.f32 [%0 + 8], %2;" ::"r"(at), "f"(scale), "f"(bias) : "memory");
  }
}

/** Where a lane reads the residual and writes a float32 out: 16 bytes (chunk lane % 8) of rows lane / 8, + 4, + 8 and +
 * 12 of its warp's 16, in a box of 128 bytes of columns, so that a warp moves whole lines. */
struct Lines {
  int64_t first, step;    // elements: to the first row's chunk, and 4 rows on
  int32_t rows, columns;  // of the matrix that lie at or after it

  __device__ __forceinline__ Lines(const Parameters &p, const Place &place, int64_t ld, int64_t stride) {
    const int row = place.row + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 8,
              column = place.column + threadIdx.x % 8 * 4;
    first = place.batch * stride + row * ld + column;
    step = 4 * ld;
    rows = p.m - row;
    columns = p.n - column;
  }
  __device__ __forceinline__ bool inside(int box, int i) const { return 4 * i < rows && 32 * box < columns; }
  __device__ __forceinline__ int64_t at(int box, int i) const { return first + i * step + 32 * box; }
};

/** The residual's boxes, read ahead of the sums that they are added to. */
struct ResidualAhead {
  static constexpr int boxes = 2;
  const float *residual;
  Lines lines;
  float4 held[boxes][4];

  __device__ __forceinline__ ResidualAhead(const Parameters &p, const Place &place)
      : residual(p.residual), lines(p, place, p.ldResidual, p.residualStride) {}
  __device__ __forceinline__ void start() {
#pragma unroll
    for (int box = 0; box < boxes; box++) load(box);
  }
  __device__ __forceinline__ void load(int box) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float4 &v = held[box % boxes][i];
      // Written in either case, or its registers would be taken from one tile to the next.
      asm volatile(
          "{\n.reg .pred inside;\nsetp.ne.b32 inside, %5, 0;\n"
          "mov.f32 %0, 0f00000000;\nmov.f32 %1, %0;\nmov.f32 %2, %0;\nmov.f32 %3, %0;\n"
          "@inside ld.global.v4.f32 {%0, %1, %2, %3}, [%4];\n}\n"
          : "=&f"(v.x), "=&f"(v.y), "=&f"(v.z), "=&f"(v.w)
          : "l"(residual + lines.at(box, i)), "r"(int(lines.inside(box, i))));
    }
  }
};

/** In its place where there is none. */
struct NoResidual {
  __device__ NoResidual(const Parameters &, const Place &) {}
  __device__ void start() {}
};

/** One value of the epilogue for a thread's two rows and the four columns it has of 16. */
using Values = float[2][4];

template <bool scaled, int outDtype, int activation>
__device__ __forceinline__ void finish(Values &value, const float *sums, const float (&rowScale)[2], uint32_t vectors) {
#pragma unroll
  for (int j = 0; j < 2; j++) {
    float scale[2], bias[2];
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(scale[0]), "=f"(scale[1]), "=f"(bias[0]), "=f"(bias[1])
                 : "r"(vectors + 64 * j));
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float product = sums[4 * j + 2 * r + i];
        value[r][2 * j + i] =
            activateForStore<activation, outDtype>(fmaf(scaled ? product * rowScale[r] : product, scale[i], bias[i]));
      }
  }
}

/** Finishes a warp group's sums [64, columns] and stores them, each warp 16 rows × 128 bytes at a time (a box) by way
 * of its own shared memory, where 16-byte chunks are swizzled over the banks by their row. bf16 and f16 leave by the
 * copy engine (172 µs against 180 at 65536×1536×512), and so does e4m3 (boxes of 64 bytes where 128 do not divide the
 * tile); float32 by the lanes, which add the residual on the way, in whole lines. between(group) is called after each
 * 16 columns. */
template <class S, class Tile, bool scaled, int outDtype, int activation, bool hasResidual, class Residual,
          class Between>
__device__ __forceinline__ void storeTile(const Parameters &p, const float (&sums)[S::sums], const Place &place,
                                          uint32_t vectors, uint32_t staging, [[maybe_unused]] Residual &residual,
                                          const Between &between) {
  constexpr int groups = Tile::columns / 16, groupsPerBox = outDtype == DITRUN_F32    ? 2
                                                            : outDtype == DITRUN_E4M3 ? S::e4m3BoxBytes / 16
                                                                                      : 4;
  const int lane = threadIdx.x % 32, firstRow = place.row + threadIdx.x % 128 / 32 * 16;
  float rowScale[2] = {1, 1};
  if constexpr (scaled && !Tile::blockScales) {
#pragma unroll
    for (int r = 0; r < 2; r++)
      rowScale[r] = p.aScale[int64_t(p.aBatched ? place.batch : 0) * p.m + min(firstRow + lane / 4 + 8 * r, p.m - 1)];
  }
  [[maybe_unused]] float outFactor[2];  // of the thread's rows
  if constexpr (outDtype == DITRUN_E4M3) {
#pragma unroll
    for (int r = 0; r < 2; r++)
      outFactor[r] =
          reciprocalOfNormal(p.outScale[int64_t(place.batch) * p.m + min(firstRow + lane / 4 + 8 * r, p.m - 1)]);
  }
  [[maybe_unused]] const Lines lines(p, place, p.ldo, p.outStride);
  vectors += lane % 4 * 16;

#pragma unroll
  for (int g = 0; g < groups; g++) {
    Values value;
    finish<scaled, outDtype, activation>(value, sums + 8 * g, rowScale, vectors + 128 * g);
    const int inBox = g % groupsPerBox, boxIndex = g / groupsPerBox;
    const bool last = inBox == groupsPerBox - 1;
    if constexpr (outDtype != DITRUN_F32) {
      const uint32_t box = staging + boxIndex % 2 * S::boxBytes;
      if (inBox == 0) {
        if (lane == 0) ptx::tmaStoreWaitRead<1>();
        __syncwarp();
      }
      if constexpr (outDtype != DITRUN_E4M3) {
        const int row = lane % 16, chunk = inBox * 2 + lane / 16;
        ptx::storeMatrices(box + row * 128 + ((chunk ^ row % 8) << 4), packPair<outDtype>(value[0][0], value[0][1]),
                           packPair<outDtype>(value[1][0], value[1][1]), packPair<outDtype>(value[0][2], value[0][3]),
                           packPair<outDtype>(value[1][2], value[1][3]));
      } else {
        // A group's 16 columns are a chunk. Rows eight apart are swizzled alike.
        constexpr int pitch = S::e4m3BoxBytes;
        const int swizzle = pitch == 128 ? lane / 4 : lane / 8;
        const uint32_t first = staging + lane / 4 * pitch + lane % 4 * 2 + ((inBox ^ swizzle) << 4);
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
          for (int j = 0; j < 2; j++) {
            const float2 pair = make_float2(value[r][2 * j] * outFactor[r], value[r][2 * j + 1] * outFactor[r]);
            asm volatile("st.shared.b16 [%0], %1;" ::"r"(first + boxIndex % 2 * S::boxBytes + 8 * r * pitch + 8 * j),
                         "h"(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3))
                         : "memory");
          }
      }
      if (last) {
        ptx::fenceProxyAsyncShared();
        __syncwarp();
        if (lane == 0) {
          ptx::tmaStoreTile(&p.outBoxes, box, place.column + boxIndex * groupsPerBox * 16, firstRow, place.batch);
          ptx::tmaStoreCommit();
        }
      }
    } else {
      if (inBox == 0) __syncwarp();
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const int row = lane / 4 + 8 * r, chunk = inBox * 4 + 2 * j + lane % 4 / 2;
          asm volatile(
              "st.shared.v2.f32 [%0], {%1, %2};" ::"r"(staging + row * 128 + ((chunk ^ row % 8) << 4) + lane % 2 * 8),
              "f"(value[r][2 * j]), "f"(value[r][2 * j + 1])
              : "memory");
        }
      if (last) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float4 v;
          const int row = lane / 8 + 4 * i;
          asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                       : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                       : "r"(staging + row * 128 + ((lane % 8 ^ row % 8) << 4))
                       : "memory");
          if constexpr (hasResidual) {
            const float4 add = residual.held[boxIndex % Residual::boxes][i];
            v.x += add.x, v.y += add.y, v.z += add.z, v.w += add.w;
          }
          if (lines.inside(boxIndex, i)) *reinterpret_cast<float4 *>(p.out + lines.at(boxIndex, i)) = v;
        }
        if constexpr (hasResidual)
          if ((boxIndex + Residual::boxes) * groupsPerBox < groups) residual.load(boxIndex + Residual::boxes);
      }
    }
    between(g);
  }
}

template <class Tile, int dtype, int outDtype, int activation, bool hasResidual>
__global__ void __launch_bounds__(384, 1) gemmKernel(const __grid_constant__ Parameters p) {
  using S = Shape<Tile, dtype, outDtype>;
  using Product = ptx::WideProduct<typename S::Element, Tile::columns>;
  constexpr int promoteSteps = Tile::promoteSteps;
  extern __shared__ __align__(1024) uint8_t memory[];
  const uint32_t base = ptx::sharedAddress(memory);
  const uint32_t residentW = base, stages = base + S::residentBytes,
                 stagings = stages + S::rings * S::stages * S::stageBytes;
  const uint32_t vectors = stagings + S::stagingBytes, barriers = vectors + S::vectorBytes;
  const auto full = [&](int ring, int stage) { return barriers + 8 * (ring * 2 * S::stages + stage); };
  const auto empty = [&](int ring, int stage) { return barriers + 8 * (ring * 2 * S::stages + S::stages + stage); };
  const auto residentFull = [&](int step) { return barriers + 8 * (S::rings * 2 * S::stages + step); };
  const uint32_t vectorsFull = barriers + 8 * (S::barriers - 2), vectorsEmpty = vectorsFull + 8;
  const auto stageAt = [&](int ring, int stage) { return stages + (ring * S::stages + stage) * S::stageBytes; };
  const int rank = Tile::cluster > 1 ? int(ptx::clusterRank()) : 0;

  if (threadIdx.x == 0) {
    for (int ring = 0; ring < S::rings; ring++)
      for (int stage = 0; stage < S::stages; stage++) {
        ptx::mbarrierInitAt(full(ring, stage), 1);
        // warps that read the stage, or the W in it
        ptx::mbarrierInitAt(empty(ring, stage), 8 / S::rings * Tile::cluster);
      }
    for (int step = 0; step < Tile::residentSteps; step++) ptx::mbarrierInitAt(residentFull(step), 1);
    ptx::mbarrierInitAt(vectorsFull, 1);
    ptx::mbarrierInitAt(vectorsEmpty, 8);
    ptx::fenceMbarrierInit();
  }
  if constexpr (Tile::cluster > 1) ptx::clusterSync();
  else __syncthreads();

  // Tiles of this block (shared), or of ring r (resident): first, first + step, …
  const int clusters = gridDim.x / Tile::cluster;
  const int tiles = Tile::resident ? p.rowTiles : p.rowTiles * p.columnTiles;
  const int workers = gridDim.x / p.columnTiles;  // resident: blocks that share a panel
  const int step = Tile::resident ? 2 * workers : clusters;
  const auto first = [&](int ring) {
    return Tile::resident ? int(blockIdx.x) / p.columnTiles * 2 + ring : int(blockIdx.x) / Tile::cluster;
  };
  const auto place = [&](int tile) -> Place {
    if constexpr (Tile::resident) {
      const int column = blockIdx.x % p.columnTiles, batch = column / p.columnTilesPerBatch;
      return {tile * S::tileRows, (column - batch * p.columnTilesPerBatch) * Tile::columns, batch};
    } else {
      return placeShared<Tile, S::tileRows>(p, tile, rank);
    }
  };

  if (threadIdx.x < 128) {
    ptx::registersDecrease<40>();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0 && warp < S::rings) {
      int stage = 0, parity = 0;
      for (int tile = first(warp); tile < tiles; tile += step) {
        const Place at = place(tile);
        for (int i = 0; i < p.kSteps; i++) {
          ptx::mbarrierWaitAt(empty(warp, stage), parity ^ 1);
          const uint32_t to = stageAt(warp, stage), barrier = full(warp, stage);
          ptx::mbarrierExpectAt(barrier, S::stageBytes);
          ptx::tmaLoadTile(to, &p.a, barrier, i * S::stepColumns, at.row, p.aBatched ? at.batch : 0);
          if constexpr (!Tile::resident) {
            const int wBatch = p.wBatched ? at.batch : 0;
            if constexpr (Tile::cluster == 1) {
              ptx::tmaLoadTile(to + S::aBytes, &p.w, barrier, i * S::stepColumns, at.column, wBatch);
            } else {
              constexpr int half = Tile::columns / 2;
              ptx::tmaLoadTileMulticast(to + S::aBytes + rank * half * 128, &p.w, barrier, i * S::stepColumns,
                                        at.column + rank * half, wBatch, 3);
            }
          }
          if (++stage == S::stages) stage = 0, parity ^= 1;
        }
      }
    } else if (threadIdx.x == 64 && Tile::resident) {
      const Place at = place(0);
      for (int i = 0; i < p.kSteps; i++) {
        ptx::mbarrierExpectAt(residentFull(i), S::wBytes);
        ptx::tmaLoadTile(residentW + i * S::wBytes, &p.w, residentFull(i), i * S::stepColumns, at.column,
                         p.wBatched ? at.batch : 0);
      }
    } else if (warp == 3) {
      int parity = 0;
      for (int tile = first(0); tile < tiles; tile += Tile::resident ? tiles : step, parity ^= 1) {
        const Place at = place(tile);
        ptx::mbarrierWaitAt(vectorsEmpty, parity ^ 1);
        loadColumns<S, Tile, dtype == DITRUN_E4M3>(p, at, vectors);
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrierArriveLocal(vectorsFull);
      }
    }
  } else {
    ptx::registersIncrease<232>();
    const int group = threadIdx.x / 128 - 1, ring = Tile::resident ? group : 0, lane = threadIdx.x % 32;
    const uint32_t staging = stagings + (threadIdx.x / 32 - 4) * S::boxes * S::boxBytes;
    const uint32_t ownRows = Tile::resident ? 0 : group * S::rows * 128;
    const auto release = [&](int stage) {
      if constexpr (Tile::cluster > 1) {
        if (lane < Tile::cluster) ptx::mbarrierArriveAt(empty(ring, stage), lane);
      } else if (lane == 0) {
        ptx::mbarrierArriveLocal(empty(ring, stage));
      }
    };
    int stage = 0, parity = 0, vectorsParity = 0;
    bool firstTile = true;
    // Promoted sums leave registers that the epilogue does not need: there the next tile's first steps are multiplied
    // meanwhile.
    constexpr bool ahead = promoteSteps > 0 && !Tile::blockScales && !hasResidual;
    float part[S::sums], sums[promoteSteps ? S::sums : 1];
    [[maybe_unused]] int aheadStage = 0;  // of the steps multiplied ahead, the next to be released
    const auto queueAhead = [&](bool exists) {
      if constexpr (ahead) {
        aheadStage = stage;
        ptx::wgmmaPin(sums);
#pragma unroll
        for (int i = 0; i < promoteSteps; i++) {
          // else the products are of anything, and not used
          if (exists) ptx::mbarrierWaitAt(full(ring, stage), parity);
          const uint64_t descA = ptx::descriptor(stageAt(ring, stage) + ownRows, 16, 1024, ptx::Swizzle::bytes128);
          const uint64_t descW = ptx::descriptor(stageAt(ring, stage) + S::aBytes, 16, 1024, ptx::Swizzle::bytes128);
          ptx::wgmmaFence();
#pragma unroll
          for (int step = 0; step < 4; step++) Product::product(sums, descA + 2 * step, descW + 2 * step, i + step > 0);
          ptx::wgmmaCommit();
          if (++stage == S::stages) stage = 0, parity ^= 1;
        }
      }
    };
    const auto releaseAhead = [&](bool exists) {
      if (exists) release(aheadStage);
      if (++aheadStage == S::stages) aheadStage = 0;
    };
    if constexpr (ahead) {
      if (first(ring) < tiles) {
        queueAhead(true);
        ptx::wgmmaWait<0>();
        ptx::wgmmaPin(sums);
        for (int i = 0; i < promoteSteps; i++) releaseAhead(true);
      }
    }
    for (int tile = first(ring); tile < tiles; tile += step) {
      Place at = place(tile);
      if constexpr (!Tile::resident) at.row += group * S::rows;
      // Hopper sums e4m3 products with about 13 bits: with promotion some steps of k at a time, then in float32.
      if constexpr (promoteSteps > 0 && !ahead) {
#pragma unroll
        for (int j = 0; j < S::sums; j++) sums[j] = 0;
      }
      int previous = 0;
      [[maybe_unused]] const float *blockScale[2];  // of the thread's rows
      if constexpr (Tile::blockScales) {
#pragma unroll
        for (int r = 0; r < 2; r++)
          blockScale[r] = p.aScale + (int64_t(p.aBatched ? at.batch : 0) * p.m +
                                      min(at.row + int(threadIdx.x) % 128 / 32 * 16 + lane / 4 + 8 * r, p.m - 1)) *
                                         p.kSteps;
      }
      constexpr int firstStep = ahead ? promoteSteps : 0;
      for (int i = firstStep; i < p.kSteps; i++) {
        [[maybe_unused]] float scale[2];
        if constexpr (Tile::blockScales) scale[0] = blockScale[0][i], scale[1] = blockScale[1][i];
        if (Tile::resident && firstTile) ptx::mbarrierWaitAt(residentFull(i), 0);
        ptx::mbarrierWaitAt(full(ring, stage), parity);
        const uint32_t a = stageAt(ring, stage) + ownRows,
                       w = Tile::resident ? residentW + i * S::wBytes : stageAt(ring, stage) + S::aBytes;
        const uint64_t descA = ptx::descriptor(a, 16, 1024, ptx::Swizzle::bytes128),
                       descW = ptx::descriptor(w, 16, 1024, ptx::Swizzle::bytes128);
        const bool fresh = promoteSteps ? i % promoteSteps == 0 : i == 0;
        ptx::wgmmaFence();
#pragma unroll
        for (int step = 0; step < 4; step++)
          Product::product(part, descA + 2 * step, descW + 2 * step, !fresh || step > 0);
        ptx::wgmmaCommit();
        if constexpr (Tile::blockScales) {
          ptx::wgmmaWait<0>();
          ptx::wgmmaPin(part);
          release(stage);
#pragma unroll
          for (int j = 0; j < S::sums; j++) sums[j] = fmaf(part[j], scale[j / 2 % 2], sums[j]);
        } else if (i > firstStep) {
          ptx::wgmmaWait<1>();
          release(previous);
        }
        previous = stage;
        if constexpr (promoteSteps > 0 && !Tile::blockScales) {
          if (i % promoteSteps == promoteSteps - 1 && i + 1 < p.kSteps) {
            ptx::wgmmaWait<0>();
            ptx::wgmmaPin(part);
#pragma unroll
            for (int j = 0; j < S::sums; j++) sums[j] += part[j];
          }
        }
        if (++stage == S::stages) stage = 0, parity ^= 1;
      }
      [[maybe_unused]] std::conditional_t<hasResidual, ResidualAhead, NoResidual> residual(p, at);
      if constexpr (promoteSteps == 0) residual.start();
      if constexpr (Tile::blockScales) {
#pragma unroll
        for (int j = 0; j < S::sums; j++) part[j] = sums[j];
      } else {
        ptx::wgmmaWait<0>();
        ptx::wgmmaPin(part);
        release(previous);
      }
      if constexpr (promoteSteps > 0 && !Tile::blockScales) {
#pragma unroll
        for (int j = 0; j < S::sums; j++) part[j] += sums[j];
      }
      if constexpr (promoteSteps > 0) {
        ptx::wgmmaPin(part);  // only then are there registers for the residual
        residual.start();
      }
      // (For e4m3 always: ptxas would make two copies of all that follows.)
      if (!Tile::resident || firstTile || outDtype == DITRUN_E4M3) ptx::mbarrierWaitAt(vectorsFull, vectorsParity);
      if constexpr (ahead) {
        const bool exists = tile + step < tiles;
        ptx::wgmmaPin(part);
        queueAhead(exists);
        storeTile<S, Tile, dtype == DITRUN_E4M3, outDtype, activation, hasResidual>(
            p, part, at, vectors, staging, residual, [&](int group) {
              // Steps are done in turn, while columns are stored.
              constexpr int every = Tile::columns / 16 / promoteSteps;
              if (group % every != every - 1) return;
              const int done = group / every;
              if (done == 0) ptx::wgmmaWait<promoteSteps - 1>();
              if (done == 1) ptx::wgmmaWait<promoteSteps - 2>();
              if (done == 2) ptx::wgmmaWait<promoteSteps - 3>();
              if (done == 3) ptx::wgmmaWait<promoteSteps - 4>();
              releaseAhead(exists);
            });
        ptx::wgmmaPin(sums);
      } else {
        storeTile<S, Tile, dtype == DITRUN_E4M3, outDtype, activation, hasResidual>(p, part, at, vectors, staging,
                                                                                    residual, [](int) {});
      }
      if constexpr (!Tile::resident) {
        __syncwarp();
        if (lane == 0) ptx::mbarrierArriveLocal(vectorsEmpty);
        vectorsParity ^= 1;
      }
      firstTile = false;
    }
    if (outDtype != DITRUN_F32 && lane == 0) ptx::tmaStoreWaitRead();
  }
  // A block stays until its partner has queued nothing more for it.
  if constexpr (Tile::cluster > 1) {
    __syncwarp();
    ptx::clusterSync();
  }
}

}  // namespace hopperGemm
