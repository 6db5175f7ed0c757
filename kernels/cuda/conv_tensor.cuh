// Convolution as an implicit matrix product on the tensor cores, bf16 in and out, float32 sums.
//
// A block computes a tile of 16 × 16 output pixels by `tileChannels` output channels. For 32 input channels and one kernel frame
// at a time it holds the tile's input pixels with their halo in shared memory once, and all kernel rows and columns read them
// from there, shifted: an input pixel crosses the L2 cache once per kernel frame, not once per tap. Upsampling reads each
// stored pixel from four places; nothing is written out for it. Rows of a fragment are 16 neighbouring pixels of an image row.
//
// A step is one kernel row over 32 input channels: its weights, and a part of the next pixels, come by cp.async three steps
// ahead. Blocks are persistent, and the copies run on across tiles, so that the epilogue of one hides the first loads of the next.
#pragma once

#include "conv.h"
#include "numbers.cuh"
#include "ptx/mma.cuh"

namespace conv {

constexpr int threads = 256, warps = 8;
constexpr int tileSide = 16;
constexpr int chunk = 32;                    // input channels of a step
constexpr int pixelBytes = chunk * 2;        // of a pixel, or of an output channel's weights, in shared memory
constexpr int lead = 3;                      // steps that copies run ahead
constexpr int weightSlots = lead + 2;        // one in use, and one whose last product may still be running

/** Sizes that follow from kernel width (and height), upsampling, and output channels of a tile. */
template <int kernelSize, int upsample, int tileChannels>
struct Layout {
  static constexpr int shift = upsample == 2 ? 1 : 0;
  /** Side of the square of input pixels that a tile needs. */
  static constexpr int side = ((tileSide - 1 + kernelSize - 1 + upsample - 1) >> shift) + 1;
  static constexpr int pixelsBytes = (side * side * pixelBytes + 127) / 128 * 128;
  static constexpr int tapBytes = tileChannels * pixelBytes;
  static constexpr int weightBytes = kernelSize * tapBytes;
  /** Squares in use, arriving, and being asked for; with one step a stage, copies run more stages ahead. */
  static constexpr int pixelSlots = kernelSize == 1 ? lead + 2 : 3;
  /** Floats from row to row of the epilogue's 16 pixels: 8 more than the channels, so that no bank is met twice. */
  static constexpr int epilogueStride = tileChannels + 8;
  static constexpr int epilogueBytes = tileSide * epilogueStride * 4;
  static constexpr int pixelsAt = weightSlots * weightBytes;
  static constexpr int epilogueAt = pixelsAt + pixelSlots * pixelsBytes;
  static constexpr int sharedBytes = epilogueAt + warps * epilogueBytes;
};

/** What a launch is given. */
struct Args {
  const __nv_bfloat16 *x, *history, *weight, *bias, *residual;
  __nv_bfloat16 *out;
  int frames, height, width, inChannels, outChannels, kernelT, strideT;
  int outHeight, outWidth, padTop, padLeft;
  int tilesN, tilesX, tilesY, tiles;  // output channels fastest, then columns, rows, frames
};

/** 16-byte chunk `part` (0 to 3) of row `row` of 64 bytes: the 64-byte swizzle pattern of Hopper's matrix descriptors. */
__device__ __forceinline__ uint32_t swizzled(int row, int part) {
  return uint32_t(row * pixelBytes + ((part ^ (row >> 1 & 3)) << 4));
}

/** Walks the stages of this block's tiles: for each tile kernel frames, for each of them runs of 32 input channels. */
struct Cursor {
  int tile, frame, y0, x0, n0;  // output frame and origin of the tile
  int kernelFrame, channel;

  __device__ void open(const Args &args, int index) {
    tile = index;
    if (tile >= args.tiles) return;
    n0 = tile % args.tilesN;
    int rest = tile / args.tilesN;
    x0 = rest % args.tilesX * tileSide;
    rest /= args.tilesX;
    y0 = rest % args.tilesY * tileSide;
    frame = rest / args.tilesY;
    kernelFrame = firstKernelFrame(args);
    channel = 0;
  }
  __device__ bool done(const Args &args) const { return tile >= args.tiles; }
  /** Frames before the first that there is history of are zeros: their products are left out. */
  __device__ int firstKernelFrame(const Args &args) const {
    return args.history ? 0 : max(0, args.kernelT - 1 - frame * args.strideT);
  }
  __device__ void next(const Args &args) {
    if ((channel += chunk) < args.inChannels) return;
    channel = 0;
    if (++kernelFrame < args.kernelT) return;
    open(args, tile + int(gridDim.x));
  }
};

/** Queues a part (of kernelSize parts) of the stage's square of input pixels; pixels and channels that do not exist are zeros. */
template <class L, int kernelSize>
__device__ __forceinline__ void copyPixels(const Args &args, const Cursor &at, int part, uint32_t to) {
  constexpr int items = L::side * L::side * 4, share = (items + kernelSize - 1) / kernelSize;
  const int frame = at.frame * args.strideT + at.kernelFrame - (args.kernelT - 1);
  const int64_t frameElements = int64_t(args.height) * args.width * args.inChannels;
  const __nv_bfloat16 *from = frame < 0 ? args.history + (frame + args.kernelT - 1) * frameElements : args.x + frame * frameElements;
  const int top = (at.y0 - args.padTop) >> L::shift, left = (at.x0 - args.padLeft) >> L::shift;
  for (int item = part * share + int(threadIdx.x); item < min(items, (part + 1) * share); item += threads) {
    const int pixel = item >> 2, channel = at.channel + (item & 3) * 8;
    const int y = top + pixel / L::side, x = left + pixel % L::side;
    const bool inside = unsigned(y) < unsigned(args.height) && unsigned(x) < unsigned(args.width) && channel < args.inChannels;
    const __nv_bfloat16 *source = inside ? from + (int64_t(y) * args.width + x) * args.inChannels + channel : args.x;
    ptx::copy_async(to + swizzled(pixel, item & 3), source, inside);
  }
}

/** Queues the weights of one kernel row of the stage: for each tap [tileChannels][32]. */
template <class L, int kernelSize, int tileChannels>
__device__ __forceinline__ void copyWeights(const Args &args, const Cursor &at, int kernelRow, uint32_t to) {
  const int taps = args.kernelT * kernelSize * kernelSize, firstTap = (at.kernelFrame * kernelSize + kernelRow) * kernelSize;
  for (int item = threadIdx.x; item < kernelSize * tileChannels * 4; item += threads) {
    const int tap = item / (tileChannels * 4), row = item / 4 % tileChannels;
    const int n = at.n0 * tileChannels + row, channel = at.channel + (item & 3) * 8;
    const bool inside = n < args.outChannels && channel < args.inChannels;
    const __nv_bfloat16 *source = inside ? args.weight + (int64_t(n) * taps + firstTap + tap) * args.inChannels + channel : args.weight;
    ptx::copy_async(to + tap * L::tapBytes + swizzled(row, item & 3), source, inside);
  }
}

/** Adds bias and residual to the sums of one image row of a tile, rounds, and stores it; `rows` [16][epilogueStride] are this warp's own. */
template <class L, int tileChannels>
__device__ __forceinline__ void storeRow(const Args &args, const Cursor &at, int y, float *rows, const float (&sums)[tileChannels / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < tileChannels / 8; j++) {
    float *to = rows + lane / 4 * L::epilogueStride + j * 8 + lane % 4 * 2;
    *reinterpret_cast<float2 *>(to) = make_float2(sums[j][0], sums[j][1]);
    *reinterpret_cast<float2 *>(to + 8 * L::epilogueStride) = make_float2(sums[j][2], sums[j][3]);
  }
  __syncwarp();
  const bool vectors = args.outChannels % vectorWidth == 0;
  for (int item = lane; item < tileSide * (tileChannels / 8); item += 32) {
    const int row = item / (tileChannels / 8), column = item % (tileChannels / 8) * 8;
    const int x = at.x0 + row, n = at.n0 * tileChannels + column;
    if (y >= args.outHeight || x >= args.outWidth || n >= args.outChannels) continue;
    const int64_t index = ((int64_t(at.frame) * args.outHeight + y) * args.outWidth + x) * args.outChannels + n;
    float values[vectorWidth], other[vectorWidth];
    load8(rows, row * L::epilogueStride + column, false, values);
    if (vectors) {
      if (args.bias) {
        load8(args.bias, n, true, other);
#pragma unroll
        for (int i = 0; i < vectorWidth; i++) values[i] += other[i];
      }
      if (args.residual) {
        load8(args.residual, index, true, other);
#pragma unroll
        for (int i = 0; i < vectorWidth; i++) values[i] += other[i];
      }
      store8(args.out, index, true, values);
      continue;
    }
#pragma unroll
    for (int i = 0; i < vectorWidth; i++) {
      if (n + i >= args.outChannels) break;
      if (args.bias) values[i] += loadOne(args.bias, n + i, DITRUN_BF16);
      if (args.residual) values[i] += loadOne(args.residual, index + i, DITRUN_BF16);
      storeOne(args.out, index + i, DITRUN_BF16, values[i]);
    }
  }
  __syncwarp();
}

/**
 * Warp w of each half of the block owns image rows 8 · half + w and 8 · half + 4 + w of the tile: the rows that one of
 * Hopper's matrix products of 64 rows gives to its warp.
 *
 * Product multiplies: `begin` before the first product of a tile, `ready` before other threads' copies are read,
 * `multiply<index>` for 16 input channels of one tap, and `finish` before the sums are read.
 */
template <int kernelSize, int upsample, int tileChannels, class Product>
__device__ __forceinline__ void run(const Args &args, char *shared) {
  using L = Layout<kernelSize, upsample, tileChannels>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t base = ptx::shared_address(shared);
  const int firstRow = warp / 4 * 8 + warp % 4;

  Cursor computing, weights, pixels;
  computing.open(args, blockIdx.x);
  weights = pixels = computing;
  int weightSlot = 0, weightRow = 0, pixelSlot = 0, pixelPart = 0;
  const auto copyPart = [&] {
    if (pixels.done(args)) return;
    copyPixels<L, kernelSize>(args, pixels, pixelPart, base + L::pixelsAt + pixelSlot * L::pixelsBytes);
    if (++pixelPart < kernelSize) return;
    pixelPart = 0;
    pixelSlot = pixelSlot + 1 == L::pixelSlots ? 0 : pixelSlot + 1;
    pixels.next(args);
  };
  const auto copyStep = [&] {
    if (!weights.done(args)) {
      copyWeights<L, kernelSize, tileChannels>(args, weights, weightRow, base + weightSlot * L::weightBytes);
      weightSlot = weightSlot + 1 == weightSlots ? 0 : weightSlot + 1;
      if (++weightRow == kernelSize) {
        weightRow = 0;
        weights.next(args);
      }
    }
    copyPart();
    // Also where nothing is left to copy: groups are counted.
    ptx::copy_commit();
  };
  for (int part = 0; part < kernelSize; part++) copyPart();
  for (int step = 0; step < lead; step++) copyStep();

  int readWeights = 0, readPixels = 0;
  const int offsetY = upsample == 2 ? args.padTop & 1 : 0, offsetX = upsample == 2 ? args.padLeft & 1 : 0;
  while (!computing.done(args)) {
    typename Product::Sums sums;
    Product::begin(sums);
    const Cursor tile = computing;
    do {
      for (int kernelRow = 0; kernelRow < kernelSize; kernelRow++) {
        ptx::copy_wait<lead - 1>();
        Product::ready();
        __syncthreads();
        copyStep();
        const uint32_t square = base + L::pixelsAt + readPixels * L::pixelsBytes;
        const uint32_t rowWeights = base + readWeights * L::weightBytes;
        readWeights = readWeights + 1 == weightSlots ? 0 : readWeights + 1;
        const int above = ((firstRow + kernelRow + offsetY) >> L::shift) * L::side;
        const int below = ((firstRow + 4 + kernelRow + offsetY) >> L::shift) * L::side;
#pragma unroll
        for (int kernelColumn = 0; kernelColumn < kernelSize; kernelColumn++) {
          const int column = (lane % 16 + kernelColumn + offsetX) >> L::shift;
#pragma unroll
          for (int half = 0; half < 2; half++) {
            const int part = half * 2 + lane / 16;
            const uint32_t rows[2] = {square + swizzled(above + column, part), square + swizzled(below + column, part)};
            Product::template multiply<half>(sums, rows, rowWeights + kernelColumn * L::tapBytes);
          }
        }
      }
      readPixels = readPixels + 1 == L::pixelSlots ? 0 : readPixels + 1;
      computing.next(args);
    } while (computing.tile == tile.tile);
    Product::finish(sums);
    float *const rows = reinterpret_cast<float *>(shared + L::epilogueAt + warp * L::epilogueBytes);
#pragma unroll
    for (int i = 0; i < 2; i++) storeRow<L, tileChannels>(args, tile, tile.y0 + firstRow + 4 * i, rows, sums.value[i]);
  }
}

#ifndef DITRUN_CONV_NO_LAUNCH
/** Fills in the arguments, allows the kernel its shared memory, and launches one block on each multiprocessor. */
template <class L, int tileChannels>
int launch(void (*kernel)(Args), const char *name, const Conv &c, int multiprocessors, cudaStream_t stream) {
  Args args{asPointer<const __nv_bfloat16>(c.x), asPointer<const __nv_bfloat16>(c.history), asPointer<const __nv_bfloat16>(c.weight),
            asPointer<const __nv_bfloat16>(c.bias), asPointer<const __nv_bfloat16>(c.residual), asPointer<__nv_bfloat16>(c.out),
            c.frames, c.height, c.width, c.inChannels, c.outChannels, c.kernelT, c.strideT, c.outHeight, c.outWidth, c.padTop, c.padLeft, 0, 0, 0, 0};
  args.tilesN = (c.outChannels + tileChannels - 1) / tileChannels;
  args.tilesX = (c.outWidth + tileSide - 1) / tileSide;
  args.tilesY = (c.outHeight + tileSide - 1) / tileSide;
  const int64_t tiles = int64_t(args.tilesN) * args.tilesX * args.tilesY * c.outFrames;
  if (tiles >= int64_t(1) << 30) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d: %lld tiles are more than one launch can count.", (long long)tiles);
  args.tiles = int(tiles);
  CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::sharedBytes));
  kernel<<<args.tiles < multiprocessors ? args.tiles : multiprocessors, threads, L::sharedBytes, stream>>>(args);
  return launched(name);
}
#endif

}  // namespace conv
