// How blocks that all take the same time fill a GPU: those of the last, partly filled wave are shared out by keys.
#pragma once

#include <algorithm>
#include <cstdint>

/** The last `tiles` tiles of queries are computed by `shares` blocks each, each over its part of the keys; the others
 * by one. */
struct LastWave {
  int tiles, shares;
};

/** Takes blocks for all keyTiles tiles of keys, one a multiprocessor at a time; there is room for mostShares partial
 * results. A block costs what its keys cost and a fixed time of about four tiles of keys (its queries, the first
 * products, its output); that shares are joined by a launch of its own costs about twelve. */
inline LastWave shareLastWave(int blocks, int keyTiles, int multiprocessors, int64_t mostShares) {
  constexpr int fixedTiles = 4, joinTiles = 12, fewestTiles = 8;
  const int left = blocks % multiprocessors;
  if (left == 0) return {0, 1};
  int best = 1, bestCost = keyTiles + fixedTiles;
  const int most = static_cast<int>(std::min<int64_t>(keyTiles / fewestTiles, mostShares / left));
  for (int shares = 2; shares <= most; ++shares) {
    const int waves = (left * shares + multiprocessors - 1) / multiprocessors;
    const int cost = waves * ((keyTiles + shares - 1) / shares + fixedTiles) + joinTiles;
    if (cost < bestCost) best = shares, bestCost = cost;
  }
  return best > 1 ? LastWave{left, best} : LastWave{0, 1};
}
