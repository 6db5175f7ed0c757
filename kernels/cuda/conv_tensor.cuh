// Convolution as an implicit matrix product on the tensor cores, bf16 in and out, float32 sums.
//
// A block computes a tile of 16 × 16 output pixels by `tileChannels` output channels. For 32 input channels and one kernel frame
// at a time it holds the tile's input pixels with their halo in shared memory once, and all kernel rows and columns read them
// from there, shifted: an input pixel crosses the L2 cache once per kernel frame, not once per tap. Upsampling reads each
// stored pixel from four places; nothing is written out for it. Rows of a fragment are 16 neighbouring pixels of an image row.
//
// A step is one kernel row over 32 input channels: its weights, and a part of the next pixels. Four warps of the block do nothing
// but queue copies (cp.async), as many steps ahead as there are slots; eight multiply. Blocks are persistent, and the copies run
// on across tiles, so that the epilogue of one tile hides the first loads of the next.
#pragma once

#include "conv.h"
#include "numbers.cuh"
#include "ptx/mma.cuh"

namespace conv {

constexpr int warps = 8, copyWarps = 4;      // that multiply, that copy
constexpr int threads = 32 * (warps + copyWarps), copyThreads = 32 * copyWarps;
constexpr int tileSide = 16;
constexpr int chunk = 32;                    // input channels of a step
constexpr int pixelBytes = chunk * 2;        // of a pixel, or of an output channel's weights, in shared memory
constexpr int slots = 4;                     // of weights: one being read, one whose last product may still run, two arriving

/** Sizes that follow from kernel width (and height), upsampling, and output channels of a tile. */
template <int kernelSize, int upsample, int tileChannels>
struct Layout {
  static constexpr int shift = upsample == 2 ? 1 : 0;
  /** Side of the square of input pixels that a tile needs. */
  static constexpr int side = ((tileSide - 1 + kernelSize - 1 + upsample - 1) >> shift) + 1;
  static constexpr int pixelsBytes = (side * side * pixelBytes + 127) / 128 * 128;
  static constexpr int tapBytes = tileChannels * pixelBytes;
  static constexpr int weightBytes = kernelSize * tapBytes;
  /** The pixels of a stage are queued with the steps of the stage before it, when the step `slots` before is done. */
  static constexpr int pixelSlots = kernelSize == 1 ? slots + 1 : 3;
  /** Floats from row to row of the epilogue's 16 pixels: 8 more than the channels, so that no bank is met twice. */
  static constexpr int epilogueStride = tileChannels + 8;
  static constexpr int epilogueBytes = tileSide * epilogueStride * 4;
  static constexpr int pixelsAt = slots * weightBytes;
  static constexpr int epilogueAt = pixelsAt + pixelSlots * pixelsBytes;
  static constexpr int barriersAt = epilogueAt + warps * epilogueBytes;
  static constexpr int sharedBytes = barriersAt + 2 * slots * 8;
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
  const int thread = int(threadIdx.x) - 32 * warps, end = min(items, (part + 1) * share);
#pragma unroll
  for (int i = 0; i < (share + copyThreads - 1) / copyThreads; i++) {
    const int item = part * share + i * copyThreads + thread;
    if (item >= end) break;
    const int pixel = item >> 2, channel = at.channel + (item & 3) * 8;
    const int y = top + pixel / L::side, x = left + pixel % L::side;
    const bool inside = unsigned(y) < unsigned(args.height) && unsigned(x) < unsigned(args.width) && channel < args.inChannels;
    const uint32_t offset = inside ? uint32_t(y * args.width + x) * args.inChannels + channel : 0;
    ptx::copy_async(to + swizzled(pixel, item & 3), from + offset, inside);
  }
}

/** Queues the weights of one kernel row of the stage: for each tap [tileChannels][32]. */
template <class L, int kernelSize, int tileChannels>
__device__ __forceinline__ void copyWeights(const Args &args, const Cursor &at, int kernelRow, uint32_t to) {
  constexpr int items = kernelSize * tileChannels * 4;
  const int taps = args.kernelT * kernelSize * kernelSize, firstTap = (at.kernelFrame * kernelSize + kernelRow) * kernelSize;
  const int thread = int(threadIdx.x) - 32 * warps;
#pragma unroll
  for (int i = 0; i < (items + copyThreads - 1) / copyThreads; i++) {
    const int item = i * copyThreads + thread;
    if (items % copyThreads != 0 && item >= items) break;
    const int tap = item / (tileChannels * 4), row = item / 4 % tileChannels;
    const int n = at.n0 * tileChannels + row, channel = at.channel + (item & 3) * 8;
    const bool inside = n < args.outChannels && channel < args.inChannels;
    const uint32_t offset = inside ? uint32_t(n * taps + firstTap + tap) * args.inChannels + channel : 0;
    ptx::copy_async(to + tap * L::tapBytes + swizzled(row, item & 3), args.weight + offset, inside);
  }
}

/** A place among `count` slots, and the parity of how often it has come round. */
template <int count>
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++slot < count) return;
    slot = 0;
    parity ^= 1;
  }
};

/** The copying warps: every step of every tile of this block, in order. full[slot] is passed when the step and all before it have arrived. */
template <int kernelSize, int upsample, int tileChannels>
__device__ __forceinline__ void copyAll(const Args &args, uint32_t base, uint64_t *full, uint64_t *empty) {
  using L = Layout<kernelSize, upsample, tileChannels>;
  Cursor weights, pixels;
  weights.open(args, blockIdx.x);
  pixels = weights;
  Turn<slots> turn;
  Turn<L::pixelSlots> square;
  const auto copyPart = [&](int part) {
    if (pixels.done(args)) return;
    copyPixels<L, kernelSize>(args, pixels, part, base + L::pixelsAt + square.slot * L::pixelsBytes);
    if (part + 1 < kernelSize) return;
    square.next();
    pixels.next(args);
  };
  for (int part = 0; part < kernelSize; part++) copyPart(part);
  for (; !weights.done(args); weights.next(args)) {
    for (int kernelRow = 0; kernelRow < kernelSize; kernelRow++, turn.next()) {
      // The first time round every slot is free: a barrier that was never passed looks as if its odd phase had been.
      ptx::barrier_wait(empty + turn.slot, turn.parity ^ 1);
      copyWeights<L, kernelSize, tileChannels>(args, weights, kernelRow, base + turn.slot * L::weightBytes);
      copyPart(kernelRow);
      ptx::copy_arrive(full + turn.slot);
    }
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
 * The multiplying warps. Warp w of each half of them owns image rows 8 · half + w and 8 · half + 4 + w of the tile: the rows
 * that one of Hopper's matrix products of 64 rows gives to its warp.
 *
 * Product multiplies: `begin` before the first product of a tile, `ready` before copied data are read, `multiply` for 16
 * input channels of one tap, when at most the last product before it may still be running, `finish` before the sums are read.
 */
template <int kernelSize, int upsample, int tileChannels, class Product>
__device__ __forceinline__ void multiplyAll(const Args &args, char *shared, uint32_t base, uint64_t *full, uint64_t *empty) {
  using L = Layout<kernelSize, upsample, tileChannels>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int firstRow = warp / 4 * 8 + warp % 4;
  const int offsetY = upsample == 2 ? args.padTop & 1 : 0, offsetX = upsample == 2 ? args.padLeft & 1 : 0;
  Turn<slots> turn;
  Turn<L::pixelSlots> squares;
  const auto release = [&](int slot) {
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + slot);
  };
  Cursor at;
  at.open(args, blockIdx.x);
  while (!at.done(args)) {
    typename Product::Sums sums;
    Product::begin(sums);
    const Cursor tile = at;
    int held = -1;
    do {
      const uint32_t square = base + L::pixelsAt + squares.slot * L::pixelsBytes;
      for (int kernelRow = 0; kernelRow < kernelSize; kernelRow++, turn.next()) {
        ptx::barrier_wait(full + turn.slot, turn.parity);
        Product::ready();
        const uint32_t weights = base + turn.slot * L::weightBytes;
        const int above = ((firstRow + kernelRow + offsetY) >> L::shift) * L::side;
        const int below = ((firstRow + 4 + kernelRow + offsetY) >> L::shift) * L::side;
#pragma unroll
        for (int kernelColumn = 0; kernelColumn < kernelSize; kernelColumn++) {
          const int column = (lane % 16 + kernelColumn + offsetX) >> L::shift;
#pragma unroll
          for (int half = 0; half < 2; half++) {
            const int part = half * 2 + lane / 16;
            const uint32_t rows[2] = {square + swizzled(above + column, part), square + swizzled(below + column, part)};
            Product::multiply(half, sums, rows, weights + kernelColumn * L::tapBytes);
          }
          // Now no product of the step before runs any more.
          if (kernelColumn == 0 && held >= 0) release(held);
        }
        held = turn.slot;
      }
      squares.next();
      at.next(args);
    } while (at.tile == tile.tile);
    Product::finish(sums);
    release(held);
    float *const rows = reinterpret_cast<float *>(shared + L::epilogueAt + warp * L::epilogueBytes);
#pragma unroll
    for (int i = 0; i < 2; i++) storeRow<L, tileChannels>(args, tile, tile.y0 + firstRow + 4 * i, rows, sums.value[i]);
  }
}

template <int kernelSize, int upsample, int tileChannels, class Product>
__device__ __forceinline__ void run(const Args &args, char *shared) {
  using L = Layout<kernelSize, upsample, tileChannels>;
  uint64_t *const full = reinterpret_cast<uint64_t *>(shared + L::barriersAt), *const empty = full + slots;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < slots; slot++) {
      ptx::barrier_init(full + slot, copyThreads);
      ptx::barrier_init(empty + slot, warps);
    }
  }
  __syncthreads();
  const uint32_t base = ptx::shared_address(shared);
  if (threadIdx.x >= 32 * warps)
    copyAll<kernelSize, upsample, tileChannels>(args, base, full, empty);
  else
    multiplyAll<kernelSize, upsample, tileChannels, Product>(args, shared, base, full, empty);
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
