// Host side of the Hopper GEMM: which tile takes which arguments, tensor maps, launch.
#include "gemm/sm90.h"

#include <algorithm>

#include "gemm/sm90.cuh"
#include "runtime/library.h"
#include "runtime/tensor_map.h"

namespace {

using hopperGemm::Parameters;
using hopperGemm::TileFacts;

template <class Tile>
constexpr TileFacts factsOf(bool bf16, bool e4m3) {
  return {Tile::resident ? 64 : 128, Tile::columns,     Tile::cluster, Tile::residentSteps,
          Tile::promoteSteps,        Tile::blockScales, bf16,          e4m3};
}

// Rows of the table, in the order of the launch functions' switches.
enum : int { shared256x2, shared256, shared192Promoted, resident128, resident256, shared128, shared192Blocks };
constexpr TileFacts tiles[gemmSm90Tiles] = {
    factsOf<GemmShared256x2>(false, true),       factsOf<GemmShared256>(true, false),
    factsOf<GemmShared192Promoted>(false, true), factsOf<GemmResident128>(true, true),
    factsOf<GemmResident256>(false, true),       factsOf<GemmShared128>(true, false),
    factsOf<GemmShared192Blocks>(false, true)};

/** A [batches, rows, columns] tensor in boxes of boxRows rows of 128 bytes, or 64. */
int encode(CUtensorMap *map, const char *name, int dtype, uint64_t address, int64_t ld, int64_t stride, int batches,
           int rows, int columns, int boxRows, int boxBytes = 128) {
  return encodeTensorMap<3>(map, {name,
                                  dtype,
                                  address,
                                  {columns, rows, batches},
                                  {ld, batches > 1 ? stride : ld},
                                  {boxBytes / dtypeBytes(dtype), boxRows, 1}});
}

bool copyable(uint64_t address, int64_t ld, int64_t stride, int dtype) {
  const int bytes = dtypeBytes(dtype);
  return aligned16(address) && ld * bytes % 16 == 0 && stride * bytes % 16 == 0 && ld > 0 && stride >= 0;
}

int steps(const ditrun_gemm_args &a) { return (a.k * dtypeBytes(a.dtype) + 127) / 128; }
int columnTiles(const ditrun_gemm_args &a, const TileFacts &tile) {
  return (a.n + tile.columns - 1) / tile.columns * a.batch;
}

}  // namespace

bool gemmSm90Fits(const ditrun_gemm_args &a, int index) {
  if (index < 0 || index >= gemmSm90Tiles) return false;
  const TileFacts &tile = tiles[index];
  if (deviceFacts().major != 9 || deviceFacts().minor != 0 || tensorMapEncoder() == nullptr) return false;
  if (!(a.dtype == DITRUN_BF16 ? tile.bf16 : a.dtype == DITRUN_E4M3 && tile.e4m3)) return false;
  if (a.activation == DITRUN_SILU ||
      (a.activation != DITRUN_IDENTITY && a.outDtype != DITRUN_BF16 && a.outDtype != DITRUN_E4M3))
    return false;
  if (a.outDtype == DITRUN_E4M3 && (a.dtype != DITRUN_E4M3 || a.gate)) return false;
  const bool batched = a.batch > 1;
  if (!copyable(a.a, a.lda, batched ? a.aStride : 0, a.dtype) ||
      !copyable(a.w, a.ldw, batched ? a.wStride : 0, a.dtype) ||
      !copyable(a.out, a.ldo, batched ? a.outStride : 0, a.outDtype) || a.n * dtypeBytes(a.outDtype) % 16 != 0)
    return false;
  if (a.gate && a.activation != DITRUN_IDENTITY) return false;
  if (tile.blockScales != (a.aScaleColumns != 0)) return false;
  if (tile.blockScales && (a.aScaleColumns != 128 || a.activation != DITRUN_IDENTITY ||
                           (a.outDtype != DITRUN_F32 && a.outDtype != DITRUN_BF16)))
    return false;
  if (a.residual && (a.outDtype != DITRUN_F32 || a.residualDtype != DITRUN_F32 ||
                     !copyable(a.residual, a.ldResidual, batched ? a.residualStride : 0, DITRUN_F32)))
    return false;
  // the first sums are not followed by others
  if (!tile.blockScales && steps(a) <= tile.promoteSteps && tile.promoteSteps > 0) return false;
  if (tile.residentSteps > 0)
    return steps(a) <= tile.residentSteps && columnTiles(a, tile) <= deviceFacts().multiprocessors;
  return true;
}

int gemmSm90Choice(const ditrun_gemm_args &a, bool fastAccumulate) {
  if (a.aScaleColumns != 0) return gemmSm90Fits(a, shared192Blocks) ? shared192Blocks : -1;
  // Below, tiles of this size leave multiprocessors idle. (e4m3 has no other way out in one kernel.)
  if (a.m < 2048 && a.outDtype != DITRUN_E4M3) return -1;
  const auto fitting = [&](int tile) { return gemmSm90Fits(a, tile) ? tile : -1; };
  if (a.dtype == DITRUN_E4M3) {
    if (a.k <= 512) return fitting(a.n % 256 == 0 ? resident256 : resident128);
    return fitting(fastAccumulate ? shared256x2 : shared192Promoted);
  }
  // What cuBLASLt does in one kernel it does 3 to 6 % faster, except for a float32 residual over a short k; f16 from
  // bf16 it does not write.
  const bool secondPass = a.outDtype == DITRUN_F16 || a.gate || a.activation != DITRUN_IDENTITY ||
                          (a.bias && a.biasDtype != a.outDtype) || (a.residual && a.residualDtype != a.outDtype);
  if ((a.residual || a.outDtype == DITRUN_F16) && a.k <= 512 && gemmSm90Fits(a, resident128)) return resident128;
  if (!secondPass) return -1;
  // The narrower tile is 8 % slower for its size, and wins where it leaves the last wave fuller.
  const auto cost = [&](int tile) {
    const int64_t count = int64_t((a.m + 127) / 128) * columnTiles(a, tiles[tile]),
                  multiprocessors = deviceFacts().multiprocessors;
    return double((count + multiprocessors - 1) / multiprocessors) * tiles[tile].columns;
  };
  return fitting(cost(shared128) * 1.08 < cost(shared256) ? shared128 : shared256);
}

int gemmSm90(const ditrun_gemm_args &a, int index, cudaStream_t stream) {
  const TileFacts &tile = tiles[index];
  const bool batched = a.batch > 1;
  Parameters p;
  p.aBatched = batched && a.aStride != 0;
  p.wBatched = batched && a.wStride != 0;
  TRY(encode(&p.a, "A", a.dtype, a.a, a.lda, a.aStride, p.aBatched ? a.batch : 1, a.m, a.k, tile.rows));
  TRY(encode(&p.w, "W", a.dtype, a.w, a.ldw, a.wStride, p.wBatched ? a.batch : 1, a.n, a.k,
             tile.columns / tile.cluster));
  if (a.outDtype != DITRUN_F32) {
    const int boxBytes = a.outDtype == DITRUN_E4M3 ? hopperGemm::e4m3BoxBytes(tile.columns) : 128;
    TRY(encode(&p.outBoxes, "out", a.outDtype, a.out, a.ldo, a.outStride, a.batch, a.m, a.n, 16, boxBytes));
  }
  p.aScale = asPointer<float>(a.aScale);
  p.wScale = asPointer<float>(a.wScale);
  p.gate = asPointer<float>(a.gate);
  p.outScale = asPointer<float>(a.outScale);
  p.bias = asPointer<void>(a.bias);
  p.residual = asPointer<float>(a.residual);
  p.out = asPointer<float>(a.out);
  p.ldo = a.ldo;
  p.outStride = batched ? a.outStride : 0;
  p.ldResidual = a.ldResidual;
  p.residualStride = batched ? a.residualStride : 0;
  p.biasStride = batched ? a.biasStride : 0;
  p.m = a.m;
  p.n = a.n;
  p.kSteps = steps(a);
  p.columnTiles = columnTiles(a, tile);
  p.columnTilesPerBatch = p.columnTiles / a.batch;
  p.rowTiles = (a.m + tile.rows * tile.cluster - 1) / (tile.rows * tile.cluster);
  p.biasBf16 = a.biasDtype == DITRUN_BF16;
  p.alpha = a.alpha;
  const int multiprocessors = deviceFacts().multiprocessors;
  int blocks;
  if (tile.residentSteps > 0) {
    // Blocks that share a panel of W; each has two warp groups with tiles of their own.
    blocks = std::min(multiprocessors / p.columnTiles, (p.rowTiles + 1) / 2) * p.columnTiles;
  } else {
    blocks = std::min(multiprocessors / tile.cluster, p.rowTiles * p.columnTiles) * tile.cluster;
  }
  return a.dtype == DITRUN_BF16 ? hopperGemm::launchBf16(index, a.outDtype, a.activation, p, blocks, stream)
                                : hopperGemm::launchE4m3(index, a.outDtype, a.activation, p, blocks, stream);
}
