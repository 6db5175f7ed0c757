// out[b] = gate * activation(alpha * A[b] · W[b]ᵀ + bias[b]) + residual[b]
//
// W is packed once into panels of 16 of its rows (output columns), decoded to float32. A task takes a strip of rows of
// A, decodes it, and walks the panels: k in runs that keep a panel in the first-level cache, 256 output columns at a
// time so that their sums stay in the second-level cache until the epilogue rounds and stores them. (Goto & van de
// Geijn 2008.)
#include <algorithm>
#include <limits>

#include "elementwise/activation.h"
#include "runtime/micro.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

constexpr int64_t stripRows = 48;
constexpr int64_t blockColumns = 256;
constexpr int64_t blockDepth = 256;
constexpr int64_t padding = 16;                     // of a strip's rows: no power-of-two stride between them
constexpr int64_t packedFloats = int64_t{4} << 20;  // of W at a time

struct Gemm : ditrun_gemm_args {
  /** Row strips from `first`: bias, activation, residual, rounding. sums is [rows, blockColumns]. */
  void finish(int64_t b, int64_t row0, int64_t rows, int64_t column0, int64_t columns, float *sums) const {
    float biasRun[blockColumns];
    float other[blockColumns];
    float columnScale[blockColumns];
    const float *biasValues =
        bias == 0 ? nullptr : readRun(bias, biasDtype, b * biasStride + column0, columns, biasRun);
    if (dtype == DITRUN_E4M3) copyRun(wScale, DITRUN_F32, (wStride == 0 ? 0 : b) * n + column0, columns, columnScale);
    for (int64_t r = 0; r < rows; r++) {
      float *x = sums + r * blockColumns;
      float rowScale = alpha;
      if (dtype == DITRUN_E4M3) {
        if (aScaleColumns == 0) rowScale *= pointer<const float>(aScale)[(aStride == 0 ? 0 : b) * m + row0 + r];
        for (int64_t c = 0; c < columns; c++) x[c] *= columnScale[c];
      }
      if (rowScale != 1.0f) {
        for (int64_t c = 0; c < columns; c++) x[c] *= rowScale;
      }
      if (biasValues != nullptr) {
        for (int64_t c = 0; c < columns; c++) x[c] += biasValues[c];
      }
      activateRun(x, columns, activation);
      if (gate != 0) {
        const float *values = pointer<const float>(gate) + column0;
        for (int64_t c = 0; c < columns; c++) x[c] *= values[c];
      }
      if (residual != 0) {
        const float *add =
            readRun(residual, residualDtype, b * residualStride + (row0 + r) * ldResidual + column0, columns, other);
        for (int64_t c = 0; c < columns; c++) x[c] += add[c];
      }
      if (outDtype == DITRUN_E4M3) {
        const float factor = 1.0f / pointer<const float>(outScale)[b * m + row0 + r];
        for (int64_t c = 0; c < columns; c++) x[c] *= factor;
      }
      writeRun(out, outDtype, b * outStride + (row0 + r) * ldo + column0, columns, x);
    }
  }

  /** A row of A as float32, with its scales by runs of columns where it has such. */
  void copyRow(int64_t b, int64_t row, float *to) const {
    copyRun(a, dtype, b * aStride + row * lda, k, to);
    if (aScaleColumns == 0) return;
    const float *const scales = pointer<const float>(aScale) + ((aStride == 0 ? 0 : b) * m + row) * (k / aScaleColumns);
    for (int64_t i = 0; i < k; i++) to[i] *= scales[i / aScaleColumns];
  }

  /** Packs output columns [column0, column0 + columns) of W[b]: panels [columns / 16][k][16]. */
  void packW(int64_t b, int64_t column0, int64_t columns, float *packed) const {
    const int64_t panels = (columns + panelColumns - 1) / panelColumns;
    parallelFor(
        panels, columns * k > parallelWork,
        [&](int64_t panel, int64_t) {
          const int64_t first = column0 + panel * panelColumns;
          const int64_t count = std::min<int64_t>(panelColumns, column0 + columns - first);
          constexpr int64_t run = 64;
          float decoded[panelColumns][run];
          float *to = packed + panel * k * panelColumns;
          for (int64_t k0 = 0; k0 < k; k0 += run) {
            const int64_t length = std::min<int64_t>(run, k - k0);
            packPanel(
                count, length,
                [&](int64_t r) { return readRun(w, dtype, b * wStride + (first + r) * ldw + k0, length, decoded[r]); },
                to + k0 * panelColumns);
          }
        },
        4);
  }

  /** Rows [row0, row0 + rows) of A[b] times the packed columns [column0, column0 + columns). */
  void strip(int64_t b, int64_t row0, int64_t rows, int64_t column0, int64_t columns, const float *packed,
             float *own) const {
    const int64_t lda0 = k + padding;
    float *const aRows = own;
    float *const sums = own + stripRows * lda0;
    for (int64_t r = 0; r < rows; r++) copyRow(b, row0 + r, aRows + r * lda0);
    for (int64_t c0 = 0; c0 < columns; c0 += blockColumns) {
      const int64_t width = std::min(blockColumns, columns - c0);
      for (int64_t k0 = 0; k0 < k; k0 += blockDepth) {
        const int64_t depth = std::min<int64_t>(blockDepth, k - k0);
        for (int64_t c = 0; c < width; c += panelColumns) {
          const float *panel = packed + ((c0 + c) * k) + k0 * panelColumns;
          if (k0 == 0) {
            multiplyPanel<false>(rows, aRows + k0, lda0, panel, depth, sums + c, blockColumns);
          } else {
            multiplyPanel<true>(rows, aRows + k0, lda0, panel, depth, sums + c, blockColumns);
          }
        }
      }
      finish(b, row0, rows, column0 + c0, width, sums);
    }
  }

  /** Few rows: each row of W is read once, where it lies, and multiplied with every row of A. */
  void few(int64_t b, float *own) const {
    const int64_t lda0 = (k + 7) / 8 * 8;
    std::fill(own, own + m * lda0, 0.0f);
    for (int64_t r = 0; r < m; r++) copyRow(b, r, own + r * lda0);
    const int64_t blocks = (n + blockColumns / 4 - 1) / (blockColumns / 4);
    parallelFor(blocks, n * k > parallelWork, [&](int64_t block, int64_t) {
      const int64_t c0 = block * (blockColumns / 4);
      const int64_t width = std::min<int64_t>(blockColumns / 4, n - c0);
      float sums[microRows * blockColumns];
      float decoded[512];
      for (int64_t c = 0; c < width; c++) {
        for (int64_t r = 0; r < m; r++) sums[r * blockColumns + c] = 0.0f;
        for (int64_t k0 = 0; k0 < k; k0 += 512) {
          const int64_t depth = std::min<int64_t>(512, k - k0);
          const float *wRow = readRun(w, dtype, b * wStride + (c0 + c) * ldw + k0, depth, decoded);
          for (int64_t r = 0; r < m; r++) sums[r * blockColumns + c] += dot(own + r * lda0 + k0, wRow, depth);
        }
      }
      finish(b, 0, m, c0, width, sums);
    });
  }

  static float dot(const float *x, const float *y, int64_t count) {
    v8 sum[4] = {};
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
      for (int part = 0; part < 4; part++) sum[part] += load8(x + i + part * 8) * load8(y + i + part * 8);
    }
    for (; i + 8 <= count; i += 8) sum[0] += load8(x + i) * load8(y + i);
    float rest = 0.0f;
    for (; i < count; i++) rest += x[i] * y[i];
    return sum8((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
  }

  void run() const {
    if (m < microRows) {
      float *own = scratch(m * ((k + 7) / 8 * 8));
      for (int64_t b = 0; b < batch; b++) few(b, own);
      return;
    }
    const int64_t wholeN = (n + panelColumns - 1) / panelColumns * panelColumns;
    const int64_t chunk = std::min(wholeN, std::max(blockColumns, packedFloats / k / blockColumns * blockColumns));
    const int64_t threads = threadCount();
    const int64_t perThread = stripRows * (k + padding) + stripRows * blockColumns;
    float *const packed = scratch(chunk * k + threads * perThread);
    float *const strips = packed + chunk * k;
    const int64_t rowStrips = (m + stripRows - 1) / stripRows;
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t c0 = 0; c0 < n; c0 += chunk) {
        const int64_t columns = std::min<int64_t>(chunk, n - c0);
        if (b == 0 || wStride != 0 || chunk < n) packW(b, c0, columns, packed);
        // With few strips, columns are shared out too, in whole blocks.
        const int64_t blocks = (columns + blockColumns - 1) / blockColumns;
        const int64_t splits = std::min(blocks, std::max<int64_t>(1, (4 * threads + rowStrips - 1) / rowStrips));
        const int64_t perSplit = (blocks + splits - 1) / splits * blockColumns;
        parallelFor(
            rowStrips * splits, int64_t{m} * columns * k > 8 * parallelWork,
            [&](int64_t task, int64_t thread) {
              const int64_t row0 = task / splits * stripRows;
              const int64_t first = task % splits * perSplit;
              if (first >= columns) return;
              strip(b, row0, std::min<int64_t>(stripRows, m - row0), c0 + first, std::min(perSplit, columns - first),
                    packed + first * k, strips + thread * perThread);
            },
            1);
      }
    }
  }
};

void check(const ditrun_gemm_args &g) {
  const char *const f = "ditrun_gemm";
  require(g.m > 0 && g.n > 0 && g.k > 0 && g.batch > 0, f, ": m, n, k, batch are ", g.m, ", ", g.n, ", ", g.k, ", ",
          g.batch, " but must be positive.");
  requireDtype(f, "dtype", g.dtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
  if (g.dtype == DITRUN_E4M3 && g.outDtype == DITRUN_E4M3) {
    requireAddress(f, "outScale", g.outScale, 4);
    require(g.residual == 0 && g.gate == 0, f, ": out is e4m3, which takes no residual (", g.residual,
            ") and no gate (", g.gate, ").");
  } else {
    requireDtype(f, "outDtype", g.outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    if (g.dtype == DITRUN_F16) requireOneNarrow(f, {g.dtype, g.outDtype});
  }
  require(g.lda >= g.k, f, ": lda is ", g.lda, " but a row of A has k = ", g.k, " elements.");
  require(g.ldw >= g.k, f, ": ldw is ", g.ldw, " but a row of W has k = ", g.k, " elements.");
  require(g.ldo >= g.n, f, ": ldo is ", g.ldo, " but a row of out has n = ", g.n, " elements.");
  require(g.activation >= DITRUN_IDENTITY && g.activation <= DITRUN_SILU, f, ": activation is ", g.activation,
          " but must be 0 to 3.");
  require(g.aStride >= 0 && g.wStride >= 0 && g.biasStride >= 0 && g.outStride >= 0 && g.residualStride >= 0, f,
          ": a stride between batches is negative.");
  require(g.batch == 1 || g.outStride > 0, f, ": outStride is 0 but ", g.batch, " batches cannot share one output.");
  requireAddress(f, "a", g.a, dtypeBytes(g.dtype));
  requireAddress(f, "w", g.w, dtypeBytes(g.dtype));
  requireAddress(f, "out", g.out, dtypeBytes(g.outDtype));
  if (g.bias != 0) {
    requireDtype(f, "biasDtype", g.biasDtype, DITRUN_F32, g.dtype == DITRUN_F16 ? DITRUN_F16 : DITRUN_BF16);
    requireAddress(f, "bias", g.bias, dtypeBytes(g.biasDtype));
  }
  if (g.residual != 0) {
    requireDtype(f, "residualDtype", g.residualDtype, DITRUN_F32, g.dtype == DITRUN_F16 ? DITRUN_F16 : DITRUN_BF16);
    requireAddress(f, "residual", g.residual, dtypeBytes(g.residualDtype));
    require(g.ldResidual >= g.n, f, ": ldResidual is ", g.ldResidual, " but a row has n = ", g.n, " elements.");
  }
  if (g.gate != 0) requireAddress(f, "gate", g.gate, 4);
  require(g.kernel == 0, f, ": kernel is ", g.kernel, " but the CPU module has only one: give 0.");
  if (g.dtype == DITRUN_E4M3) {
    requireAddress(f, "aScale", g.aScale, 4);
    requireAddress(f, "wScale", g.wScale, 4);
  }
  if (g.aScaleColumns != 0) {
    require(g.dtype == DITRUN_E4M3 && g.aScaleColumns > 0 && g.k % g.aScaleColumns == 0, f, ": aScaleColumns is ",
            g.aScaleColumns, " but must divide k = ", g.k, ", of e4m3.");
    require(g.activation == DITRUN_IDENTITY && (g.outDtype == DITRUN_F32 || g.outDtype == DITRUN_BF16), f,
            ": with aScaleColumns there is no activation (", g.activation, ") and out is f32 or bf16.");
  }
}

}  // namespace
}  // namespace ditrun

int ditrun_gemm(const ditrun_gemm_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    require(args != nullptr, "ditrun_gemm: args is null.");
    check(*args);
    submit("ditrun_gemm", stream, [gemm = Gemm{*args}](Stream &) { gemm.run(); });
  });
}
