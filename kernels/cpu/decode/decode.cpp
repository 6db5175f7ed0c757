// Weights as files store them, to a dtype that kernels take.
#include "decode/decode.h"

#include "norm/sums.h"
#include "quantize/quantize_row.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"
#include "shared/read_queue.h"

namespace ditrun {
namespace {

struct Decode : ditrun_decode_args {
  /** Elements [first, first + count) of this row's columns as float32, scaled. */
  void run(int64_t row, int64_t first, int64_t count, float *y) const {
    const uint8_t *const from = pointer<const uint8_t>(x) + row * rowBytes;
    stored::withKind(stored, [&]<int kind>() {
      for (int64_t i = 0; i < count; i++) y[i] = stored::decodeOne<kind>(from, firstColumn + first + i);
    });
    if (scale == 0) return;
    const float factor = scaleOf(row);
    for (int64_t i = 0; i < count; i++) y[i] *= factor;
  }

  float scaleOf(int64_t row) const { return scale == 0 ? 1.0f : pointer<const float>(scale)[scaleRows * row]; }

  /** A row to e4m3. */
  void quantise(int64_t row, float *y) const {
    float *const toScale = pointer<float>(outScale) + row;
    if (stored != DITRUN_STORED_F8_E4M3 || squares != 0) run(row, 0, columns, y);
    if (squares != 0) pointer<float>(squares)[row] = sumOfSquares(y, 0.0f, columns);
    if (stored != DITRUN_STORED_F8_E4M3) {
      quantizeRow(y, columns, out, row * columns, toScale);
      return;
    }
    const uint8_t *const from = pointer<const uint8_t>(x) + row * rowBytes + firstColumn;
    std::memcpy(pointer<uint8_t>(out) + row * columns, from, static_cast<size_t>(columns));
    *toScale = scaleOf(row);
  }

  int64_t runsOfRow() const { return outDtype == DITRUN_E4M3 ? 1 : (columns + runLength - 1) / runLength; }
  int64_t bufferFloats() const { return outDtype == DITRUN_E4M3 ? columns : runLength; }

  /** One of all runs, [0, rows · runsOfRow). */
  void task(int64_t index, float *buffer) const {
    const int64_t row = index / runsOfRow();
    if (outDtype == DITRUN_E4M3) {
      quantise(row, buffer);
      return;
    }
    const int64_t first = index % runsOfRow() * runLength;
    const int64_t count = std::min(runLength, columns - first);
    run(row, first, count, buffer);
    writeRun(out, outDtype, row * ldo + first, count, buffer);
  }
};

}  // namespace

void decodeRows(const ditrun_decode_args &args) {
  const Decode decode{args};
  float *const buffer = scratch(decode.bufferFloats());
  for (int64_t index = 0; index < decode.rows * decode.runsOfRow(); index++) decode.task(index, buffer);
}

}  // namespace ditrun

using namespace ditrun;

int ditrun_decode(const ditrun_decode_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_decode";
    require(args != nullptr, f, ": args is null.");
    const Decode a{*args};
    if (const auto why = reading::refusal(a, false)) refuse(f, ": ", *why, ".");
    submit(f, stream, [a](Stream &) {
      const int64_t each = a.bufferFloats();
      float *const buffers = scratch(threadCount() * each);
      parallelFor(a.rows * a.runsOfRow(), a.rows * a.columns > parallelWork,
                  [&](int64_t index, int64_t thread) { a.task(index, buffers + thread * each); });
    });
  });
}
