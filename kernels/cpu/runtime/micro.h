// The matrix product all others are made of: 6 rows by one panel of 16 columns, kept in 12 vector registers while k
// runs (12 accumulators, 2 for the panel, 1 for the row's element: 15 of AVX2's 16).
#pragma once

#include "runtime/numbers.h"

namespace ditrun {

constexpr int microRows = 6;
constexpr int panelColumns = 16;

/**
 * c[R, 16] (+)= a[R, k] · panel[k, 16]; a and c with leading dimensions lda and ldc, the panel contiguous.
 */
template <int R, bool Accumulate>
inline void micro(const float *a, int64_t lda, const float *panel, int64_t k, float *c, int64_t ldc) {
  v8 sum[R][2] = {};
  for (int64_t i = 0; i < k; i++) {
    const v8 left = load8(panel + i * panelColumns);
    const v8 right = load8(panel + i * panelColumns + 8);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
      const v8 x = all8(a[r * lda + i]);
      sum[r][0] += x * left;
      sum[r][1] += x * right;
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; r++) {
    // Adding what is there last, not first, makes a sum of partial sums: its rounding error grows more slowly with k.
    store8(c + r * ldc, Accumulate ? load8(c + r * ldc) + sum[r][0] : sum[r][0]);
    store8(c + r * ldc + 8, Accumulate ? load8(c + r * ldc + 8) + sum[r][1] : sum[r][1]);
  }
}

/** c[rows, 16] (+)= a[rows, k] · panel[k, 16] for any number of rows. */
template <bool Accumulate>
inline void multiplyPanel(int64_t rows, const float *a, int64_t lda, const float *panel, int64_t k, float *c,
                          int64_t ldc) {
  int64_t r = 0;
  for (; r + microRows <= rows; r += microRows) micro<6, Accumulate>(a + r * lda, lda, panel, k, c + r * ldc, ldc);
  a += r * lda;
  c += r * ldc;
  switch (rows - r) {
    case 1:
      return micro<1, Accumulate>(a, lda, panel, k, c, ldc);
    case 2:
      return micro<2, Accumulate>(a, lda, panel, k, c, ldc);
    case 3:
      return micro<3, Accumulate>(a, lda, panel, k, c, ldc);
    case 4:
      return micro<4, Accumulate>(a, lda, panel, k, c, ldc);
    case 5:
      return micro<5, Accumulate>(a, lda, panel, k, c, ldc);
    default:
      return;
  }
}

/** Turns 8 rows of 8 into 8 columns. */
inline void transpose8(const v8 (&in)[8], v8 (&out)[8]) {
  v8 pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = shuffle8<0, 8, 2, 10, 4, 12, 6, 14>(in[i], in[i + 1]);
    pairs[i + 1] = shuffle8<1, 9, 3, 11, 5, 13, 7, 15>(in[i], in[i + 1]);
  }
  v8 quads[8];
  for (int half = 0; half < 8; half += 4) {
    for (int i = 0; i < 2; i++) {
      quads[half + i] = shuffle8<0, 1, 8, 9, 4, 5, 12, 13>(pairs[half + i], pairs[half + i + 2]);
      quads[half + i + 2] = shuffle8<2, 3, 10, 11, 6, 7, 14, 15>(pairs[half + i], pairs[half + i + 2]);
    }
  }
  for (int i = 0; i < 4; i++) {
    out[i] = shuffle8<0, 1, 2, 3, 8, 9, 10, 11>(quads[i], quads[i + 4]);
    out[i + 4] = shuffle8<4, 5, 6, 7, 12, 13, 14, 15>(quads[i], quads[i + 4]);
  }
}

/**
 * panel[k, 16] = the transpose of `rows` (at most 16) rows of k float32 elements, missing rows as zeros.
 * row(r) gives the address of row r.
 */
template <class Row>
inline void packPanel(int64_t rows, int64_t k, const Row &row, float *panel) {
  for (int half = 0; half < panelColumns; half += 8) {
    const float *from[8];
    bool whole = true;
    for (int r = 0; r < 8; r++) {
      const bool exists = half + r < rows;
      from[r] = exists ? row(half + r) : nullptr;
      whole = whole && exists;
    }
    int64_t i = 0;
    for (; whole && i + 8 <= k; i += 8) {
      v8 in[8];
      v8 out[8];
      for (int r = 0; r < 8; r++) in[r] = load8(from[r] + i);
      transpose8(in, out);
      for (int r = 0; r < 8; r++) store8(panel + (i + r) * panelColumns + half, out[r]);
    }
    for (; i < k; i++) {
      for (int r = 0; r < 8; r++) panel[i * panelColumns + half + r] = from[r] == nullptr ? 0.0f : from[r][i];
    }
  }
}

}  // namespace ditrun
