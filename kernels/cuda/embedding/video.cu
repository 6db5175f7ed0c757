// Patches of a video's latent, and the rotary table of their tokens (Wan2.1, wan/modules/model.py).
#include "runtime/device.h"
#include "runtime/numbers.cuh"

struct VideoPatches {
  const void *source;
  void *destination;
  int sourceDtype, destinationDtype;
  uint32_t channels, frames, height, width, patch, firstToken, tokens;
};

/** One element a thread, in the order of what is written. A token is (channel, row, column) on its way in and
 * (row, column, channel) on its way out. */
template <bool toTokens>
__global__ void moveVideoPatches(const __grid_constant__ VideoPatches args) {
  const uint32_t patch = args.patch, channels = args.channels, perToken = channels * patch * patch,
                 count = args.tokens * perToken;
  const uint32_t gridWidth = args.width / patch, perFrame = args.height / patch * gridWidth,
                 threads = gridDim.x * blockDim.x;
  for (uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {
    const uint32_t index = uint32_t(i), column = index % patch;
    uint32_t token, row, channel;
    if (toTokens) {
      token = index / perToken;
      row = index / patch % patch;
      channel = index / (patch * patch) % channels;
    } else {
      // Neighbouring tokens of a grid row hold neighbouring runs of pixels.
      token = index / patch % args.tokens;
      const uint32_t rest = index / patch / args.tokens;
      row = rest % patch;
      channel = rest / patch;
    }
    const uint32_t position = args.firstToken + token, frame = position / perFrame,
                   y = position % perFrame / gridWidth * patch + row, x = position % gridWidth * patch + column;
    const int64_t pixel = ((int64_t(channel) * args.frames + frame) * args.height + y) * args.width + x;
    if (toTokens)
      storeOne(args.destination, index, args.destinationDtype, loadOne(args.source, pixel, args.sourceDtype));
    else
      storeOne(args.destination, pixel, args.destinationDtype,
               loadOne(args.source, (int64_t(token) * patch * patch + row * patch + column) * channels + channel,
                       args.sourceDtype));
  }
}

template <bool toTokens>
static int move(const char *what, uint64_t destination, int destinationDtype, uint64_t source, int sourceDtype,
                int channels, int frames, int height, int width, int patch, int firstToken, int tokens,
                uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(sourceDtype) || !isFloat(destinationDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, got %s to %s.", what, dtypeName(sourceDtype),
                dtypeName(destinationDtype));
  if (channels <= 0 || frames <= 0 || patch <= 0 || height <= 0 || width <= 0 || height % patch != 0 ||
      width % patch != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got a latent of %d×%d×%d×%d, which patches of 1×%d×%d do not tile.", what,
                channels, frames, height, width, patch, patch);
  const int64_t grid = int64_t(frames) * (height / patch) * (width / patch),
                elements = int64_t(tokens) * channels * patch * patch;
  if (firstToken < 0 || tokens < 0 || int64_t(firstToken) + tokens > grid)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got tokens %d to %lld of a grid of %lld.", what, firstToken,
                (long long)firstToken + tokens, (long long)grid);
  if (tokens == 0) return DITRUN_OK;
  if (source == 0 || destination == 0) return fail(DITRUN_INVALID_ARGUMENT, "%s got a null address.", what);
  if (grid >= int64_t(1) << 31 || elements >= int64_t(1) << 32)
    return fail(DITRUN_INVALID_ARGUMENT,
                "%s moves fewer than 2^32 elements of a grid of fewer than 2^31 tokens, got %lld and %lld.", what,
                (long long)elements, (long long)grid);
  const auto natural = [](int value) { return uint32_t(value); };
  const VideoPatches args{asPointer<void>(source),
                          asPointer<void>(destination),
                          sourceDtype,
                          destinationDtype,
                          natural(channels),
                          natural(frames),
                          natural(height),
                          natural(width),
                          natural(patch),
                          natural(firstToken),
                          natural(tokens)};
  moveVideoPatches<toTokens><<<gridFor(elements, 256, deviceFacts().multiprocessors), 256, 0, asStream(stream)>>>(args);
  return launched(what);
}

int ditrun_patchify_video(uint64_t out, int outDtype, uint64_t latent, int latentDtype, int channels, int frames,
                          int height, int width, int patch, int firstToken, int tokens, uint64_t stream) {
  return move<true>("ditrun_patchify_video", out, outDtype, latent, latentDtype, channels, frames, height, width, patch,
                    firstToken, tokens, stream);
}

int ditrun_unpatchify_video(uint64_t latent, int latentDtype, uint64_t x, int xDtype, int channels, int frames,
                            int height, int width, int patch, int firstToken, int tokens, uint64_t stream) {
  return move<false>("ditrun_unpatchify_video", latent, latentDtype, x, xDtype, channels, frames, height, width, patch,
                     firstToken, tokens, stream);
}

/** A thread keeps the frequency of its pair and walks down the tokens. Angles in float64, so that a table's entry is
 * off by its rounding to float32 alone, whatever the position. */
__global__ void rope3d(float2 *out, int gridHeight, int gridWidth, int firstToken, int tokens, int pairs) {
  const int pair = blockIdx.x * blockDim.x + threadIdx.x;
  if (pair >= pairs) return;
  const int third = pairs / 3, ofFrame = pairs - 2 * third;
  const int axis = pair < ofFrame ? 0 : pair < ofFrame + third ? 1 : 2;
  const double frequency =
      pow(10000.0, axis == 0 ? -double(pair) / ofFrame : -double((pair - ofFrame) % third) / third);
  const int64_t perFrame = int64_t(gridHeight) * gridWidth;
  for (int row = blockIdx.y * blockDim.y + threadIdx.y; row < tokens; row += gridDim.y * blockDim.y) {
    const int64_t token = int64_t(firstToken) + row;
    const int64_t position = axis == 0   ? token / perFrame
                             : axis == 1 ? token % perFrame / gridWidth
                                         : token % gridWidth;
    double sine, cosine;
    sincos(double(position) * frequency, &sine, &cosine);
    out[int64_t(row) * pairs + pair] = make_float2(float(cosine), float(sine));
  }
}

int ditrun_rope_3d(uint64_t out, int gridHeight, int gridWidth, int firstToken, int tokens, int headDim,
                   uint64_t stream) {
  TRY(useDevice());
  if (gridHeight <= 0 || gridWidth <= 0 || firstToken < 0 || tokens < 0 || int64_t(firstToken) + tokens > INT32_MAX)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rope_3d got a grid of %d×%d a frame and %d tokens from %d.",
                gridHeight, gridWidth, tokens, firstToken);
  if (headDim < 6 || headDim % 2 != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rope_3d needs an even head dim of at least 6, got %d.", headDim);
  if (tokens == 0) return DITRUN_OK;
  if (out == 0 || out % sizeof(float2) != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rope_3d got the address 0x%llx for its pairs of float32.",
                (unsigned long long)out);
  const int pairs = headDim / 2, most = deviceFacts().multiprocessors * 16, down = (tokens + 7) / 8;
  rope3d<<<dim3((pairs + 31) / 32, down < most ? down : most), dim3(32, 8), 0, asStream(stream)>>>(
      asPointer<float2>(out), gridHeight, gridWidth, firstToken, tokens, pairs);
  return launched("ditrun_rope_3d");
}
