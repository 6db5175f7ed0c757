// Sums over a row, in an order that depends on its length alone.
#pragma once

#include "runtime/numbers.h"

namespace ditrun {

inline float sum(const float *x, int64_t count) {
  v8 parts[2] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    parts[0] += load8(x + i);
    parts[1] += load8(x + i + 8);
  }
  float rest = 0.0f;
  for (; i < count; i++) rest += x[i];
  return sum8(parts[0] + parts[1]) + rest;
}

inline float sumOfSquares(const float *x, float mean, int64_t count) {
  v8 parts[2] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const v8 a = load8(x + i) - mean;
    const v8 b = load8(x + i + 8) - mean;
    parts[0] += a * a;
    parts[1] += b * b;
  }
  float rest = 0.0f;
  for (; i < count; i++) rest += (x[i] - mean) * (x[i] - mean);
  return sum8(parts[0] + parts[1]) + rest;
}

}  // namespace ditrun
