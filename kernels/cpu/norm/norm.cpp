// LayerNorm with modulation, RMSNorm with rotary embedding.
#include <cmath>

#include "elementwise/activation.h"
#include "norm/sums.h"
#include "quantize/quantize_row.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** mean and variance in two passes over the row (the variance is the mean of squares, as torch.nn.LayerNorm takes it).
 */
void layerNorm(const ditrun_layer_norm_args &n) {
  const int64_t columns = n.columns;
  const int64_t perThread = (columns + 15) / 16 * 16;
  float *const shared = scratch((2 + 2 * threadCount()) * perThread);
  const float *const weight = n.weight == 0 ? nullptr : readRun(n.weight, n.weightDtype, 0, columns, shared);
  const float *const bias = n.bias == 0 ? nullptr : readRun(n.bias, n.weightDtype, 0, columns, shared + perThread);
  parallelFor(n.rows, n.rows * columns > parallelWork, [&](int64_t row, int64_t thread) {
    float *const decoded = shared + (2 + 2 * thread) * perThread;
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
    if (n.modScale != 0) {
      const float *const modScale = pointer<const float>(n.modScale);
      const float *const modShift = pointer<const float>(n.modShift);
      for (int64_t i = 0; i < columns; i++) y[i] = y[i] * (1.0f + modScale[i]) + modShift[i];
    }
    if (n.out != 0) writeRun(n.out, n.outDtype, row * n.ldo, columns, y);
    if (n.bound != 0) {
      pointer<float>(n.bound)[row] = n.boundFactor * std::sqrt(sumOfSquares(y, 0.0f, columns)) + n.boundTerm;
    }
    if (n.quantized != 0) quantizeRow(y, columns, n.quantized, row * columns, pointer<float>(n.quantizedScale) + row);
  });
}

/** Adjacent pairs (a, b) of each head turn by their angle: (a cos - b sin, a sin + b cos). turns [headDim]: cos, sin in
 * turn. */
void rotate(float *y, int64_t columns, const float *turns, int64_t headDim) {
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

void rmsNorm(const ditrun_rms_norm_args &n) {
  const int64_t columns = n.columns;
  const int64_t padded = (columns + 15) / 16 * 16;  // activateRun works in eights
  float *const shared = scratch((1 + threadCount()) * padded);
  const float *const weight = n.weight == 0 ? nullptr : readRun(n.weight, n.weightDtype, 0, columns, shared);
  parallelFor(n.rows, n.rows * columns > parallelWork, [&](int64_t row, int64_t thread) {
    float *const y = shared + (1 + thread) * padded;
    copyRun(n.x, n.xDtype, row * n.ldx, columns, y);
    const float squares = n.sumSquares != 0 ? pointer<const float>(n.sumSquares)[row] : sumOfSquares(y, 0.0f, columns);
    const int64_t counted = n.sumSquares != 0 ? n.fullColumns : columns;
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(counted) + n.epsilon);
    for (int64_t i = 0; i < columns; i++) y[i] *= inverse;
    if (weight != nullptr) {
      for (int64_t i = 0; i < columns; i++) y[i] *= weight[i];
    }
    activateRun(y, columns, n.activation);
    if (n.rope != 0) rotate(y, columns, pointer<const float>(n.rope) + row * n.headDim, n.headDim);
    const int64_t group = n.groupRows == 0 ? 0 : row / n.groupRows;
    const int64_t outStart = group * n.groupStride + (row - group * n.groupRows) * n.ldo;
    if (n.out != 0) writeRun(n.out, n.outDtype, outStart, columns, y);
    if (n.quantized == 0) return;
    for (int64_t head = 0; head < columns / n.headDim; head++) {
      float *const scale = pointer<float>(n.quantizedScale) + row * (columns / n.headDim) + head;
      quantizeRow(y + head * n.headDim, n.headDim, n.quantized, row * columns + head * n.headDim, scale);
    }
  });
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
    requireOptional(f, "bound", n.bound, 4);
    require(n.bound == 0 || n.quantized != 0, f, ": a bound is written beside e4m3 rows only, but quantized is 0.");
    require((n.modScale == 0) == (n.modShift == 0), f, ": modScale and modShift are needed together, but one is 0.");
    requireOptional(f, "modScale", n.modScale, 4);
    requireOptional(f, "modShift", n.modShift, 4);
    submit(f, stream, [n](Stream &) { layerNorm(n); });
  });
}

int ditrun_rms_norm(const ditrun_rms_norm_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_rms_norm";
    require(args != nullptr, f, ": args is null.");
    const ditrun_rms_norm_args n = *args;
    require(n.rows > 0 && n.columns > 0, f, ": rows and columns are ", n.rows, " and ", n.columns,
            " but must be positive.");
    require((n.out == 0) != (n.quantized == 0), f, ": out and quantized are ", n.out, " and ", n.quantized,
            " but one of them, and only one, must be given.");
    require(n.ldx >= n.columns && (n.out == 0 || n.ldo >= n.columns), f, ": ldx is ", n.ldx, " and ldo ", n.ldo,
            " but a row has ", n.columns, " elements.");
    require(n.groupRows >= 0, f, ": groupRows is ", n.groupRows, " but must be 0 or the rows of a group.");
    if (n.groupRows > 0) {
      require(n.out != 0 && n.out != n.x, f, ": groups of ", n.groupRows, " rows need an out other than x, but out is ",
              n.out, " and x ", n.x, ".");
      require(n.groupStride >= (n.groupRows - 1) * n.ldo + n.columns, f, ": groupStride is ", n.groupStride,
              " but a group of ", n.groupRows, " rows, ", n.ldo, " apart, has ", (n.groupRows - 1) * n.ldo + n.columns,
              " elements.");
    }
    requireDtype(f, "xDtype", n.xDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "x", n.x, dtypeBytes(n.xDtype));
    if (n.out != 0) {
      requireDtype(f, "outDtype", n.outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
      requireOneNarrow(f, {n.xDtype, n.outDtype});
      requireAddress(f, "out", n.out, dtypeBytes(n.outDtype));
    } else {
      requireAddress(f, "quantizedScale", n.quantizedScale, 4);
    }
    if (n.weight != 0) {
      requireDtype(f, "weightDtype", n.weightDtype, DITRUN_F32, DITRUN_BF16);
      requireAddress(f, "weight", n.weight, dtypeBytes(n.weightDtype));
    }
    require(n.activation >= DITRUN_IDENTITY && n.activation <= DITRUN_SILU, f, ": activation is ", n.activation,
            " but must be 0 to 3.");
    if (n.sumSquares != 0) {
      requireAddress(f, "sumSquares", n.sumSquares, 4);
      require(n.fullColumns >= n.columns, f, ": sumSquares is of ", n.fullColumns, " columns, fewer than the ",
              n.columns, " of x.");
    }
    requireOptional(f, "rope", n.rope, 4);
    if (n.rope != 0 || n.quantized != 0) {
      require(n.headDim > 0 && n.headDim % 2 == 0 && n.columns % n.headDim == 0, f, ": headDim is ", n.headDim,
              " but must be even and divide the ", n.columns, " columns.");
    }
    submit(f, stream, [n](Stream &) { rmsNorm(n); });
  });
}

int ditrun_row_sum_squares(uint64_t out, uint64_t x, int64_t ldx, int rows, int columns, int xDtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_row_sum_squares";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    require(ldx >= columns, f, ": ldx is ", ldx, " but a row has ", columns, " elements.");
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, 4);
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    submit(f, stream, [=](Stream &) {
      float *const buffers = scratch(threadCount() * columns);
      parallelFor(rows, int64_t(rows) * columns > parallelWork, [&](int64_t row, int64_t thread) {
        float *const buffer = buffers + thread * columns;
        pointer<float>(out)[row] = sumOfSquares(readRun(x, xDtype, row * ldx, columns, buffer), 0.0f, columns);
      });
    });
  });
}
