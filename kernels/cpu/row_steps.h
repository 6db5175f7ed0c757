// What several operators do to a row of float32 before they store it.
#pragma once

#include <algorithm>
#include <cmath>

#include "tensor.h"

namespace ditrun {

/** Below it a row counts as zeros; keeps the scale a normal number. */
inline constexpr float smallestAmax = 1e-12f;

/** scale = max(amax, smallestAmax) / 448; out = x / scale as e4m3. Overwrites x with the quotients. */
inline void quantizeRow(float *x, int64_t count, uint64_t out, int64_t first, float *scale) {
  float amax = 0.0f;
  for (int64_t i = 0; i < count; i++) amax = std::max(amax, std::fabs(x[i]));
  *scale = std::max(amax, smallestAmax) / 448.0f;
  for (int64_t i = 0; i < count; i++) x[i] /= *scale;
  writeRun(out, DITRUN_E4M3, first, count, x);
}

/** Adjacent pairs (a, b) of each head turn by their angle: (a cos - b sin, a sin + b cos). turns [headDim]: cos, sin in turn. */
inline void rotate(float *y, int64_t columns, const float *turns, int64_t headDim) {
  for (int64_t head = 0; head < columns; head += headDim) {
    float *const x = y + head;
    for (int64_t i = 0; i < headDim; i += 2) {
      const float a = x[i];
      const float b = x[i + 1];
      x[i] = a * turns[i] - b * turns[i + 1];
      x[i + 1] = a * turns[i + 1] + b * turns[i];
    }
  }
}

}  // namespace ditrun
