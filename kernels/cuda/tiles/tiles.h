// Tile shapes of the Hopper kernels, one row a head dimension, each with its reason. bench/NOTES.md has the
// measurements.
#pragma once

/** A block of threads owns 64 · warpGroups queries of one head and walks over the keys in stages.
 * keys: keys of a stage; the second dimension of the score product (a multiple of 16; 64, 80, 96, 128, 160 or 176).
 * stages: of shared memory, a power of two; the main loop is unrolled over them.
 * mufuEighths: of every eight pairs of exponentials, how many go to the special-function unit; a polynomial takes the
 * rest. degree: of the general polynomial, 2 or 3. batch: 16-key chunks of probabilities between queueing products with
 * V. few: up to this many stages of keys the kernel for few keys is faster. */
template <int groups, int stageKeys, int stageCount, int eighths, int degree, int batch, int few>
struct AttentionTileRow {
  static constexpr int warpGroups = groups;
  static constexpr int keys = stageKeys;
  static constexpr int stages = stageCount;
  static constexpr int mufuEighths = eighths;
  static constexpr int polynomialDegree = degree;
  static constexpr int chunksPerBatch = batch;
  static constexpr int fewTiles = few;
  // setmaxnreg hands out what the block was launched with, less 24 a thread for the producer's warp group.
  static constexpr int consumerRegisters = groups == 2 ? 240 : 160;
  static_assert(groups == 2 || groups == 3, "the register split is worked out for two or three warp groups");
};

template <int headDim>
struct AttentionTile;

// Bound by exponentials: half of them by polynomial (17.9 ms; 5/8: 18.1, 6/8: 18.8, 3/8: 19.2). Three warp groups,
// since two leave issue slots idle (29.8 ms against 22.9) and four have 112 registers, too few for 128 keys; 160 keys
// are too many for three. V products queued every 32 keys: 20.3 ms, all at the end: 23.1 ms. Eight stages: 18.3 ms.
template <>
struct AttentionTile<32> : AttentionTileRow<3, 128, 4, 4, 2, 2, 6> {};

// Exponentials and matrix units near balance: a quarter by polynomial (26.9 ms; 3/8: 26.6, 1/2: 27.0, within what runs
// differ by).
template <>
struct AttentionTile<64> : AttentionTileRow<3, 96, 4, 6, 2, 2, 16> {};

// Bound by the matrix units: no polynomial. 72 output and 64 score registers a thread need two warp groups; V products
// queued every 16 keys.
template <>
struct AttentionTile<128> : AttentionTileRow<2, 128, 2, 8, 2, 1, 16> {};

/** The same for f16 (attention/f16_sm90_kernel.cuh). mufuEighths: of every eight chunks of 16 keys. exactKeys and
 * plainKeys: keys that the walk in float32 takes at a time, where it looks at each score and where not. */
template <int groups, int stageKeys, int stageCount, int eighths, int batch, int exact, int plain>
struct AttentionF16TileRow {
  static constexpr int warpGroups = groups;
  static constexpr int keys = stageKeys;
  static constexpr int stages = stageCount;
  static constexpr int mufuEighths = eighths;
  static constexpr int chunksPerBatch = batch;
  static constexpr int exactKeys = exact;
  static constexpr int plainKeys = plain;
  static constexpr int consumerRegisters = groups == 2 ? 240 : 160;
  static_assert(groups == 2 || groups == 3, "the register split is worked out for two or three warp groups");
  static_assert(stageKeys % exact == 0 && stageKeys % plain == 0);
};

template <int headDim>
struct AttentionF16Tile;

// Back to back, at the GPU's power limit, bf16 18.5 to 18.8 ms: 16.5 to 17.0; 3/8 16.8 to 17.3, 5/8 slower by 14 % in
// another run, 96 or 192 keys 17.0 to 17.5, four warp groups of 64 keys 17.3 to 18.0, products queued every 64
// keys 16.9 to 17.1. Where the polynomials' accumulator is alive there are registers for the float32 scores of 64 keys.
template <>
struct AttentionF16Tile<32> : AttentionF16TileRow<3, 128, 4, 4, 2, 64, 128> {};

// bf16 27.8 ms: 25.8 to 26.0; 1/2, 64 keys, or one accumulator over 128 keys the same, 6/8 26.3.
template <>
struct AttentionF16Tile<64> : AttentionF16TileRow<3, 96, 4, 5, 2, 48, 96> {};

// Bound by the matrix units (98 % busy) and then by power: 24.4 to 24.8 ms, bf16 23.9. Here so that f16 has a fast
// kernel, not to be faster.
template <>
struct AttentionF16Tile<128> : AttentionF16TileRow<2, 128, 2, 8, 2, 64, 128> {};

/** The same for e4m3, whose stages hold DITRUN_FP8_KEYS keys. batch: 32-key chunks of probabilities between queueing
 * products with V. */
template <int groups, int stageCount, int batch>
struct AttentionFp8TileRow {
  static constexpr int warpGroups = groups;
  static constexpr int stages = stageCount;
  static constexpr int chunksPerBatch = batch;
  static constexpr int consumerRegisters = groups == 2 ? 240 : groups == 3 ? 160 : 112;
  static_assert(groups >= 2 && groups <= 4, "the register split is worked out for two to four warp groups");
  static_assert(4 % batch == 0);
};

template <int headDim>
struct AttentionFp8Tile;

// Bound by instructions and their latencies: four warp groups (11.2 ms; three: 12.1).
template <>
struct AttentionFp8Tile<32> : AttentionFp8TileRow<4, 4, 2> {};

// The same; four would have too few registers (16.3 ms; two: 19.2).
template <>
struct AttentionFp8Tile<64> : AttentionFp8TileRow<3, 4, 2> {};

// 66 output, 68 partial and 32 score registers a thread need two warp groups; the matrix units are 84 % busy.
template <>
struct AttentionFp8Tile<128> : AttentionFp8TileRow<2, 4, 1> {};

/** A GEMM tile of sm_90 (gemm/sm90_kernel.cuh): 128 rows (shared) or 64 (resident) of `columns` columns.
 * cluster: blocks that share W, 1 or 2. residentSteps: 0 (shared), or how many steps of k (128 bytes each) of W stay
 * beside the rings. promoteSteps: after how many steps e4m3 sums go to float32, 0 for never (then they keep about 13
 * bits). rowGroup: row tiles that the columns pass through together, so that they stay in the second-level cache.
 * Stages: as many as fit. blockScales: rows of A have a scale for each step of k (128 e4m3 numbers), which is
 * multiplied in as the step's sums go to float32. */
template <int clusterBlocks, int tileColumns, int stepsOfW, int promotion, bool scaledBlocks = false>
struct GemmTile {
  static constexpr bool resident = stepsOfW > 0;
  static constexpr int cluster = clusterBlocks, columns = tileColumns, residentSteps = stepsOfW,
                       promoteSteps = promotion;
  static constexpr bool blockScales = scaledBlocks;
  static constexpr int rowGroup = 16;
};

// Rows of gemm/sm90.cu's table, in its order. Microseconds on one H200, cuBLASLt with what it needs after it in
// brackets, in one run.

// e4m3 with 13-bit sums: 32760×1536×1536 130 [147], ×8960×1536 with GELU 899 [1201], 8192³ 766 [852].
using GemmShared256x2 = GemmTile<2, 256, 0, 0>;
// bf16: 65536×2048×512 with GELU 320 [387], 32760×1536×1536 with gate and residual 277 [416]; plain 32760×1536×1536 210
// [201]. The cluster of two changes nothing here (207 and 208 µs, 1554 and 1550 µs at 8192³).
using GemmShared256 = GemmTile<1, 256, 0, 0>;
// e4m3, each 512 products summed in float32: 192 columns, so that both sets of sums have registers. 32760×1536×1536 133
// [142], 8192³ 766 [848].
using GemmShared192Promoted = GemmTile<2, 192, 0, 4>;
// k up to 512 (bf16) or 1024 (e4m3): 65536×512×512 with a float32 residual 109 [119] in bf16; the narrow n of e4m3.
using GemmResident128 = GemmTile<1, 128, 8, 0>;
// e4m3, k up to 512: 65536×1536×512 102 [142], ×2048×512 with GELU 254 [359].
using GemmResident256 = GemmTile<1, 256, 4, 0>;
// bf16 where 256 columns leave the last wave empty: 4095×1536×8960 with gate and residual 163 [170], 256 columns 199.
using GemmShared128 = GemmTile<2, 128, 0, 0>;
// The same with a scale for each 128 of k, as attention's heads have them: 32760×1536×1536 with gate and residual 240
// to 251 (one scale a row: 224 to 234).
using GemmShared192Blocks = GemmTile<2, 192, 0, 1, true>;
