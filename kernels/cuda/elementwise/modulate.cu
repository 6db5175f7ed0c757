// Elementwise operators of Wan's blocks and sampler: gated residual, linear combination of samples.
#include "runtime/operands.h"

// ---- out[r, c] = x[r, c] + y[r, c] * gate[c] ----

struct Gated {
  void *out;
  const void *x, *y;
  const float *gate;
  int rows, columns;
  bool xBf16, yBf16;
};

/** A thread keeps the gate of its columns and walks down the rows, four of them in flight. out may be x. */
template <int width>
__global__ void __launch_bounds__(128) addGatedVectors(const __grid_constant__ Gated args) {
  constexpr int inFlight = 4;
  const int column = (blockIdx.x * 128 + threadIdx.x) * width;
  if (column >= args.columns) return;
  float gate[width];
  loadRun(args.gate, column, false, gate);
  for (int first = blockIdx.y * inFlight; first < args.rows; first += gridDim.y * inFlight) {
    float x[inFlight][width], y[inFlight][width];
#pragma unroll
    for (int i = 0; i < inFlight; i++) {
      if (first + i >= args.rows) continue;
      const int64_t at = int64_t(first + i) * args.columns + column;
      loadRun(args.x, at, width == 8, x[i]);
      loadRun(args.y, at, args.yBf16, y[i]);
    }
#pragma unroll
    for (int i = 0; i < inFlight; i++) {
      if (first + i >= args.rows) continue;
#pragma unroll
      for (int j = 0; j < width; j++) x[i][j] += y[i][j] * gate[j];
      storeRun(args.out, int64_t(first + i) * args.columns + column, width == 8, x[i]);
    }
  }
}

__global__ void addGatedOnes(const __grid_constant__ Gated args) {
  const int xDtype = args.xBf16 ? DITRUN_BF16 : DITRUN_F32, yDtype = args.yBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t count = int64_t(args.rows) * args.columns, threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads)
    storeOne(args.out, i, xDtype,
             loadOne(args.x, i, xDtype) + loadOne(args.y, i, yDtype) * args.gate[i % args.columns]);
}

int ditrun_add_gated(uint64_t out, uint64_t x, int xDtype, uint64_t y, int yDtype, uint64_t gate, int rows, int columns,
                     uint64_t stream) {
  const char *const what = "ditrun_add_gated";
  TRY(useDevice());
  if (!isFloat(xDtype) || !isFloat(yDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, got x %s and y %s.", what, dtypeName(xDtype),
                dtypeName(yDtype));
  if (rows < 0 || columns <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got %d rows of %d columns.", what, rows, columns);
  if (rows == 0) return DITRUN_OK;
  TRY(checkAddress(what, "out", out, xDtype));
  TRY(checkAddress(what, "x", x, xDtype));
  TRY(checkAddress(what, "y", y, yDtype));
  TRY(checkAddress(what, "the gate", gate, DITRUN_F32));
  const Gated args{
      asPointer<void>(out),  asPointer<void>(x),   asPointer<void>(y), asPointer<float>(gate), rows, columns,
      xDtype == DITRUN_BF16, yDtype == DITRUN_BF16};
  const int multiprocessors = deviceFacts().multiprocessors;
  if (columns % vectorWidth == 0 && aligned16(out) && aligned16(x) && aligned16(y) && aligned16(gate)) {
    const int width = args.xBf16 ? 8 : 4, across = (columns / width + 127) / 128,
              most = (multiprocessors * 64 + across - 1) / across, down = (rows + 3) / 4;
    const auto kernel = args.xBf16 ? addGatedVectors<8> : addGatedVectors<4>;
    kernel<<<dim3(across, down < most ? down : most), 128, 0, asStream(stream)>>>(args);
  } else {
    addGatedOnes<<<gridFor(int64_t(rows) * columns, 256, multiprocessors), 256, 0, asStream(stream)>>>(args);
  }
  return launched(what);
}

// ---- out[i] = Σ_s coefficients[s] * sources[s][i] ----

constexpr int mostTerms = 8;
struct Terms {
  const float *source[mostTerms];
  float coefficient[mostTerms];
  int count;
};

/** A run is read from every source before it is written: out may be any of them. */
template <int width>
__global__ void combineTerms(float *out, const __grid_constant__ Terms terms, int64_t runs) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < runs; i += threads) {
    float x[mostTerms][width] = {};
#pragma unroll
    for (int s = 0; s < mostTerms; s++) {
      if (s >= terms.count) continue;
      if constexpr (width == 4) loadRun(terms.source[s], i * width, false, x[s]);
      else x[s][0] = terms.source[s][i];
    }
    float total[width] = {};
#pragma unroll
    for (int s = 0; s < mostTerms; s++) {
      if (s >= terms.count) continue;
#pragma unroll
      for (int j = 0; j < width; j++) total[j] = fmaf(terms.coefficient[s], x[s][j], total[j]);
    }
    if constexpr (width == 4) storeRun(out, i * width, false, total);
    else out[i] = total[0];
  }
}

int ditrun_combine(uint64_t out, const uint64_t *sources, const float *coefficients, int sourceCount, int64_t count,
                   uint64_t stream) {
  const char *const what = "ditrun_combine";
  TRY(useDevice());
  if (sourceCount < 1 || sourceCount > mostTerms || !sources || !coefficients)
    return fail(DITRUN_INVALID_ARGUMENT, "%s adds 1 to %d sources with a coefficient each, got %d.", what, mostTerms,
                sourceCount);
  if (count < 0) return fail(DITRUN_INVALID_ARGUMENT, "%s got a count of %lld.", what, (long long)count);
  if (count == 0) return DITRUN_OK;
  TRY(checkAddress(what, "out", out, DITRUN_F32));
  Terms terms{};
  terms.count = sourceCount;
  bool vectorized = count % 4 == 0 && aligned16(out);
  for (int s = 0; s < sourceCount; s++) {
    TRY(checkAddress(what, "a source", sources[s], DITRUN_F32));
    vectorized = vectorized && aligned16(sources[s]);
    terms.source[s] = asPointer<float>(sources[s]);
    terms.coefficient[s] = coefficients[s];
  }
  const int64_t runs = vectorized ? count / 4 : count;
  const auto kernel = vectorized ? combineTerms<4> : combineTerms<1>;
  kernel<<<gridFor(runs, 256, deviceFacts().multiprocessors), 256, 0, asStream(stream)>>>(asPointer<float>(out), terms,
                                                                                          runs);
  return launched(what);
}
