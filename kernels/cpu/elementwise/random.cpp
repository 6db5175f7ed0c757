// Random tensors from a counter: every rank of every layout makes its part of the same full tensor.
#include <cmath>

#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** words[w][i], w < 4: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; SC 2011)
 * of element first + i. */
void philox(const ditrun_random_args &a, uint64_t first, int64_t length, uint32_t (*words)[runLength]) {
#pragma omp simd
  for (int64_t i = 0; i < length; i++) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    auto x = static_cast<uint32_t>(index), y = static_cast<uint32_t>(index >> 32), z = a.tensorId, w = uint32_t{0};
    auto key0 = static_cast<uint32_t>(a.seed), key1 = static_cast<uint32_t>(a.seed >> 32);
    for (int round = 0; round < 10; round++) {
      const uint64_t product0 = uint64_t{0xD2511F53} * x, product1 = uint64_t{0xCD9E8D57} * z;
      x = static_cast<uint32_t>(product1 >> 32) ^ y ^ key0;
      y = static_cast<uint32_t>(product1);
      z = static_cast<uint32_t>(product0 >> 32) ^ w ^ key1;
      w = static_cast<uint32_t>(product0);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    words[0][i] = x;
    words[1][i] = y;
    words[2][i] = z;
    words[3][i] = w;
  }
}

// Each operation below rounds once, to float64 or float32 (this file is compiled without fused multiply-adds).

/** ln u for 0 < u <= 1, to about 2^-46 of itself: u = 2^e m, m near 1, and the series of ln m = 2 artanh((m - 1) / (m +
 * 1)). */
inline double logarithm(double u) {
  const auto bits = bitCast<uint64_t>(u);
  const uint32_t leastUpper = 0x3fe6a09e;  // the upper half of √½'s bits: m is at least that
  const auto upper = static_cast<uint32_t>(bits >> 32);
  const int32_t exponent = static_cast<int32_t>(upper - leastUpper) >> 20;
  const uint32_t upperOfM = upper - (static_cast<uint32_t>(exponent) << 20);
  const auto m = bitCast<double>(uint64_t{upperOfM} << 32 | (bits & 0xffffffff));
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double series = 1.0 / 17.0;
  for (const double next : {1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0})
    series = series * s2 + next;
  return exponent * 0x1.62e42fefa39efp-1 + 2.0 * s * series;
}

/** sin(π half turns) for |half turns| < ½, to about 2^-44: Taylor's series up to the 17th power. */
inline double sine(double halfTurns) {
  const double x = 0x1.921fb54442d18p+1 * halfTurns, x2 = x * x;
  double series = 1.0 / 355687428096000.0;
  for (const double next : {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                            -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0})
    series = series * x2 + next;
  return x * series;
}

/** Box and Muller (1958), the half whose angle lies within a quarter turn of zero. */
inline float normal(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
  const double u = (w0 * 0x1p21 + (w1 >> 11) + 1.0) * 0x1p-53;                                // exact, in (0, 1]
  const double halfTurns = (static_cast<int32_t>(w2) * 0x1p21 + (w3 >> 11) + 0.5) * 0x1p-53;  // exact, in (-½, ½)
  return static_cast<float>(std::sqrt(-2.0 * logarithm(u)) * sine(halfTurns));
}

/** Elements first … first + length of the full tensor, length <= runLength. */
void elements(const ditrun_random_args &a, uint64_t first, int64_t length, float *out) {
  uint32_t words[4][runLength];
  philox(a, first, length, words);
  if (a.distribution == DITRUN_UNIFORM) {
    for (int64_t i = 0; i < length; i++) out[i] = static_cast<float>(words[0][i] >> 8) * 0x1p-23f - 1.0f;  // exact
  } else {
    for (int64_t i = 0; i < length; i++) out[i] = normal(words[0][i], words[1][i], words[2][i], words[3][i]);
  }
  for (int64_t i = 0; i < length; i++) out[i] = a.amplitude * out[i] + a.offset;
}

void fill(const ditrun_random_args &a) {
  parallelFor(a.rows, int64_t(a.rows) * a.columns > parallelWork / 8, [&](int64_t row, int64_t) {
    for (int64_t c0 = 0; c0 < a.columns; c0 += runLength) {
      float buffer[runLength];
      const int64_t length = std::min<int64_t>(runLength, a.columns - c0);
      const auto first = static_cast<uint64_t>((a.row0 + row) * a.fullColumns + a.column0 + c0);
      elements(a, first, length, buffer);
      writeRun(a.out, a.outDtype, row * a.ldo + c0, length, buffer);
    }
  });
}

}  // namespace
}  // namespace ditrun

int ditrun_fill_random(const ditrun_random_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    const char *const f = "ditrun_fill_random";
    require(args != nullptr, f, ": args is null.");
    const ditrun_random_args a = *args;
    require(a.rows > 0 && a.columns > 0, f, ": rows and columns are ", a.rows, " and ", a.columns,
            " but must be positive.");
    require(a.row0 >= 0 && a.column0 >= 0 && a.column0 + a.columns <= a.fullColumns, f, ": rows from ", a.row0,
            " and columns ", a.column0, " to ", a.column0 + a.columns, " do not lie in a tensor of ", a.fullColumns,
            " columns.");
    require(a.ldo >= a.columns, f, ": ldo is ", a.ldo, " but a row has ", a.columns, " elements.");
    require(a.distribution == DITRUN_UNIFORM || a.distribution == DITRUN_NORMAL, f, ": distribution is ",
            a.distribution, " but must be 0 (uniform) or 1 (normal).");
    requireDtype(f, "outDtype", a.outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "out", a.out, dtypeBytes(a.outDtype));
    submit(f, stream, [a](Stream &) { fill(a); });
  });
}
