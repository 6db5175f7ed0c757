// Patches and sin-cos embeddings of the DiT, and rows of an embedding table.
#include <cmath>
#include <limits>

#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

struct Patches {
  int64_t channels, height, width, patch, firstToken, tokens;

  void check(const char *f) const {
    require(channels > 0 && height > 0 && width > 0 && patch > 0, f, ": channels, height, width, patch are ", channels,
            ", ", height, ", ", width, ", ", patch, " but must be positive.");
    require(height % patch == 0 && width % patch == 0, f, ": an image of ", height, " by ", width,
            " does not divide into patches of ", patch, ".");
    const int64_t all = height / patch * (width / patch);
    require(firstToken >= 0 && tokens > 0 && firstToken + tokens <= all, f, ": tokens ", firstToken, " to ",
            firstToken + tokens, " are asked for but the image has ", all, ".");
  }

  /** Calls body(index in the token tensor, index in the image) for each run of `patch` pixels that lie together. */
  template <class Body>
  void overRuns(const Body &body) const {
    const int64_t perRow = width / patch;
    parallelFor(tokens, tokens * channels * patch * patch > parallelWork, [&](int64_t token, int64_t) {
      const int64_t y0 = (firstToken + token) / perRow * patch;
      const int64_t x0 = (firstToken + token) % perRow * patch;
      for (int64_t channel = 0; channel < channels; channel++) {
        for (int64_t y = 0; y < patch; y++) {
          body(((token * channels + channel) * patch + y) * patch, (channel * height + y0 + y) * width + x0);
        }
      }
    });
  }
};

/** Copies `patch` elements from one tensor to another, in runs that fit a buffer. */
void convert(uint64_t out, int outDtype, int64_t to, uint64_t x, int xDtype, int64_t from, int64_t count) {
  float buffer[64];
  for (int64_t i = 0; i < count; i += 64) {
    const int64_t length = std::min<int64_t>(64, count - i);
    writeRun(out, outDtype, to + i, length, readRun(x, xDtype, from + i, length, buffer));
  }
}

/** Element `column` of the embedding of p in a row of `width`: sines in the first half, cosines in the second. */
float sincos(float p, int64_t column, int64_t width) {
  const int64_t half = width / 2;
  const int64_t j = column % half;
  // The angle is rounded to float32 where PyTorch rounds it: the frequency, then its product with the position.
  const float frequency = std::exp(-9.2103404f * static_cast<float>(j) / static_cast<float>(half));
  const float angle = p * frequency;
  return column < half ? std::sin(angle) : std::cos(angle);
}

void checkColumns(const char *f, int rows, int width, int divisor, int firstColumn, int columns, int outDtype,
                  uint64_t out) {
  require(rows > 0 && width > 0 && width % divisor == 0, f, ": there are ", rows, " rows of width ", width,
          "; both must be positive and the width a multiple of ", divisor, ".");
  require(firstColumn >= 0 && columns > 0 && firstColumn + columns <= width, f, ": columns ", firstColumn, " to ",
          firstColumn + columns, " are asked for but the width is ", width, ".");
  requireDtype(f, "outDtype", outDtype, DITRUN_F32, DITRUN_BF16);
  requireAddress(f, "out", out, dtypeBytes(outDtype));
}

/** Writes rows of value(row, column) for columns [firstColumn, firstColumn + columns). */
template <class Value>
void writeRows(uint64_t out, int outDtype, int64_t rows, int64_t firstColumn, int64_t columns, const Value &value) {
  parallelFor(rows, rows * columns > parallelWork / 8, [&](int64_t row, int64_t) {
    for (int64_t c0 = 0; c0 < columns; c0 += runLength) {
      float buffer[runLength];
      const int64_t length = std::min(runLength, columns - c0);
      for (int64_t c = 0; c < length; c++) buffer[c] = value(row, firstColumn + c0 + c);
      writeRun(out, outDtype, row * columns + c0, length, buffer);
    }
  });
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_patchify(uint64_t out, int outDtype, uint64_t image, int imageDtype, int channels, int height, int width,
                    int patch, int firstToken, int tokens, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_patchify";
    const Patches patches{channels, height, width, patch, firstToken, tokens};
    patches.check(f);
    requireDtype(f, "outDtype", outDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "imageDtype", imageDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, dtypeBytes(outDtype));
    requireAddress(f, "image", image, dtypeBytes(imageDtype));
    submit(f, stream, [=](Stream &) {
      patches.overRuns([=](int64_t inTokens, int64_t inImage) {
        convert(out, outDtype, inTokens, image, imageDtype, inImage, patch);
      });
    });
  });
}

int ditrun_unpatchify(uint64_t image, int imageDtype, uint64_t x, int xDtype, int channels, int height, int width,
                      int patch, int firstToken, int tokens, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_unpatchify";
    const Patches patches{channels, height, width, patch, firstToken, tokens};
    patches.check(f);
    requireDtype(f, "imageDtype", imageDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "xDtype", xDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "image", image, dtypeBytes(imageDtype));
    requireAddress(f, "x", x, dtypeBytes(xDtype));
    submit(f, stream, [=](Stream &) {
      patches.overRuns(
          [=](int64_t inTokens, int64_t inImage) { convert(image, imageDtype, inImage, x, xDtype, inTokens, patch); });
    });
  });
}

int ditrun_sincos_embedding(uint64_t out, int outDtype, uint64_t positions, int rows, int width, int firstColumn,
                            int columns, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_sincos_embedding";
    checkColumns(f, rows, width, 2, firstColumn, columns, outDtype, out);
    requireAddress(f, "positions", positions, 4);
    submit(f, stream, [=](Stream &) {
      writeRows(out, outDtype, rows, firstColumn, columns, [=](int64_t row, int64_t column) {
        return sincos(pointer<const float>(positions)[row], column, width);
      });
    });
  });
}

int ditrun_sincos_2d(uint64_t out, int outDtype, int gridWidth, int firstToken, int tokens, int width, int firstColumn,
                     int columns, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_sincos_2d";
    checkColumns(f, tokens, width, 4, firstColumn, columns, outDtype, out);
    require(gridWidth > 0 && firstToken >= 0, f, ": gridWidth is ", gridWidth, " and firstToken ", firstToken,
            "; the first must be positive, the second not negative.");
    submit(f, stream, [=](Stream &) {
      const int64_t half = width / 2;
      writeRows(out, outDtype, tokens, firstColumn, columns, [=](int64_t row, int64_t column) {
        const int64_t token = firstToken + row;
        const int64_t position = column < half ? token / gridWidth : token % gridWidth;
        return sincos(static_cast<float>(position), column % half, half);
      });
    });
  });
}

int ditrun_gather_rows(uint64_t out, int outDtype, uint64_t table, int tableDtype, int tableRows, uint64_t ids,
                       int rows, int columns, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_gather_rows";
    require(rows > 0 && columns > 0 && tableRows > 0, f, ": rows, columns and tableRows are ", rows, ", ", columns,
            " and ", tableRows, " but must be positive.");
    requireDtype(f, "outDtype", outDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "tableDtype", tableDtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, dtypeBytes(outDtype));
    requireAddress(f, "table", table, dtypeBytes(tableDtype));
    requireAddress(f, "ids", ids, 4);
    submit(f, stream, [=](Stream &) {
      parallelFor(rows, int64_t(rows) * columns > parallelWork, [&](int64_t row, int64_t) {
        const int64_t id = pointer<const int32_t>(ids)[row];
        for (int64_t c0 = 0; c0 < columns; c0 += runLength) {
          float buffer[runLength];
          const int64_t length = std::min<int64_t>(runLength, columns - c0);
          const float *values = buffer;
          if (id >= 0 && id < tableRows) values = readRun(table, tableDtype, id * columns + c0, length, buffer);
          else std::fill(buffer, buffer + length, std::numeric_limits<float>::quiet_NaN());
          writeRun(out, outDtype, row * columns + c0, length, values);
        }
      });
    });
  });
}
