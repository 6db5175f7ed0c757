// Random weights and noise: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), one
// counter an element.
#include "runtime/device.h"
#include "runtime/numbers.cuh"

__device__ inline uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

// Each multiplication and addition below rounds on its own (no FMA), so that every module gives the same bits.
__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double plus(double a, double b) { return __dadd_rn(a, b); }

/** ln u for 0 < u <= 1, to about 2^-46 of itself: u = 2^e m, m near 1, and the series of ln m = 2 artanh((m - 1) / (m +
 * 1)). */
__device__ inline double logarithm(double u) {
  const uint32_t leastUpper = 0x3fe6a09e;  // the upper half of √½'s bits: m is at least that
  const uint32_t upper = uint32_t(__double2hiint(u));
  const int exponent = int(upper - leastUpper) >> 20;
  const double m = __hiloint2double(int(upper - (uint32_t(exponent) << 20)), __double2loint(u));
  const double s = __ddiv_rn(plus(m, -1.0), plus(m, 1.0)), s2 = times(s, s);
  constexpr double terms[] = {1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0};
  double series = 1.0 / 17.0;
#pragma unroll
  for (int i = 0; i < 8; i++) series = plus(times(series, s2), terms[i]);
  return plus(times(exponent, 0x1.62e42fefa39efp-1), times(times(2.0, s), series));
}

/** sin(π half turns) for |half turns| < ½, to about 2^-44: Taylor's series up to the 17th power. */
__device__ inline double sine(double halfTurns) {
  const double x = times(0x1.921fb54442d18p+1, halfTurns), x2 = times(x, x);
  constexpr double terms[] = {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                              -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0,        1.0};
  double series = 1.0 / 355687428096000.0;
#pragma unroll
  for (int i = 0; i < 8; i++) series = plus(times(series, x2), terms[i]);
  return times(x, series);
}

/** Box and Muller (1958), the half whose angle lies within a quarter turn of zero. */
__device__ inline float normal(uint4 words) {
  // exact, in (0, 1]
  const double u = times(plus(plus(times(words.x, 0x1p21), words.y >> 11), 1.0), 0x1p-53);
  // exact, in (-½, ½)
  const double halfTurns = times(plus(plus(times(int(words.z), 0x1p21), words.w >> 11), 0.5), 0x1p-53);
  return __double2float_rn(times(__dsqrt_rn(times(-2.0, logarithm(u))), sine(halfTurns)));
}

__global__ void fillRandom(const __grid_constant__ ditrun_random_args args) {
  const int64_t count = int64_t(args.rows) * args.columns, threads = int64_t(gridDim.x) * blockDim.x;
  const uint2 key = make_uint2(uint32_t(args.seed), uint32_t(args.seed >> 32));
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    const int64_t row = i / args.columns, column = i - row * args.columns;
    const uint64_t element = uint64_t(args.row0 + row) * uint64_t(args.fullColumns) + uint64_t(args.column0 + column);
    const uint4 words = philox4x32(make_uint4(uint32_t(element), uint32_t(element >> 32), args.tensorId, 0), key);
    const float unit = args.distribution == DITRUN_UNIFORM ? __fadd_rn(__fmul_rn(float(words.x >> 8), 0x1p-23f), -1.0f)
                                                           : normal(words);
    const float value = __fmul_rn(args.amplitude, unit);
    storeOne(asPointer<void>(args.out), row * args.ldo + column, args.outDtype, __fadd_rn(value, args.offset));
  }
}

int ditrun_fill_random(const ditrun_random_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->out == 0 || a->rows < 0 || a->columns <= 0 || a->ldo < a->columns || a->row0 < 0 || a->column0 < 0 ||
      a->column0 + a->columns > a->fullColumns)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_fill_random got %d rows and columns %lld to %lld of %lld, with a stride of %lld.",
                a ? a->rows : 0, (long long)(a ? a->column0 : 0), (long long)(a ? a->column0 + a->columns : 0),
                (long long)(a ? a->fullColumns : 0), (long long)(a ? a->ldo : 0));
  if (!isFloatOrF16(a->outDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_fill_random writes f32, bf16 or f16, not %s (dtype %d).",
                dtypeName(a->outDtype), a->outDtype);
  if (a->distribution != DITRUN_UNIFORM && a->distribution != DITRUN_NORMAL)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_fill_random knows no distribution %d (0 uniform, 1 normal).",
                a->distribution);
  if (a->rows == 0) return DITRUN_OK;
  fillRandom<<<gridFor(int64_t(a->rows) * a->columns, 256, deviceFacts().multiprocessors), 256, 0, asStream(stream)>>>(
      *a);
  return launched("ditrun_fill_random");
}
