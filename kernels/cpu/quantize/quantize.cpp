// The per-row quantisation to e4m3.
#include "quantize/quantize_row.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

using namespace ditrun;

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
      float *const buffers = scratch(threadCount() * columns);
      parallelFor(rows, int64_t(rows) * columns > parallelWork, [&](int64_t row, int64_t thread) {
        float *const y = buffers + thread * columns;
        copyRun(x, xDtype, row * ldx, columns, y);
        quantizeRow(y, columns, out, row * columns, pointer<float>(scale) + row);
      });
    });
  });
}
