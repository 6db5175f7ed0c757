// Tile shapes of the Hopper kernels, one row a head dimension, each with its reason. bench/NOTES.md has the measurements.
#pragma once

/** A block of threads owns 64 · warpGroups queries of one head and walks over the keys in stages.
 * keys: keys of a stage; the second dimension of the score product (a multiple of 16; 64, 80, 96, 128, 160 or 176).
 * stages: of shared memory, a power of two; the main loop is unrolled over them.
 * mufuEighths: of every eight pairs of exponentials, how many go to the special-function unit; a polynomial takes the rest.
 * degree: of that polynomial, 2 or 3. batch: 16-key chunks of probabilities between queueing products with V. */
template <int groups, int stageKeys, int stageCount, int eighths, int degree, int batch>
struct AttentionTileRow {
  static constexpr int warpGroups = groups;
  static constexpr int keys = stageKeys;
  static constexpr int stages = stageCount;
  static constexpr int mufuEighths = eighths;
  static constexpr int polynomialDegree = degree;
  static constexpr int chunksPerBatch = batch;
  // setmaxnreg hands out what the block was launched with, less 24 a thread for the producer's warp group.
  static constexpr int consumerRegisters = groups == 2 ? 240 : 160;
  static_assert(groups == 2 || groups == 3, "the register split is worked out for two or three warp groups");
};

template <int headDim>
struct AttentionTile;

// Bound by exponentials: half of them by polynomial. Three warp groups, since two leave issue slots idle (29.8 ms against 22.9)
// and four have 112 registers, too few for 128 keys. V products queued every 32 keys: 20.3 ms, all at the end: 23.1 ms.
template <>
struct AttentionTile<32> : AttentionTileRow<3, 128, 4, 4, 2, 2> {};

// Exponentials and matrix units near balance: a quarter by polynomial (28.1 ms; 3/8: 30.2, 1/2: 30.5; 128 keys: 28.7).
template <>
struct AttentionTile<64> : AttentionTileRow<3, 96, 4, 6, 2, 2> {};

// Bound by the matrix units: no polynomial. 72 output and 64 score registers a thread need two warp groups; V products queued
// every 16 keys.
template <>
struct AttentionTile<128> : AttentionTileRow<2, 128, 2, 8, 2, 1> {};

/** A GEMM tile of sm_90 (gemm_sm90_kernel.cuh): 128 rows (shared) or 64 (resident) of `columns` columns.
 * cluster: blocks that share W, 1 or 2. residentSteps: 0 (shared), or how many steps of k (128 bytes each) of W stay beside the
 * rings. promoteSteps: after how many steps e4m3 sums go to float32, 0 for never (then they keep about 13 bits). rowGroup: row tiles that
 * the columns pass through together, so that they stay in the second-level cache. Stages: as many as fit. */
template <int clusterBlocks, int tileColumns, int stepsOfW, int promotion>
struct GemmTile {
  static constexpr bool resident = stepsOfW > 0;
  static constexpr int cluster = clusterBlocks, columns = tileColumns, residentSteps = stepsOfW, promoteSteps = promotion;
  static constexpr int rowGroup = 16;
};

// Rows of gemm_sm90.cu's table, in its order.
using GemmShared256x2 = GemmTile<2, 256, 0, 0>;
using GemmShared256 = GemmTile<1, 256, 0, 0>;
using GemmShared192Promoted = GemmTile<2, 192, 0, 4>;
using GemmResident128 = GemmTile<1, 128, 8, 0>;
using GemmResident256 = GemmTile<1, 256, 4, 0>;
using GemmShared128 = GemmTile<2, 128, 0, 0>;
