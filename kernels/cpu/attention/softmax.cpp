#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** x becomes e^(scale x - most) / Σ; count floats, the buffer readable and writable up to the next multiple of 8. */
void softmax(float *x, int64_t count, float scale) {
  float most = x[0] * scale;
  for (int64_t i = 0; i < count; i++) {
    x[i] *= scale;
    most = x[i] > most ? x[i] : most;
  }
  for (int64_t i = 0; i < count; i += 8) store8(x + i, exp8(load8(x + i) - most));
  v8 parts = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) parts += load8(x + i);
  float total = sum8(parts);
  for (; i < count; i++) total += x[i];
  const float inverse = 1.0f / total;
  for (i = 0; i < count; i++) x[i] *= inverse;
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_softmax_rows(uint64_t out, int outDtype, uint64_t x, int xDtype, int rows, int columns, float scale,
                        uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_softmax_rows";
    require(rows > 0 && columns > 0, f, ": rows and columns are ", rows, " and ", columns, " but must be positive.");
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireDtype(f, "outDtype", outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireOneNarrow(f, {xDtype, outDtype});
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    requireAddress(f, "out", out, dtypeBytes(outDtype));
    require(x != out || xDtype == outDtype, f, ": out is x, so its dtype must be ", xDtype, " too, but is ", outDtype,
            ".");
    submit(f, stream, [=](Stream &) {
      const int64_t perThread = (int64_t{columns} + 15) / 16 * 16;
      float *const buffers = scratch(threadCount() * perThread);
      std::fill(buffers, buffers + threadCount() * perThread, 0.0f);
      parallelFor(rows, int64_t{rows} * columns > parallelWork, [&](int64_t row, int64_t thread) {
        float *const y = buffers + thread * perThread;
        copyRun(x, xDtype, row * columns, columns, y);
        softmax(y, columns, scale);
        writeRun(out, outDtype, row * columns, columns, y);
      });
    });
  });
}
