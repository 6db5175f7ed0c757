#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "elementwise/activation.h"
#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

void requireCount(const char *function, int64_t count) {
  require(count > 0, function, ": count is ", count, " but must be positive.");
}

/** Calls body(first, count) for runs of at most runLength elements, in parallel. */
template <class Body>
void overRuns(int64_t count, const Body &body) {
  const int64_t runs = (count + runLength - 1) / runLength;
  parallelFor(runs, count > parallelWork,
              [&](int64_t run, int64_t) { body(run * runLength, std::min(runLength, count - run * runLength)); });
}

/** out[i] = combine(x[i], y[i]), in float32, rounded once. */
template <class Combine>
int pairwise(const char *f, uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream,
             Combine combine) {
  return guarded([&] {
    requireCount(f, count);
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    for (const uint64_t address : {out, x, y}) requireAddress(f, "out, x or y", address, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      overRuns(count, [=](int64_t first, int64_t length) {
        float result[runLength];
        float other[runLength];
        copyRun(x, dtype, first, length, result);
        const float *const second = readRun(y, dtype, first, length, other);
        for (int64_t i = 0; i < length; i++) result[i] = combine(result[i], second[i]);
        writeRun(out, dtype, first, length, result);
      });
    });
  });
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_activate(uint64_t out, uint64_t x, int64_t count, int dtype, int activation, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_activate";
    requireCount(f, count);
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    require(activation >= DITRUN_IDENTITY && activation <= DITRUN_SILU, f, ": activation is ", activation,
            " but must be 0 to 3.");
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      overRuns(count, [=](int64_t first, int64_t length) {
        float y[runLength] = {};
        copyRun(x, dtype, first, length, y);
        activateRun(y, length, activation);
        writeRun(out, dtype, first, length, y);
      });
    });
  });
}

int ditrun_add(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream) {
  return pairwise("ditrun_add", out, x, y, count, dtype, stream, [](float a, float b) { return a + b; });
}

int ditrun_add_rows(uint64_t out, uint64_t x, uint64_t rowTable, uint64_t vector, int rows, int columns, int dtype,
                    uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_add_rows";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    requireOptional(f, "rowTable", rowTable, dtypeBytes(dtype));
    requireOptional(f, "vector", vector, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      parallelFor(rows, int64_t(rows) * columns > parallelWork, [&](int64_t row, int64_t) {
        for (int64_t c0 = 0; c0 < columns; c0 += runLength) {
          const int64_t length = std::min<int64_t>(runLength, columns - c0);
          float sum[runLength];
          float other[runLength];
          copyRun(x, dtype, row * columns + c0, length, sum);
          if (rowTable != 0) {
            const float *const added = readRun(rowTable, dtype, row * columns + c0, length, other);
            for (int64_t i = 0; i < length; i++) sum[i] += added[i];
          }
          if (vector != 0) {
            const float *const added = readRun(vector, dtype, c0, length, other);
            for (int64_t i = 0; i < length; i++) sum[i] += added[i];
          }
          writeRun(out, dtype, row * columns + c0, length, sum);
        }
      });
    });
  });
}

int ditrun_add_gated(uint64_t out, uint64_t x, int xDtype, uint64_t y, int yDtype, uint64_t gate, int rows, int columns,
                     uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_add_gated";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "yDtype", yDtype, DITRUN_F32, DITRUN_BF16);
    for (const uint64_t address : {out, x}) requireAddress(f, "out or x", address, dtypeBytes(xDtype));
    requireAddress(f, "y", y, dtypeBytes(yDtype));
    requireAddress(f, "gate", gate, 4);
    submit(f, stream, [=](Stream &) {
      parallelFor(rows, int64_t(rows) * columns > parallelWork, [&](int64_t row, int64_t) {
        for (int64_t c0 = 0; c0 < columns; c0 += runLength) {
          const int64_t length = std::min<int64_t>(runLength, columns - c0);
          float sum[runLength];
          float other[runLength];
          copyRun(x, xDtype, row * columns + c0, length, sum);
          const float *const added = readRun(y, yDtype, row * columns + c0, length, other);
          const float *const factor = pointer<const float>(gate) + c0;
          for (int64_t i = 0; i < length; i++) sum[i] += added[i] * factor[i];
          writeRun(out, xDtype, row * columns + c0, length, sum);
        }
      });
    });
  });
}

int ditrun_multiply(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream) {
  return pairwise("ditrun_multiply", out, x, y, count, dtype, stream, [](float a, float b) { return a * b; });
}

int ditrun_combine(uint64_t out, const uint64_t *sources, const float *coefficients, int sourceCount, int64_t count,
                   uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_combine";
    requireCount(f, count);
    require(sourceCount > 0 && sourceCount <= 8, f, ": sourceCount is ", sourceCount, " but must be 1 to 8.");
    require(sources != nullptr && coefficients != nullptr, f, ": sources or coefficients is null.");
    requireAddress(f, "out", out, 4);
    std::vector<std::pair<const float *, float>> terms;
    for (int i = 0; i < sourceCount; i++) {
      requireAddress(f, "a source", sources[i], 4);
      terms.emplace_back(pointer<const float>(sources[i]), coefficients[i]);
    }
    submit(f, stream, [=, terms = std::move(terms)](Stream &) {
      overRuns(count, [&](int64_t first, int64_t length) {
        // A whole run is summed before it is stored: out may be any of the sources.
        float total[runLength] = {};
        for (const auto &[x, coefficient] : terms) {
          for (int64_t i = 0; i < length; i++) total[i] += coefficient * x[first + i];
        }
        std::copy(total, total + length, pointer<float>(out) + first);
      });
    });
  });
}

/** out and x may not overlap. */
int ditrun_cast(uint64_t out, int outDtype, uint64_t x, int xDtype, int64_t count, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_cast";
    requireCount(f, count);
    requireDtype(f, "outDtype", outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
    requireAddress(f, "out", out, dtypeBytes(outDtype));
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    submit(f, stream, [=](Stream &) {
      overRuns(count, [=](int64_t first, int64_t length) {
        float buffer[runLength];
        writeRun(out, outDtype, first, length, readRun(x, xDtype, first, length, buffer));
      });
    });
  });
}

int ditrun_count_nonfinite(uint64_t result, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_count_nonfinite";
    requireCount(f, count);
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
    requireAddress(f, "result", result, 4);
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      const int64_t runs = (count + runLength - 1) / runLength;
      std::atomic<uint32_t> found{0};
      parallelFor(runs, count > parallelWork, [&](int64_t run, int64_t) {
        float buffer[runLength];
        const int64_t length = std::min(runLength, count - run * runLength);
        const float *const values = readRun(x, dtype, run * runLength, length, buffer);
        uint32_t here = 0;
        for (int64_t i = 0; i < length; i++) here += isFinite(values[i]) ? 0 : 1;
        found += here;
      });
      *pointer<uint32_t>(result) = found;
    });
  });
}

int ditrun_to_bytes(uint64_t out, uint64_t nonfinite, uint64_t x, int xDtype, int64_t count, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_to_bytes";
    requireCount(f, count);
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "out", out, 1);
    requireAddress(f, "nonfinite", nonfinite, 4);
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    submit(f, stream, [=](Stream &) {
      overRuns(count, [=](int64_t first, int64_t length) {
        float buffer[runLength];
        const float *const pixels = readRun(x, xDtype, first, length, buffer);
        uint8_t *const bytes = pointer<uint8_t>(out) + first;
        bool found = false;
        for (int64_t i = 0; i < length; i++) {
          found |= !isFinite(pixels[i]);
          const float value = (pixels[i] + 1.0f) * 127.5f;
          const float positive = value > 0.0f ? value : 0.0f;  // a NaN too
          bytes[i] = static_cast<uint8_t>(std::nearbyint(std::min(positive, 255.0f)));
        }
        if (found) std::atomic_ref(*pointer<uint32_t>(nonfinite)).store(1, std::memory_order_relaxed);
      });
    });
  });
}
