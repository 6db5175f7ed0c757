// Patches of a video's latent and the rotary table of their tokens (Wan2.1, wan/modules/model.py).
#include <cmath>
#include <vector>

#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** Tokens firstToken … of patches [1, patch, patch] of a latent [channels, frames, height, width], in row-major order.
 */
struct VideoPatches {
  int64_t channels, frames, height, width, patch, firstToken, tokens;

  void check(const char *f) const {
    require(channels > 0 && frames > 0 && height > 0 && width > 0 && patch > 0, f,
            ": channels, frames, height, width, patch are ", channels, ", ", frames, ", ", height, ", ", width, ", ",
            patch, " but must be positive.");
    require(height % patch == 0 && width % patch == 0, f, ": frames of ", height, " by ", width,
            " do not divide into patches of ", patch, ".");
    const int64_t all = frames * (height / patch) * (width / patch);
    require(firstToken >= 0 && tokens > 0 && firstToken + tokens <= all, f, ": tokens ", firstToken, " to ",
            firstToken + tokens, " are asked for but the latent has ", all, ".");
  }

  /** Calls body(token, channel, row in the patch, index in the latent) for each run of `patch` elements that lie
   * together. */
  template <class Body>
  void overRuns(const Body &body) const {
    const int64_t gridWidth = width / patch;
    const int64_t perFrame = height / patch * gridWidth;
    parallelFor(tokens, tokens * channels * patch * patch > parallelWork, [&](int64_t token, int64_t) {
      const int64_t frame = (firstToken + token) / perFrame;
      const int64_t y0 = (firstToken + token) % perFrame / gridWidth * patch;
      const int64_t x0 = (firstToken + token) % gridWidth * patch;
      for (int64_t channel = 0; channel < channels; channel++) {
        for (int64_t y = 0; y < patch; y++) {
          body(token, channel, y, ((channel * frames + frame) * height + y0 + y) * width + x0);
        }
      }
    });
  }
};

void requireTensors(const char *f, const char *outName, uint64_t out, int outDtype, const char *xName, uint64_t x,
                    int xDtype) {
  requireDtype(f, outName, outDtype, DITRUN_F32, DITRUN_BF16);
  requireDtype(f, xName, xDtype, DITRUN_F32, DITRUN_BF16);
  requireAddress(f, outName, out, dtypeBytes(outDtype));
  requireAddress(f, xName, x, dtypeBytes(xDtype));
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_patchify_video(uint64_t out, int outDtype, uint64_t latent, int latentDtype, int channels, int frames,
                          int height, int width, int patch, int firstToken, int tokens, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_patchify_video";
    const VideoPatches patches{channels, frames, height, width, patch, firstToken, tokens};
    patches.check(f);
    requireTensors(f, "out", out, outDtype, "latent", latent, latentDtype);
    submit(f, stream, [=](Stream &) {
      patches.overRuns([=](int64_t token, int64_t channel, int64_t y, int64_t inLatent) {
        for (int64_t x = 0; x < patch; x++) {
          float value;
          const float *const from = readRun(latent, latentDtype, inLatent + x, 1, &value);
          writeRun(out, outDtype, ((token * channels + channel) * patch + y) * patch + x, 1, from);
        }
      });
    });
  });
}

int ditrun_unpatchify_video(uint64_t latent, int latentDtype, uint64_t x, int xDtype, int channels, int frames,
                            int height, int width, int patch, int firstToken, int tokens, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_unpatchify_video";
    const VideoPatches patches{channels, frames, height, width, patch, firstToken, tokens};
    patches.check(f);
    requireTensors(f, "latent", latent, latentDtype, "x", x, xDtype);
    submit(f, stream, [=](Stream &) {
      patches.overRuns([=](int64_t token, int64_t channel, int64_t y, int64_t inLatent) {
        for (int64_t column = 0; column < patch; column++) {
          float value;
          const int64_t inTokens = ((token * patch + y) * patch + column) * channels + channel;
          writeRun(latent, latentDtype, inLatent + column, 1, readRun(x, xDtype, inTokens, 1, &value));
        }
      });
    });
  });
}

int ditrun_rope_3d(uint64_t out, int gridHeight, int gridWidth, int firstToken, int tokens, int headDim,
                   uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_rope_3d";
    require(gridHeight > 0 && gridWidth > 0 && firstToken >= 0 && tokens > 0, f,
            ": gridHeight, gridWidth, firstToken, tokens are ", gridHeight, ", ", gridWidth, ", ", firstToken, ", ",
            tokens, "; firstToken must not be negative, the others must be positive.");
    require(headDim >= 6 && headDim % 2 == 0, f, ": headDim is ", headDim, " but must be even and at least 6.");
    requireAddress(f, "out", out, 4);
    submit(f, stream, [=](Stream &) {
      const int64_t pairs = headDim / 2;
      const int64_t third = pairs / 3;
      const int64_t ofFrame = pairs - 2 * third;
      std::vector<double> frequencies;
      for (int64_t pair = 0; pair < pairs; pair++) {
        const double n = static_cast<double>(pair < ofFrame ? ofFrame : third);
        const double j = static_cast<double>(pair < ofFrame ? pair : (pair - ofFrame) % third);
        frequencies.push_back(std::pow(10000.0, -j / n));
      }
      parallelFor(tokens, int64_t(tokens) * headDim > parallelWork / 8, [&](int64_t row, int64_t) {
        const int64_t token = firstToken + row;
        const int64_t inFrame = token % (static_cast<int64_t>(gridHeight) * gridWidth);
        const int64_t positions[3] = {token / (static_cast<int64_t>(gridHeight) * gridWidth), inFrame / gridWidth,
                                      inFrame % gridWidth};
        float *const turns = pointer<float>(out) + row * headDim;
        for (int64_t pair = 0; pair < pairs; pair++) {
          const int64_t axis = pair < ofFrame ? 0 : pair < ofFrame + third ? 1 : 2;
          const double angle = static_cast<double>(positions[axis]) * frequencies[static_cast<size_t>(pair)];
          turns[2 * pair] = static_cast<float>(std::cos(angle));
          turns[2 * pair + 1] = static_cast<float>(std::sin(angle));
        }
      });
    });
  });
}
