// Tile shapes of the Hopper kernels, one row a head dimension, each with its reason. bench/NOTES.md has the measurements.
#pragma once

/** One forward attention kernel: every warp group owns 64 queries and walks over tiles of `keys` keys. */
template <int headDim>
struct AttentionTile;

#ifndef ATTENTION_32
#define ATTENTION_32 3, 128, 64, 4, 4, 2, true
#endif
#ifndef ATTENTION_64
#define ATTENTION_64 3, 128, 64, 4, 6, 2, true
#endif
#ifndef ATTENTION_128
#define ATTENTION_128 2, 128, 64, 2, 8, 2, false
#endif

template <int groups, int keyCount, int stepKeys, int stageCount, int mufuEighths, int degree, bool ones>
struct AttentionTileRow {
  static constexpr int warpGroups = groups;
  static constexpr int keys = keyCount;
  static constexpr int step = stepKeys;
  static constexpr int stages = stageCount;
  static constexpr int exponentialEighths = mufuEighths;
  static constexpr int polynomialDegree = degree;
  static constexpr bool onesColumn = ones;
};

template <>
struct AttentionTile<32> : AttentionTileRow<ATTENTION_32> {};
template <>
struct AttentionTile<64> : AttentionTileRow<ATTENTION_64> {};
template <>
struct AttentionTile<128> : AttentionTileRow<ATTENTION_128> {};
