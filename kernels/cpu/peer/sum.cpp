#include <vector>

#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

using namespace ditrun;

int ditrun_sum(uint64_t out, uint64_t base, uint64_t bias, int columns, const uint64_t *sources, int sourceCount,
               int64_t count, int dtype, int sourceDtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_sum";
    require(count > 0 && sourceCount >= 0, f, ": count is ", count, " and sourceCount ", sourceCount,
            "; the first must be positive, the second not negative.");
    require(sourceCount == 0 || sources != nullptr, f, ": sources is null.");
    require(bias == 0 || (columns > 0 && count % columns == 0), f, ": ", count, " elements are no whole rows of ",
            columns, " columns, which the bias has.");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "sourceDtype", sourceDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireOptional(f, "base", base, dtypeBytes(dtype));
    requireOptional(f, "bias", bias, dtypeBytes(dtype));
    const std::vector<uint64_t> terms(sources, sources + sourceCount);
    for (const uint64_t term : terms) requireAddress(f, "a source", term, dtypeBytes(sourceDtype));
    submit(f, stream, [=](Stream &) {
      // Runs end where rows end, so that each meets one stretch of the bias.
      const int64_t row = bias != 0 ? columns : count;
      const int64_t perRow = (row + runLength - 1) / runLength;
      parallelFor(count / row * perRow, count > parallelWork, [&](int64_t run, int64_t) {
        const int64_t column = run % perRow * runLength;
        const int64_t first = run / perRow * row + column;
        const int64_t length = std::min(runLength, row - column);
        float total[runLength] = {};
        float other[runLength];
        const auto add = [&](uint64_t term, int termDtype, int64_t at) {
          const float *const x = readRun(term, termDtype, at, length, other);
          for (int64_t i = 0; i < length; i++) total[i] += x[i];
        };
        if (base != 0) add(base, dtype, first);
        for (const uint64_t term : terms) add(term, sourceDtype, first);
        if (bias != 0) add(bias, dtype, column);
        writeRun(out, dtype, first, length, total);
      });
    });
  });
}
