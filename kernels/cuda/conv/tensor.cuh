// Convolution as an implicit matrix product on the tensor cores, bf16 or f16 in and out, float32 sums.
//
// A block computes a tile of 256 output pixels, 16 × 16 or 8 rows of 32, by `tileChannels` output channels. For 32
// input channels and one kernel frame at a time (a stage) it holds the tile's input pixels with their halo in shared
// memory once, and all kernel rows and columns read them from there, shifted: an input pixel crosses the L2 cache once
// per kernel frame, not once per tap. Upsampling reads each stored pixel from four places; nothing is written out for
// it. Rows of a fragment are 16 neighbouring pixels of an image row; a warp multiplies two image rows, one below the
// other, so that kernel rows share their fragments.
//
// A step is one kernel column over 32 input channels: its weights. Four warps of the block do nothing but queue copies,
// as many steps ahead as there are slots, and of pixels a stage ahead; eight multiply. Blocks are persistent, and the
// copies run on across tiles, so that the epilogue of one tile hides the first loads of the next. How is copied and how
// multiplied is the kernels' own (conv/copies_async.cuh, conv/copies_bulk.cuh; conv/product_mma.cuh, conv/sm90.cu).
//
// Where the last tiles are too few for all multiprocessors, the blocks of a cluster divide a tile's stages and add
// their sums in the order of the blocks (Args::parts).
#pragma once

#include "conv/conv.h"
#include "runtime/numbers.cuh"
#include "ptx/mma.cuh"

namespace conv {

constexpr int warps = 8, copyWarps = 4;  // that multiply, that copy
constexpr int threads = 32 * (warps + copyWarps), copyThreads = 32 * copyWarps;
constexpr int tilePixels = 256;
constexpr int segment = 16;            // neighbouring pixels of an image row: the rows of a fragment
constexpr int chunk = 32;              // input channels of a step
constexpr int pixelBytes = chunk * 2;  // of a pixel, or of an output channel's weights, in shared memory
// of weights: one being read, one whose last product may still run, two arriving
constexpr int slots = 4;

/** What a kernel is compiled for: the kernel's width and height, upsampling, output channels and rows (16 or 8) of a
 * tile; and sizes that follow. */
template <int kernelSize_, int upsample, int tileChannels_, int tileRows_ = 16>
struct Layout {
  static constexpr int kernelSize = kernelSize_, tileChannels = tileChannels_, tileRows = tileRows_,
                       tileColumns = tilePixels / tileRows;
  static constexpr int shift = upsample == 2 ? 1 : 0;
  /** Input pixels that a tile needs for so many output pixels in a row or column. */
  static constexpr int inputs(int outputs) { return ((outputs - 1 + kernelSize - 1 + upsample - 1) >> shift) + 1; }
  static constexpr int inputRows = inputs(tileRows), inputColumns = inputs(tileColumns),
                       inputPixels = inputRows * inputColumns;
  static constexpr int pixelsBytes = (inputPixels * pixelBytes + 1023) / 1024 * 1024;
  static constexpr int tapBytes = tileChannels * pixelBytes;
  static constexpr int weightBytes = kernelSize * tapBytes;
  /** The pixels of a stage are queued with the steps of the stage before it, when the step `slots` before is done. */
  static constexpr int pixelSlots = kernelSize == 1 ? slots + 1 : 3;
  /** Floats from row to row of the epilogue's 16 pixels: 8 more than the channels, so that no bank is met twice. */
  static constexpr int epilogueStride = tileChannels + 8;
  static constexpr int epilogueBytes = segment * epilogueStride * 4;
  static constexpr int pixelsAt = slots * weightBytes;
  static constexpr int epilogueAt = pixelsAt + pixelSlots * pixelsBytes;
  static constexpr int barriersAt = epilogueAt + warps * epilogueBytes;
  static constexpr int sharedBytes = barriersAt + (2 * slots + pixelSlots) * 8;
  /** The sums of a whole tile, of which another block of the cluster takes its share, lie where weights and pixels
   * were. */
  static_assert(tilePixels * epilogueStride * 4 <= barriersAt);
};

/** What a launch is given. Elements are bf16, or f16 where Product::dtype says so: the pointers' type counts their two
 * bytes only. */
struct Args {
  const __nv_bfloat16 *x, *history, *weight, *bias, *residual;
  __nv_bfloat16 *out;
  int frames, height, width, inChannels, outChannels, kernelT, strideT;
  int outHeight, outWidth, padTop, padLeft;
  int tilesN, tilesX, tilesY;  // output channels fastest, then columns, rows, frames
  int firstTile, tiles;        // of the whole image, this launch computes the tiles from firstTile up to `tiles`
  int parts;                   // blocks that share a tile: a cluster of them, or 1
};

/** 16-byte chunk `part` (0 to 3) of row `row` of 64 bytes: the 64-byte swizzle pattern of Hopper's matrix descriptors.
 */
__device__ __forceinline__ uint32_t swizzled(int row, int part) {
  return uint32_t(row * pixelBytes + ((part ^ (row >> 1 & 3)) << 4));
}

/** Walks the stages of this block's tiles, of each tile those that are its part: for each kernel frame runs of 32 input
 * channels. */
template <class L>
struct Cursor {
  int tile, frame, y0, x0, n0;  // output frame and origin of the tile
  int kernelFrame, channel, left;

  __device__ void begin(const Args &args) { open(args, args.firstTile + int(blockIdx.x) / args.parts); }
  __device__ void open(const Args &args, int index) {
    tile = index;
    if (tile >= args.tiles) return;
    n0 = tile % args.tilesN;
    int rest = tile / args.tilesN;
    x0 = rest % args.tilesX * L::tileColumns;
    rest /= args.tilesX;
    y0 = rest % args.tilesY * L::tileRows;
    frame = rest / args.tilesY;
    const int runs = (args.inChannels + chunk - 1) / chunk, firstFrame = firstKernelFrame(args);
    const int stages = (args.kernelT - firstFrame) * runs, part = int(blockIdx.x) % args.parts;
    const int first = stages * part / args.parts;
    left = stages * (part + 1) / args.parts - first;
    kernelFrame = firstFrame + first / runs;
    channel = first % runs * chunk;
  }
  __device__ bool done(const Args &args) const { return tile >= args.tiles; }
  /** Frames before the first that there is history of are zeros: their products are left out. */
  __device__ int firstKernelFrame(const Args &args) const {
    return args.history ? 0 : max(0, args.kernelT - 1 - frame * args.strideT);
  }
  __device__ void next(const Args &args) {
    if (--left == 0) {
      open(args, tile + int(gridDim.x) / args.parts);
      return;
    }
    if ((channel += chunk) < args.inChannels) return;
    channel = 0;
    kernelFrame++;
  }
};

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

/** full[slot]: the step's weights have arrived; empty[slot]: all multiplying warps are through with the step;
 * pixels[slot]: the stage's pixels have arrived. */
template <class L>
struct Barriers {
  uint64_t *full, *empty, *pixels;
  __device__ explicit Barriers(char *shared)
      : full(reinterpret_cast<uint64_t *>(shared + L::barriersAt)), empty(full + slots), pixels(empty + slots) {}
};

/** Where in the output the 8 channels of pixel x, y from column `column` of the tile lie; -1 if there is no such pixel
 * or channel. */
template <class L>
__device__ __forceinline__ int64_t outputIndex(const Args &args, const Cursor<L> &at, int y, int x, int column) {
  const int n = at.n0 * L::tileChannels + column;
  if (y >= args.outHeight || x >= args.outWidth || n >= args.outChannels) return -1;
  return ((int64_t(at.frame) * args.outHeight + y) * args.outWidth + x) * args.outChannels + n;
}

/** Adds bias and residual to the sums of 8 channels from n, rounds, and stores them. */
template <int dtype>
__device__ __forceinline__ void storeChannels(const Args &args, int64_t index, int n, float (&values)[vectorWidth],
                                              const uint4 &residual) {
  if (args.outChannels % vectorWidth == 0) {
    float other[vectorWidth];
    if (args.bias) {
      load8<dtype>(args.bias, n, true, other);
#pragma unroll
      for (int i = 0; i < vectorWidth; i++) values[i] += other[i];
    }
    unpack<dtype>({residual, {}}, true, other);
#pragma unroll
    for (int i = 0; i < vectorWidth; i++) values[i] += other[i];
    store8<dtype>(args.out, index, true, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < vectorWidth; i++) {
    if (n + i >= args.outChannels) break;
    if (args.bias) values[i] += loadOne(args.bias, n + i, dtype);
    if (args.residual) values[i] += loadOne(args.residual, index + i, dtype);
    storeOne(args.out, index + i, dtype, values[i]);
  }
}

/** The residual's 8 channels at this index of the output, or zeros. */
__device__ __forceinline__ uint4 loadResidual(const Args &args, int64_t index) {
  if (!args.residual || index < 0 || args.outChannels % vectorWidth != 0) return make_uint4(0, 0, 0, 0);
  return *reinterpret_cast<const uint4 *>(args.residual + index);
}

/** What a warp stores of one image row of a tile: 16 pixels, 8 channels at a time, with the residual's loads all in
 * flight at once. */
template <class L, int dtype>
struct RowStore {
  static constexpr int runs = L::tileChannels / 8, items = segment * runs / 32;
  uint4 residual[items];

  __device__ static int pixel(int item) { return (item * 32 + int(threadIdx.x) % 32) / runs; }
  __device__ static int column(int item) { return (item * 32 + int(threadIdx.x) % 32) % runs * 8; }

  __device__ __forceinline__ void load(const Args &args, const Cursor<L> &at, int y, int x) {
#pragma unroll
    for (int item = 0; item < items; item++)
      residual[item] = loadResidual(args, args.residual ? outputIndex(args, at, y, x + pixel(item), column(item)) : -1);
  }
  /** rows [16][epilogueStride]: sums, which this warp has written. */
  __device__ __forceinline__ void store(const Args &args, const Cursor<L> &at, int y, int x, const float *rows) const {
#pragma unroll
    for (int item = 0; item < items; item++) {
      const int64_t index = outputIndex(args, at, y, x + pixel(item), column(item));
      if (index < 0) continue;
      float values[vectorWidth];
      load8(rows, pixel(item) * L::epilogueStride + column(item), false, values);
      storeChannels<dtype>(args, index, at.n0 * L::tileChannels + column(item), values, residual[item]);
    }
  }
};

/** Sums of 16 pixels from registers to rows [16][epilogueStride]. */
template <class L>
__device__ __forceinline__ void putSums(float *rows, const float (&sums)[L::tileChannels / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < L::tileChannels / 8; j++) {
    float *to = rows + lane / 4 * L::epilogueStride + j * 8 + lane % 4 * 2;
    *reinterpret_cast<float2 *>(to) = make_float2(sums[j][0], sums[j][1]);
    *reinterpret_cast<float2 *>(to + 8 * L::epilogueStride) = make_float2(sums[j][2], sums[j][3]);
  }
}

/**
 * The multiplying warps. Each owns two image rows of 16 pixels, one below the other: warp w of a warp group the rows 2
 * w and 2 w + 1 of the 8 that are the group's, and they are the w-th 16 rows of each of the group's two products of 64.
 *
 * Product multiplies elements of its dtype (`copying` and `multiplying` are called once by the warps that do): `begin`
 * before the first product of a tile, `multiply` for 16 input channels of the taps of one kernel column, when at most
 * the last call's products may still be running, `finish` before the sums are read. Where it can share a tile with
 * other blocks, `share` takes the place of the epilogue.
 */
template <class L, class Product, class Copies>
__device__ __forceinline__ void multiplyAll(const Args &args, char *shared, uint32_t base,
                                            const Barriers<L> &barriers) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int firstRow = (L::tileRows == 16 ? warp / 4 * 8 : 0) + warp % 4 * 2,
            firstColumn = L::tileRows == 16 ? 0 : warp / 4 * segment;
  const int offsetY = L::shift ? args.padTop & 1 : 0, offsetX = L::shift ? args.padLeft & 1 : 0;
  Turn<slots> turn;
  Turn<L::pixelSlots> squares;
  const auto release = [&](int slot) {
    __syncwarp();
    if (lane == 0) ptx::barrierArrive(barriers.empty + slot);
  };
  Cursor<L> at;
  at.begin(args);
  while (!at.done(args)) {
    typename Product::Sums sums;
    Product::begin(sums);
    const Cursor<L> tile = at;
    int held = -1;
    do {
      const uint32_t square = base + L::pixelsAt + squares.slot * L::pixelsBytes;
      if constexpr (Copies::pixelsApart) ptx::barrierWait(barriers.pixels + squares.slot, squares.parity);
      for (int kernelColumn = 0; kernelColumn < L::kernelSize; kernelColumn++, turn.next()) {
        ptx::barrierWait(barriers.full + turn.slot, turn.parity);
        const uint32_t weights = base + turn.slot * L::weightBytes;
        const int column = (firstColumn + lane % segment + kernelColumn + offsetX) >> L::shift;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          uint32_t rows[L::kernelSize + 1];
#pragma unroll
          for (int i = 0; i <= L::kernelSize; i++)
            rows[i] = square +
                      swizzled(((firstRow + i + offsetY) >> L::shift) * L::inputColumns + column, half * 2 + lane / 16);
          Product::multiply(half, sums, rows, weights);
          // Now no product of the step before runs any more.
          if (half == 1 && held >= 0) release(held);
        }
        held = turn.slot;
      }
      squares.next();
      at.next(args);
    } while (at.tile == tile.tile);
    const int y = tile.y0 + firstRow, x = tile.x0 + firstColumn;
    RowStore<L, Product::dtype> stores[2];
    if (args.parts == 1)
#pragma unroll
      for (int i = 0; i < 2; i++) stores[i].load(args, tile, y + i, x);
    Product::finish(sums);
    release(held);
    if constexpr (Product::shares) {
      if (args.parts > 1) {
        Product::template share<L>(args, tile, shared, firstRow, firstColumn, sums);
        continue;
      }
    }
    float *const rows = reinterpret_cast<float *>(shared + L::epilogueAt + warp * L::epilogueBytes);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      putSums<L>(rows, sums.value[i]);
      __syncwarp();
      stores[i].store(args, tile, y + i, x, rows);
      __syncwarp();
    }
  }
}

/** The kernel. Copies::Args are Args, and what its copies need beside. */
template <class L, class Product, class Copies>
__device__ __forceinline__ void run(const typename Copies::Args &args, char *shared) {
  const Barriers<L> barriers(shared);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < slots; slot++) {
      ptx::barrierInit(barriers.full + slot, Copies::arrivals);
      ptx::barrierInit(barriers.empty + slot, warps);
    }
    for (int slot = 0; slot < L::pixelSlots; slot++) ptx::barrierInit(barriers.pixels + slot, 1);
    Product::initialized();
  }
  __syncthreads();
  const uint32_t base = ptx::sharedAddress(shared);
  if (threadIdx.x >= 32 * warps) {
    Product::copying();
    Copies::template all<L>(args, base, barriers);
  } else {
    Product::multiplying();
    multiplyAll<L, Product, Copies>(args, shared, base, barriers);
  }
}

/** A launch's arguments for the whole image, in tiles of this layout. */
template <class L>
int argumentsOf(const Conv &c, Args &args) {
  args = {asPointer<const __nv_bfloat16>(c.x),
          asPointer<const __nv_bfloat16>(c.history),
          asPointer<const __nv_bfloat16>(c.weight),
          asPointer<const __nv_bfloat16>(c.bias),
          asPointer<const __nv_bfloat16>(c.residual),
          asPointer<__nv_bfloat16>(c.out),
          c.frames,
          c.height,
          c.width,
          c.inChannels,
          c.outChannels,
          c.kernelT,
          c.strideT,
          c.outHeight,
          c.outWidth,
          c.padTop,
          c.padLeft,
          (c.outChannels + L::tileChannels - 1) / L::tileChannels,
          (c.outWidth + L::tileColumns - 1) / L::tileColumns,
          (c.outHeight + L::tileRows - 1) / L::tileRows,
          0,
          0,
          1};
  const int64_t tiles = int64_t(args.tilesN) * args.tilesX * args.tilesY * c.outFrames;
  if (tiles >= int64_t(1) << 30)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d: %lld tiles are more than one launch can count.",
                (long long)tiles);
  args.tiles = int(tiles);
  return DITRUN_OK;
}

}  // namespace conv
