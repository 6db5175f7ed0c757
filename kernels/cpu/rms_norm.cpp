// y = activation(x * rsqrt(mean(x²) + epsilon) * weight), then the rotary embedding (arXiv 1910.07467, 2104.09864).
#include <cmath>

#include "activation.h"
#include "scratch.h"
#include "stream.h"
#include "tensor.h"

namespace ditrun {
namespace {

float sumOfSquares(const float *x, int64_t count) {
  v8 parts[2] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    parts[0] += load8(x + i) * load8(x + i);
    parts[1] += load8(x + i + 8) * load8(x + i + 8);
  }
  float rest = 0.0f;
  for (; i < count; i++) rest += x[i] * x[i];
  return sum8(parts[0] + parts[1]) + rest;
}

/** Turns adjacent pairs; table [headDim] holds cos and sin of each pair and serves every head of the row. */
void rotate(float *x, int64_t columns, const float *table, int64_t headDim) {
  for (int64_t i = 0; i + 1 < columns; i += 2) {
    const float cosine = table[i % headDim];
    const float sine = table[i % headDim + 1];
    const float a = x[i];
    const float b = x[i + 1];
    x[i] = a * cosine - b * sine;
    x[i + 1] = a * sine + b * cosine;
  }
}

void rmsNorm(const ditrun_rms_norm_args &n) {
  const int64_t columns = n.columns;
  const int64_t perThread = (columns + 15) / 16 * 16;
  float *const shared = scratch((1 + omp_get_max_threads()) * perThread);
  std::fill(shared, shared + (1 + omp_get_max_threads()) * perThread, 0.0f);
  const float *const weight = n.weight == 0 ? nullptr : readRun(n.weight, n.weightDtype, 0, columns, shared);
#pragma omp parallel for schedule(static) if (n.rows * columns > parallelWork)
  for (int64_t row = 0; row < n.rows; row++) {
    float *const y = shared + (1 + omp_get_thread_num()) * perThread;
    copyRun(n.x, n.xDtype, row * n.ldx, columns, y);
    const float squares = n.sumSquares == 0 ? sumOfSquares(y, columns) : pointer<const float>(n.sumSquares)[row];
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n.fullColumns) + n.epsilon);
    for (int64_t i = 0; i < columns; i++) y[i] *= inverse;
    if (weight != nullptr) {
      for (int64_t i = 0; i < columns; i++) y[i] *= weight[i];
    }
    activateRun(y, columns, n.activation);
    if (n.rope != 0) rotate(y, columns, pointer<const float>(n.rope) + row * n.headDim, n.headDim);
    writeRun(n.out, n.outDtype, row * n.ldo, columns, y);
  }
}

}  // namespace
}  // namespace ditrun

int ditrun_rms_norm(const ditrun_rms_norm_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    const char *const f = "ditrun_rms_norm";
    require(args != nullptr, f, ": args is null.");
    const ditrun_rms_norm_args n = *args;
    require(n.rows > 0 && n.columns > 0, f, ": rows and columns are ", n.rows, " and ", n.columns,
            " but must be positive.");
    require(n.fullColumns >= n.columns, f, ": fullColumns is ", n.fullColumns, " but x holds ", n.columns,
            " of them already.");
    require(n.sumSquares != 0 || n.fullColumns == n.columns, f, ": x holds ", n.columns, " of ", n.fullColumns,
            " columns, so sumSquares is needed.");
    require(n.ldx >= n.columns && n.ldo >= n.columns, f, ": ldx and ldo are ", n.ldx, " and ", n.ldo,
            " but a row has ", n.columns, " elements.");
    require(n.activation >= DITRUN_IDENTITY && n.activation <= DITRUN_SILU, f, ": activation is ", n.activation,
            " but must be 0 to 3.");
    require(n.rope == 0 || (n.headDim > 0 && n.headDim % 2 == 0 && n.columns % n.headDim == 0), f, ": headDim is ",
            n.headDim, " but must be even and divide the ", n.columns, " columns.");
    requireDtype(f, "xDtype", n.xDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "outDtype", n.outDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "x", n.x, dtypeBytes(n.xDtype));
    requireAddress(f, "out", n.out, dtypeBytes(n.outDtype));
    if (n.weight != 0) {
      requireDtype(f, "weightDtype", n.weightDtype, DITRUN_F32, DITRUN_BF16);
      requireAddress(f, "weight", n.weight, dtypeBytes(n.weightDtype));
    }
    requireOptional(f, "sumSquares", n.sumSquares, 4);
    requireOptional(f, "rope", n.rope, 4);
    submit(f, stream, [n](Stream &) { rmsNorm(n); });
  });
}
