// out = conv(x) + bias + residual over [frames, height, width, channels], time causal.
//
// Implicit GEMM: for one kernel frame and kernel row, the inputs of neighbouring output pixels of a row are overlapping
// runs of one padded row, so that row, with a leading dimension of strideW pixels, is the left matrix as it lies. A
// task takes a strip of an output row, decodes the kernelT · kernelH input rows under it once, and walks packed panels
// of the weight.
#include <algorithm>

#include "runtime/micro.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

constexpr int64_t stripPixels = 48;
constexpr int64_t blockDepth = 256;

struct Conv : ditrun_conv3d_args {
  int64_t outFrames() const { return (frames - 1) / strideT + 1; }
  int64_t outHeight() const { return (int64_t{upsample} * height + padTop + padBottom - kernelH) / strideH + 1; }
  int64_t outWidth() const { return (int64_t{upsample} * width + padLeft + padRight - kernelW) / strideW + 1; }
  int64_t depth() const { return int64_t{kernelW} * inChannels; }
  int64_t taps() const { return int64_t{kernelT} * kernelH; }
  int64_t paddedChannels() const { return (int64_t{outChannels} + panelColumns - 1) / panelColumns * panelColumns; }
  int64_t stripInputs() const { return (stripPixels - 1) * strideW + kernelW; }

  /** [outChannels / 16][taps · depth][16], missing channels as zeros. */
  void packWeight(float *packed) const {
    const int64_t k = taps() * depth();
    parallelFor(
        paddedChannels() / panelColumns, outChannels * k > parallelWork,
        [&](int64_t panel, int64_t) {
          const int64_t first = panel * panelColumns;
          const int64_t count = std::min<int64_t>(panelColumns, outChannels - first);
          constexpr int64_t run = 64;
          float decoded[panelColumns][run];
          for (int64_t k0 = 0; k0 < k; k0 += run) {
            const int64_t length = std::min(run, k - k0);
            packPanel(
                count, length,
                [&](int64_t r) { return readRun(weight, dtype, (first + r) * k + k0, length, decoded[r]); },
                packed + (panel * k + k0) * panelColumns);
          }
        },
        1);
  }

  /** Pixels [first, first + count) of input row y of frame f, both counted after padding and upsampling; false: all
   * zeros. */
  bool readRow(int64_t f, int64_t y, int64_t first, int64_t count, float *to) const {
    if ((f < 0 && history == 0) || y < 0 || y >= int64_t{upsample} * height) return false;
    const uint64_t base = f < 0 ? history : x;
    const int64_t frame = f < 0 ? f + kernelT - 1 : f;
    const int64_t row = (frame * height + y / upsample) * width;
    const int64_t all = int64_t{upsample} * width;
    const int64_t begin = std::clamp<int64_t>(-first, 0, count);
    const int64_t end = std::clamp<int64_t>(all - first, begin, count);
    std::fill(to, to + begin * inChannels, 0.0f);
    if (upsample == 1) {
      if (end > begin)
        copyRun(base, dtype, (row + first + begin) * inChannels, (end - begin) * inChannels, to + begin * inChannels);
    } else {
      for (int64_t p = begin; p < end; p++) {
        copyRun(base, dtype, (row + (first + p) / upsample) * inChannels, inChannels, to + p * inChannels);
      }
    }
    std::fill(to + end * inChannels, to + count * inChannels, 0.0f);
    return true;
  }

  /** Output pixels [x0, x0 + pixels) of row y of frame t. rows: taps · stripInputs · inChannels floats, then the sums.
   */
  void strip(int64_t t, int64_t y, int64_t x0, int64_t pixels, const float *packed, float *rows) const {
    const int64_t columns = paddedChannels();
    const int64_t k = taps() * depth();
    const int64_t lda = int64_t{strideW} * inChannels;
    const int64_t inputs = (pixels - 1) * strideW + kernelW;
    float *const sums = rows + taps() * stripInputs() * inChannels;
    bool some = false;
    for (int64_t tap = 0; tap < taps(); tap++) {
      float *const row = rows + tap * stripInputs() * inChannels;
      const int64_t f = t * strideT + tap / kernelH - (kernelT - 1);
      if (!readRow(f, y * strideH + tap % kernelH - padTop, x0 * strideW - padLeft, inputs, row)) continue;
      for (int64_t k0 = 0; k0 < depth(); k0 += blockDepth) {
        const int64_t run = std::min(blockDepth, depth() - k0);
        for (int64_t c = 0; c < columns; c += panelColumns) {
          const float *const panel = packed + c * k + (tap * depth() + k0) * panelColumns;
          if (some) {
            multiplyPanel<true>(pixels, row + k0, lda, panel, run, sums + c, columns);
          } else {
            multiplyPanel<false>(pixels, row + k0, lda, panel, run, sums + c, columns);
          }
        }
        some = true;
      }
    }
    if (!some) std::fill(sums, sums + pixels * columns, 0.0f);
    finish(((t * outHeight() + y) * outWidth() + x0) * outChannels, pixels, sums, rows);
  }

  /** Bias, residual, rounding: outputs [first, first + pixels · outChannels). */
  void finish(int64_t first, int64_t pixels, float *sums, float *buffer) const {
    const int64_t columns = paddedChannels();
    if (bias != 0) {
      const float *const add = readRun(bias, dtype, 0, outChannels, buffer);
      for (int64_t p = 0; p < pixels; p++) {
        for (int64_t c = 0; c < outChannels; c++) sums[p * columns + c] += add[c];
      }
    }
    for (int64_t p = 0; p < pixels; p++) {
      float *const sum = sums + p * columns;
      if (residual != 0) {
        const float *const add = readRun(residual, dtype, first + p * outChannels, outChannels, buffer);
        for (int64_t c = 0; c < outChannels; c++) sum[c] += add[c];
      }
      writeRun(out, dtype, first + p * outChannels, outChannels, sum);
    }
  }

  void run() const {
    const int64_t packedFloats = paddedChannels() * taps() * depth();
    // The rows' memory also serves as a buffer for one pixel's output channels.
    const int64_t perThread =
        std::max(taps() * stripInputs() * inChannels, paddedChannels()) + stripPixels * paddedChannels();
    float *const packed = scratch(packedFloats + threadCount() * perThread);
    packWeight(packed);
    const int64_t strips = (outWidth() + stripPixels - 1) / stripPixels;
    const int64_t tasks = outFrames() * outHeight() * strips;
    parallelFor(
        tasks, tasks * stripPixels * packedFloats > 8 * parallelWork,
        [&](int64_t task, int64_t thread) {
          const int64_t x0 = task % strips * stripPixels;
          const int64_t row = task / strips;
          strip(row / outHeight(), row % outHeight(), x0, std::min(stripPixels, outWidth() - x0), packed,
                packed + packedFloats + thread * perThread);
        },
        1);
  }
};

void check(const Conv &c) {
  const char *const f = "ditrun_conv3d";
  require(c.frames > 0 && c.height > 0 && c.width > 0 && c.inChannels > 0 && c.outChannels > 0, f,
          ": frames, height, width, inChannels, outChannels are ", c.frames, ", ", c.height, ", ", c.width, ", ",
          c.inChannels, ", ", c.outChannels, " but must be positive.");
  require(c.kernelT > 0 && c.kernelH > 0 && c.kernelW > 0 && c.strideT > 0 && c.strideH > 0 && c.strideW > 0, f,
          ": the kernel is ", c.kernelT, " × ", c.kernelH, " × ", c.kernelW, " and the stride ", c.strideT, " × ",
          c.strideH, " × ", c.strideW, "; all must be positive.");
  require(c.upsample == 1 || c.upsample == 2, f, ": upsample is ", c.upsample, " but must be 1 or 2.");
  require(c.upsample * c.height + c.padTop + c.padBottom >= c.kernelH &&
              c.upsample * c.width + c.padLeft + c.padRight >= c.kernelW,
          f, ": the padded input of ", c.upsample * c.height + c.padTop + c.padBottom, " × ",
          c.upsample * c.width + c.padLeft + c.padRight, " pixels is smaller than the kernel of ", c.kernelH, " × ",
          c.kernelW, ".");
  requireDtype(f, "dtype", c.dtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
  require(c.kernel == 0 || c.kernel == 1, f, ": kernel is ", c.kernel,
          ", which the CPU module does not have; use 0 (fastest) or 1 (generic).");
  for (const auto &[name, address] : {std::pair("x", c.x), std::pair("weight", c.weight), std::pair("out", c.out)}) {
    requireAddress(f, name, address, dtypeBytes(c.dtype));
  }
  requireOptional(f, "history", c.history, dtypeBytes(c.dtype));
  requireOptional(f, "bias", c.bias, dtypeBytes(c.dtype));
  requireOptional(f, "residual", c.residual, dtypeBytes(c.dtype));
}

}  // namespace
}  // namespace ditrun

int ditrun_conv3d(const ditrun_conv3d_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    require(args != nullptr, "ditrun_conv3d: args is null.");
    const Conv conv{*args};
    check(conv);
    submit("ditrun_conv3d", stream, [conv](Stream &) { conv.run(); });
  });
}
