// Keys and values to e4m3: the statistics that all ranks share, then keys around their mean with a scale per head and 128
// keys, and transposed values with a scale per channel.
#include <cfloat>
#include <cmath>

#include "kv_layout.h"
#include "row_steps.h"
#include "scratch.h"
#include "stream.h"
#include "tensor.h"

namespace ditrun {
namespace {

constexpr int64_t parts = DITRUN_STATISTICS_PARTS;
constexpr int64_t groupKeys = DITRUN_FP8_KEYS;

/** The larger; NaN if either is. */
inline float larger(float x, float y) { return x > y || x != x ? x : y; }

/** One head of a row of k as a key, float32: as it is, or normalised, turned and rounded to dtype. */
template <class Args>
const float *keyRun(const Args &a, int64_t row, int64_t column, int64_t count, float *buffer) {
  const float *const x = readRun(a.k, a.dtype, row * a.ldk + column, count, buffer);
  if (a.rowFactor == 0) return x;
  const float factor = pointer<const float>(a.rowFactor)[row];
  const float *const weight = pointer<const float>(a.weight) + column;
  for (int64_t i = 0; i < count; i++) buffer[i] = x[i] * factor * weight[i];
  rotate(buffer, count, pointer<const float>(a.rope) + row * a.headDim, a.headDim);
  if (a.dtype == DITRUN_BF16) {
    for (int64_t i = 0; i < count; i++) buffer[i] = fromBf16(toBf16(buffer[i]));
  }
  return buffer;
}

/** rowFactor, where it is wanted. */
void rowFactors(const ditrun_kv_statistics_args &a) {
  const int64_t columns = a.columns;
  float *const decoded = scratch(omp_get_max_threads() * columns);
#pragma omp parallel for schedule(static) if (a.rows * columns > parallelWork)
  for (int64_t row = 0; row < a.rows; row++) {
    float squares = 0.0f;
    if (a.sumSquares != 0) {
      squares = pointer<const float>(a.sumSquares)[row];
    } else {
      const float *const x = readRun(a.k, a.dtype, row * a.ldk, columns, decoded + omp_get_thread_num() * columns);
      for (int64_t i = 0; i < columns; i++) squares += x[i] * x[i];
    }
    const int64_t counted = a.sumSquares != 0 ? a.fullColumns : columns;
    pointer<float>(a.rowFactor)[row] = 1.0f / std::sqrt(squares / static_cast<float>(counted) + a.epsilon);
  }
}

/** A row's share of the partial results depends only on how many rows there are: threads do not change the sum. */
void statisticsOf(const ditrun_kv_statistics_args &a) {
  const int64_t rows = a.rows;
  const int64_t columns = a.columns;
  float *const statistics = pointer<float>(a.statistics);
  float *const workspace = pointer<float>(a.workspace);
  if (a.rowFactor != 0) rowFactors(a);
  float *const decoded = scratch(omp_get_max_threads() * columns);
#pragma omp parallel for schedule(static) if (rows * columns > parallelWork)
  for (int64_t part = 0; part < parts; part++) {
    float *const buffer = decoded + omp_get_thread_num() * columns;
    float *const sum = workspace + part * 2 * columns;
    float *const most = sum + columns;
    std::fill(sum, most + columns, 0.0f);
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; row++) {
      const float *x = keyRun(a, row, 0, columns, buffer);
      for (int64_t c = 0; c < columns; c++) sum[c] += x[c];
      x = readRun(a.v, a.dtype, row * a.ldv, columns, buffer);
      for (int64_t c = 0; c < columns; c++) most[c] = larger(std::fabs(x[c]), most[c]);
    }
  }
  std::copy(workspace, workspace + 2 * columns, statistics);
  for (int64_t part = 1; part < parts; part++) {
    const float *const sum = workspace + part * 2 * columns;
    for (int64_t c = 0; c < columns; c++) {
      statistics[c] += sum[c];
      statistics[columns + c] = larger(sum[columns + c], statistics[columns + c]);
    }
  }
}

/** amax / 448, but a normal number: what is smaller still counts as zeros. */
inline float scaleOf(float amax) { return larger(amax / e4m3Largest, FLT_MIN); }

struct QuantizeKv : ditrun_quantize_kv_args {
  /** Keys [first, first + count) of one head, smoothed, with one scale. x [headDim] is working memory. */
  void keys(int64_t head, int64_t first, int64_t count, const float *mean, float *x) const {
    const int64_t row = static_cast<int64_t>(heads) * headDim;
    const auto smoothed = [&](int64_t key) {
      const float *const from = keyRun(*this, key, head * headDim, headDim, x);
      for (int64_t d = 0; d < headDim; d++) x[d] = from[d] - mean[head * headDim + d];
    };
    float amax = 0.0f;
    for (int64_t key = first; key < first + count; key++) {
      smoothed(key);
      for (int64_t d = 0; d < headDim; d++) amax = larger(std::fabs(x[d]), amax);
    }
    const float scale = scaleOf(amax);
    pointer<float>(kScale)[head * (paddedKeys(rows) / groupKeys) + first / groupKeys] = scale;
    for (int64_t key = first; key < first + count; key++) {
      smoothed(key);
      for (int64_t d = 0; d < headDim; d++) x[d] /= scale;
      writeRun(outK, DITRUN_E4M3, key * row + head * headDim, headDim, x);
    }
  }

  /** Values of the same keys, a row of 128 places for each channel. */
  void values(int64_t head, int64_t first, int64_t count, float *x) const {
    uint8_t *const out = pointer<uint8_t>(outV) + head * headDim * paddedKeys(rows) + first;
    const float *const scales = pointer<const float>(vScale) + head * headDim;
    for (int64_t place = 0; place < groupKeys; place++) {
      const int64_t key = place / 16 * 16 + keyOfPlace[place % 16];
      if (key >= count) {
        for (int64_t d = 0; d < headDim; d++) out[d * paddedKeys(rows) + place] = 0;
        continue;
      }
      const float *const from = readRun(v, dtype, (first + key) * ldv + head * headDim, headDim, x);
      for (int64_t d = 0; d < headDim; d++) out[d * paddedKeys(rows) + place] = toE4m3(from[d] / scales[d]);
    }
  }

  void run() const {
    const int64_t columns = static_cast<int64_t>(heads) * headDim;
    const int64_t groups = paddedKeys(rows) / groupKeys;
    float *const mean = scratch(columns + omp_get_max_threads() * headDim);
    const float *const ofRanks = pointer<const float>(statistics);
    for (int64_t c = 0; c < columns; c++) {
      float sum = 0.0f;
      float most = 0.0f;
      for (int64_t rank = 0; rank < statisticsCount; rank++) {
        sum += ofRanks[rank * 2 * columns + c];
        most = larger(ofRanks[(rank * 2 + 1) * columns + c], most);
      }
      mean[c] = sum / static_cast<float>(totalRows);
      pointer<float>(vScale)[c] = scaleOf(most);
    }
#pragma omp parallel for schedule(static) if (rows * columns > parallelWork)
    for (int64_t task = 0; task < heads * groups; task++) {
      float *const x = mean + columns + omp_get_thread_num() * headDim;
      const int64_t head = task / groups;
      const int64_t first = task % groups * groupKeys;
      const int64_t count = std::min(groupKeys, rows - first);
      keys(head, first, count, mean, x);
      values(head, first, count, x);
    }
  }
};

}  // namespace
}  // namespace ditrun

using namespace ditrun;

/** What makes keys of k, if anything does. */
template <class Args>
static void requireKeyNorm(const char *f, const Args &a, int64_t columns) {
  requireOptional(f, "rowFactor", a.rowFactor, 4);
  if (a.rowFactor == 0) return;
  requireAddress(f, "weight", a.weight, 4);
  requireAddress(f, "rope", a.rope, 4);
  require(a.headDim > 0 && a.headDim % 2 == 0 && columns % a.headDim == 0, f, ": headDim is ", a.headDim,
          " but must be even and divide the ", columns, " columns of keys that are turned.");
}

int ditrun_kv_statistics(const ditrun_kv_statistics_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_kv_statistics";
    require(args != nullptr, f, ": args is null.");
    const ditrun_kv_statistics_args a = *args;
    require(a.rows > 0 && a.columns > 0, f, ": rows and columns are ", a.rows, " and ", a.columns,
            " but must be positive.");
    require(a.ldk >= a.columns && a.ldv >= a.columns, f, ": ldk and ldv are ", a.ldk, " and ", a.ldv, " but a row has ",
            a.columns, " elements.");
    requireDtype(f, "dtype", a.dtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "statistics", a.statistics, 4);
    requireAddress(f, "workspace", a.workspace, 4);
    requireAddress(f, "k", a.k, dtypeBytes(a.dtype));
    requireAddress(f, "v", a.v, dtypeBytes(a.dtype));
    requireKeyNorm(f, a, a.columns);
    if (a.rowFactor != 0 && a.sumSquares != 0) {
      requireAddress(f, "sumSquares", a.sumSquares, 4);
      require(a.fullColumns >= a.columns, f, ": sumSquares is of ", a.fullColumns, " columns, fewer than the ", a.columns,
              " of k.");
    }
    submit(f, stream, [a](Stream &) { statisticsOf(a); });
  });
}

int ditrun_quantize_kv(const ditrun_quantize_kv_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_quantize_kv";
    require(args != nullptr, f, ": args is null.");
    const QuantizeKv a{*args};
    require(a.rows > 0 && a.heads > 0 && a.headDim > 0, f, ": rows, heads and headDim are ", a.rows, ", ", a.heads,
            " and ", a.headDim, " but must be positive.");
    require(a.statisticsCount > 0, f, ": statisticsCount is ", a.statisticsCount, " but must be positive.");
    require(a.totalRows >= a.rows, f, ": totalRows is ", a.totalRows, ", fewer than the ", a.rows, " rows here.");
    const int64_t columns = static_cast<int64_t>(a.heads) * a.headDim;
    require(a.ldk >= columns && a.ldv >= columns, f, ": ldk and ldv are ", a.ldk, " and ", a.ldv, " but a row of ",
            a.heads, " heads of ", a.headDim, " has ", columns, " elements.");
    requireDtype(f, "dtype", a.dtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "k", a.k, dtypeBytes(a.dtype));
    requireAddress(f, "v", a.v, dtypeBytes(a.dtype));
    requireAddress(f, "statistics", a.statistics, 4);
    requireAddress(f, "outK", a.outK, 1);
    requireAddress(f, "outV", a.outV, 1);
    requireAddress(f, "kScale", a.kScale, 4);
    requireAddress(f, "vScale", a.vScale, 4);
    requireKeyNorm(f, a, columns);
    submit(f, stream, [a](Stream &) { a.run(); });
  });
}
