#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** Squares of this many elements a side: both the rows read and the rows written stay in the first-level cache. */
constexpr int64_t tile = 32;

template <class T>
void transpose(T *out, const T *x, int64_t batch, int64_t rows, int64_t columns) {
  const int64_t down = (rows + tile - 1) / tile;
  const int64_t across = (columns + tile - 1) / tile;
  parallelFor(batch * down * across, batch * rows * columns > parallelWork, [&](int64_t task, int64_t) {
    const int64_t first = task / (down * across) * rows * columns;
    const int64_t row0 = task / across % down * tile;
    const int64_t column0 = task % across * tile;
    for (int64_t c = column0; c < std::min(columns, column0 + tile); c++) {
      for (int64_t r = row0; r < std::min(rows, row0 + tile); r++)
        out[first + c * rows + r] = x[first + r * columns + c];
    }
  });
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_transpose(uint64_t out, uint64_t x, int batch, int rows, int columns, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_transpose";
    require(batch > 0 && rows > 0 && columns > 0, f, ": batch, rows, columns are ", batch, ", ", rows, ", ", columns,
            " but must be positive.");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    require(out != x, f, ": out and x are both at address ", x, " but a transpose cannot be in place.");
    submit(f, stream, [=](Stream &) {
      if (dtype == DITRUN_F32) {
        transpose(pointer<uint32_t>(out), pointer<const uint32_t>(x), batch, rows, columns);
      } else {
        transpose(pointer<uint16_t>(out), pointer<const uint16_t>(x), batch, rows, columns);
      }
    });
  });
}
