// Keys and values to e4m3: the statistics that all ranks share, then keys around their mean with a scale per head and
// 128 keys, and transposed values with a scale per channel.
#include <cfloat>
#include <cmath>

#include "quantize/kv_layout.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

constexpr int64_t parts = DITRUN_STATISTICS_PARTS;
constexpr int64_t groupKeys = DITRUN_FP8_KEYS;

/** The larger; NaN if either is. */
inline float larger(float x, float y) { return x > y || x != x ? x : y; }

/** A row's share of the 64 partial results depends only on how many rows there are: threads do not change the sum. */
void statisticsOf(float *statistics, float *workspace, uint64_t k, int64_t ldk, uint64_t v, int64_t ldv, int64_t rows,
                  int64_t columns, int dtype) {
  float *const decoded = scratch(threadCount() * columns);
  parallelFor(parts, rows * columns > parallelWork, [&](int64_t part, int64_t thread) {
    float *const buffer = decoded + thread * columns;
    float *const sum = workspace + part * 2 * columns;
    float *const most = sum + columns;
    std::fill(sum, most + columns, 0.0f);
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; row++) {
      const float *x = readRun(k, dtype, row * ldk, columns, buffer);
      for (int64_t c = 0; c < columns; c++) sum[c] += x[c];
      x = readRun(v, dtype, row * ldv, columns, buffer);
      for (int64_t c = 0; c < columns; c++) most[c] = larger(std::fabs(x[c]), most[c]);
    }
  });
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
      const float *const from = readRun(k, dtype, key * ldk + head * headDim, headDim, x);
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
    float *const mean = scratch(columns + threadCount() * headDim);
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
    parallelFor(heads * groups, rows * columns > parallelWork, [&](int64_t task, int64_t thread) {
      float *const x = mean + columns + thread * headDim;
      const int64_t head = task / groups;
      const int64_t first = task % groups * groupKeys;
      const int64_t count = std::min(groupKeys, rows - first);
      keys(head, first, count, mean, x);
      values(head, first, count, x);
    });
  }
};

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_kv_statistics(uint64_t statistics, uint64_t workspace, uint64_t k, int64_t ldk, uint64_t v, int64_t ldv,
                         int rows, int columns, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_kv_statistics";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    require(ldk >= columns && ldv >= columns, f, ": ldk and ldv are ", ldk, " and ", ldv, " but a row has ", columns,
            " elements.");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "statistics", statistics, 4);
    requireAddress(f, "workspace", workspace, 4);
    requireAddress(f, "k", k, dtypeBytes(dtype));
    requireAddress(f, "v", v, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      statisticsOf(pointer<float>(statistics), pointer<float>(workspace), k, ldk, v, ldv, rows, columns, dtype);
    });
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
    submit(f, stream, [a](Stream &) { a.run(); });
  });
}
