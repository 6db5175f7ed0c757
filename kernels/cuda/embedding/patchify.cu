// Image to tokens and back, for tokens of a patch grid in row-major order.
#include "runtime/device.h"
#include "runtime/numbers.cuh"

struct Patches {
  const void *source;
  void *destination;
  int sourceDtype, destinationDtype;
  int channels, height, width, patch, firstToken;
  int64_t count;  // elements of all the tokens
};

/** Each thread moves `run` pixels that are neighbours in the image and in the token: 8, or 1 where patch is no multiple
 * of 8. */
template <bool toTokens, int run>
__global__ void movePatches(const __grid_constant__ Patches args) {
  const uint32_t patch = args.patch, gridWidth = args.width / patch, runsPerToken = args.channels * patch * patch / run;
  const uint32_t runs = uint32_t(args.count / run), threads = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < runs; i += threads) {
    const uint32_t token = args.firstToken + i / runsPerToken, within = i % runsPerToken * run;
    const uint32_t channel = within / (patch * patch), row = within / patch % patch, column = within % patch;
    const uint32_t y = token / gridWidth * patch + row, x = token % gridWidth * patch + column;
    const int64_t pixel = (int64_t(channel) * args.height + y) * args.width + x, element = int64_t(i) * run;
    const int64_t from = toTokens ? pixel : element, to = toTokens ? element : pixel;
    if constexpr (run == vectorWidth) {
      float values[vectorWidth];
      load8(args.source, from, args.sourceDtype == DITRUN_BF16, values);
      store8(args.destination, to, args.destinationDtype == DITRUN_BF16, values);
    } else {
      storeOne(args.destination, to, args.destinationDtype, loadOne(args.source, from, args.sourceDtype));
    }
  }
}

template <bool toTokens>
static int move(const char *what, uint64_t destination, int destinationDtype, uint64_t source, int sourceDtype,
                int channels, int height, int width, int patch, int firstToken, int tokens, uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(sourceDtype) || !isFloat(destinationDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, got %s to %s.", what, dtypeName(sourceDtype),
                dtypeName(destinationDtype));
  if (channels <= 0 || patch <= 0 || height <= 0 || width <= 0 || height % patch != 0 || width % patch != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got an image of %d×%d×%d, which patches of %d do not tile.", what,
                channels, height, width, patch);
  const int64_t grid = int64_t(height / patch) * (width / patch);
  if (firstToken < 0 || tokens < 0 || int64_t(firstToken) + tokens > grid)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got tokens %d to %lld of a grid of %lld.", what, firstToken,
                (long long)firstToken + tokens, (long long)grid);
  if (tokens == 0) return DITRUN_OK;
  if (source == 0 || destination == 0) return fail(DITRUN_INVALID_ARGUMENT, "%s got a null address.", what);
  const Patches args{asPointer<void>(source),
                     asPointer<void>(destination),
                     sourceDtype,
                     destinationDtype,
                     channels,
                     height,
                     width,
                     patch,
                     firstToken,
                     int64_t(tokens) * channels * patch * patch};
  if (args.count >= int64_t(1) << 32)
    return fail(DITRUN_INVALID_ARGUMENT, "%s moves fewer than 2^32 pixels, got %lld.", what, (long long)args.count);
  const int multiprocessors = deviceFacts().multiprocessors;
  if (patch % vectorWidth == 0 && aligned16(source) && aligned16(destination))
    movePatches<toTokens, vectorWidth>
        <<<gridFor(args.count / vectorWidth, 256, multiprocessors), 256, 0, asStream(stream)>>>(args);
  else movePatches<toTokens, 1><<<gridFor(args.count, 256, multiprocessors), 256, 0, asStream(stream)>>>(args);
  return launched(what);
}

int ditrun_patchify(uint64_t out, int outDtype, uint64_t image, int imageDtype, int channels, int height, int width,
                    int patch, int firstToken, int tokens, uint64_t stream) {
  return move<true>("ditrun_patchify", out, outDtype, image, imageDtype, channels, height, width, patch, firstToken,
                    tokens, stream);
}

int ditrun_unpatchify(uint64_t image, int imageDtype, uint64_t x, int xDtype, int channels, int height, int width,
                      int patch, int firstToken, int tokens, uint64_t stream) {
  return move<false>("ditrun_unpatchify", image, imageDtype, x, xDtype, channels, height, width, patch, firstToken,
                     tokens, stream);
}
