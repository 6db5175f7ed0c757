// LayerNorm and the per-row quantisation to e4m3, alone or together.
#include <cmath>

#include "scratch.h"
#include "stream.h"
#include "tensor.h"

namespace ditrun {
namespace {

/** Below it a row counts as zeros; keeps the scale a normal number. */
constexpr float tiny = 1e-12f;

float sum(const float *x, int64_t count) {
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

float sumOfSquares(const float *x, float mean, int64_t count) {
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

/** scale = max(amax, tiny) / 448; out = x / scale as e4m3. Overwrites x with the quotients. */
void quantizeRow(float *x, int64_t count, uint64_t out, int64_t first, float *scale) {
  float amax = 0.0f;
  for (int64_t i = 0; i < count; i++) amax = std::max(amax, std::fabs(x[i]));
  *scale = std::max(amax, tiny) / 448.0f;
  for (int64_t i = 0; i < count; i++) x[i] /= *scale;
  writeRun(out, DITRUN_E4M3, first, count, x);
}

/** mean and variance in two passes over the row (the variance is the mean of squares, as torch.nn.LayerNorm takes it). */
void layerNorm(const ditrun_layer_norm_args &n) {
  const int64_t columns = n.columns;
  const int64_t perThread = (columns + 15) / 16 * 16;
  float *const shared = scratch((2 + 2 * omp_get_max_threads()) * perThread);
  const float *const weight = n.weight == 0 ? nullptr : readRun(n.weight, n.weightDtype, 0, columns, shared);
  const float *const bias = n.bias == 0 ? nullptr : readRun(n.bias, n.weightDtype, 0, columns, shared + perThread);
#pragma omp parallel for schedule(static) if (n.rows * columns > parallelWork)
  for (int64_t row = 0; row < n.rows; row++) {
    float *const decoded = shared + (2 + 2 * omp_get_thread_num()) * perThread;
    float *const y = decoded + perThread;
    const float *const x = readRun(n.x, n.xDtype, row * n.ldx, columns, decoded);
    const float mean = sum(x, columns) / static_cast<float>(columns);
    const float variance = sumOfSquares(x, mean, columns) / static_cast<float>(columns);
    const float inverse = 1.0f / std::sqrt(variance + n.epsilon);
    for (int64_t i = 0; i < columns; i++) y[i] = (x[i] - mean) * inverse;
    if (weight != nullptr) {
      for (int64_t i = 0; i < columns; i++) y[i] *= weight[i];
    }
    if (bias != nullptr) {
      for (int64_t i = 0; i < columns; i++) y[i] += bias[i];
    }
    if (n.out != 0) writeRun(n.out, n.outDtype, row * n.ldo, columns, y);
    if (n.quantized != 0) quantizeRow(y, columns, n.quantized, row * columns, pointer<float>(n.quantizedScale) + row);
  }
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_layer_norm(const ditrun_layer_norm_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_layer_norm";
    require(args != nullptr, f, ": args is null.");
    const ditrun_layer_norm_args n = *args;
    require(n.rows > 0 && n.columns > 0, f, ": rows and columns are ", n.rows, " and ", n.columns,
            " but must be positive.");
    require(n.ldx >= n.columns, f, ": ldx is ", n.ldx, " but a row has ", n.columns, " elements.");
    require(n.out != 0 || n.quantized != 0, f, ": out and quantized are both 0, so there is nothing to write.");
    requireDtype(f, "xDtype", n.xDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "x", n.x, dtypeBytes(n.xDtype));
    if (n.out != 0) {
      requireDtype(f, "outDtype", n.outDtype, DITRUN_F32, DITRUN_BF16);
      requireAddress(f, "out", n.out, dtypeBytes(n.outDtype));
      require(n.ldo >= n.columns, f, ": ldo is ", n.ldo, " but a row has ", n.columns, " elements.");
    }
    if (n.weight != 0 || n.bias != 0) requireDtype(f, "weightDtype", n.weightDtype, DITRUN_F32, DITRUN_BF16);
    requireOptional(f, "weight", n.weight, dtypeBytes(n.weightDtype));
    requireOptional(f, "bias", n.bias, dtypeBytes(n.weightDtype));
    if (n.quantized != 0) requireAddress(f, "quantizedScale", n.quantizedScale, 4);
    submit(f, stream, [n](Stream &) { layerNorm(n); });
  });
}

int ditrun_quantize_rows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns, int xDtype,
                         uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_quantize_rows";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    require(ldx >= columns, f, ": ldx is ", ldx, " but a row has ", columns, " elements.");
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, 1);
    requireAddress(f, "scale", scale, 4);
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    submit(f, stream, [=](Stream &) {
      float *const buffers = scratch(static_cast<int64_t>(omp_get_max_threads()) * columns);
#pragma omp parallel for schedule(static) if (static_cast<int64_t>(rows) * columns > parallelWork)
      for (int64_t row = 0; row < rows; row++) {
        float *const y = buffers + static_cast<int64_t>(omp_get_thread_num()) * columns;
        copyRun(x, xDtype, row * ldx, columns, y);
        quantizeRow(y, columns, out, row * columns, pointer<float>(scale) + row);
      }
    });
  });
}
