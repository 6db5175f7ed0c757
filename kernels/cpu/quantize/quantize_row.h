// Rows to e4m3 with a scale each, as several operators store them.
#pragma once

#include <algorithm>
#include <cmath>

#include "runtime/tensor.h"

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

}  // namespace ditrun
