// Tile shapes of the Hopper kernels, one row a head dimension, each with its reason. bench/NOTES.md has the measurements.
#pragma once

/** One forward attention kernel: every warp group owns 64 queries and walks over tiles of `keys` keys. */
template <int headDim>
struct AttentionTile;

#ifndef ATTENTION_32
#define ATTENTION_32 3, 128, 4, false, 4, 2, true, 8
#endif
#ifndef ATTENTION_64
#define ATTENTION_64 2, 128, 2, false, 6, 2, true, 8
#endif
#ifndef ATTENTION_128
#define ATTENTION_128 2, 128, 2, false, 8, 2, false, 8
#endif

template <int groups, int keyCount, int stageCount, bool ahead, int mufuEighths, int degree, bool ones, int batch>
struct AttentionTileRow {
  static constexpr int warpGroups = groups;
  static constexpr int keys = keyCount;
  static constexpr int stages = stageCount;
  static constexpr bool scoresAhead = ahead;
  static constexpr int exponentialEighths = mufuEighths;
  static constexpr int polynomialDegree = degree;
  static constexpr bool onesColumn = ones;
  static constexpr int chunksPerBatch = batch;
};

template <>
struct AttentionTile<32> : AttentionTileRow<ATTENTION_32> {};
template <>
struct AttentionTile<64> : AttentionTileRow<ATTENTION_64> {};
template <>
struct AttentionTile<128> : AttentionTileRow<ATTENTION_128> {};
