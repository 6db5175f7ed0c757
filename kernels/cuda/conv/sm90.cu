// The tensor-core convolution with Hopper's wgmma: pixels from registers, since their rows in shared memory start
// anywhere, weights from shared memory by descriptor.
#include "runtime/device.h"
#include "conv/copies_bulk.cuh"
#include "runtime/launch_clusters.h"
#include "ptx/cluster.cuh"
#include "ptx/fence.cuh"
#include "ptx/wgmma.cuh"
#include "runtime/tensor_map.h"

namespace conv {

/** d[64, N] += a[64, 16] b[16, N], N = 96 or 16: a in registers, b in shared memory as [N][16] of rows of 64 bytes. */
template <int dtype>
struct Segments;

#define CONV_SEGMENTS(DTYPE, TYPE)                                                                                  \
  template <>                                                                                                       \
  struct Segments<DTYPE> {                                                                                          \
    static __device__ __forceinline__ void multiply(float (&d)[12][4], const uint32_t (&a)[4], uint64_t b) {        \
      asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE                                      \
                   " {"                                                                                             \
                   "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
                   "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "               \
                   "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"                 \
                   "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 0;"                                                      \
                   : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),      \
                     "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),      \
                     "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),      \
                     "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),      \
                     "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),      \
                     "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),      \
                     "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),    \
                     "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]) \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                               \
    static __device__ __forceinline__ void multiply(float (&d)[2][4], const uint32_t (&a)[4], uint64_t b) {         \
      asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPE "." TYPE                                      \
                   " {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, 1, 1, 1, 0;"                        \
                   : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),      \
                     "+f"(d[1][2]), "+f"(d[1][3])                                                                   \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                               \
  };
CONV_SEGMENTS(DITRUN_BF16, "bf16")
CONV_SEGMENTS(DITRUN_F16, "f16")

template <int tileChannels, int elements>
struct Sm90Product {
  static constexpr int dtype = elements;
  /** A warp's 16 rows of each of two products of 64 rows: the layout of mma.m16n8k16's result, row by row of the image.
   */
  struct Sums {
    float value[2][tileChannels / 8][4];
    /** Image rows of pixels, of this and of the last 16 channels: the last may still be read by products in flight. */
    uint32_t pixels[2][4][4];
  };

  /** The copy engine sees the barriers past the ordinary path to shared memory. */
  static __device__ __forceinline__ void initialized() { ptx::fenceMbarrierInit(); }
  // Of the 168 registers a thread that the block is launched with.
  static __device__ __forceinline__ void copying() { ptx::registersDecrease<24>(); }
  static __device__ __forceinline__ void multiplying() { ptx::registersIncrease<240>(); }

  static __device__ __forceinline__ void begin(Sums &sums) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < tileChannels / 8; j++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums.value[i][j][k] = 0;
  }

  static __device__ __forceinline__ void finish(Sums &sums) {
    ptx::wgmmaWait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < tileChannels / 8; j++) ptx::wgmmaPin(sums.value[i][j]);
  }

  template <int count>
  static __device__ __forceinline__ void multiply(int half, Sums &sums, const uint32_t (&rows)[count],
                                                  uint32_t weights) {
    // At most the products of the last 16 channels still run: those before them, whose registers are loaded anew, are
    // done.
    ptx::wgmmaWait<1>();
#pragma unroll
    for (int i = 0; i < count; i++) ptx::loadMatrices(sums.pixels[half][i], rows[i]);
    ptx::wgmmaFence();
#pragma unroll
    for (int kernelRow = 0; kernelRow + 1 < count; kernelRow++) {
      // Rows of 64 bytes in groups of 8, 512 bytes apart, in the 64-byte swizzle (PTX ISA, "Matrix descriptor"); 16
      // channels are 32 bytes.
      const uint64_t b = ptx::descriptor(weights + kernelRow * tileChannels * pixelBytes + half * 32, 16,
                                         8 * pixelBytes, ptx::Swizzle::bytes64);
      Segments<dtype>::multiply(sums.value[0], sums.pixels[half][kernelRow], b);
      Segments<dtype>::multiply(sums.value[1], sums.pixels[half][kernelRow + 1], b);
    }
    ptx::wgmmaCommit();
  }

  static constexpr bool shares = true;

  /**
   * Adds the sums of all blocks of the cluster, in their order, and stores this block's share of the pixels. The tile
   * is the last of its blocks, whose copies have all arrived. Every multiplying thread calls it.
   */
  template <class L>
  static __device__ __forceinline__ void share(const Args &args, const Cursor<L> &tile, char *shared, int firstRow,
                                               int firstColumn, const Sums &sums) {
    constexpr int runs = L::tileChannels / 8, items = tilePixels * runs, batch = 3;
    const int part = int(ptx::clusterRank()), end = items * (part + 1) / args.parts;
    ptx::namedBarrierSync(1, 32 * warps);  // no warp reads weights or pixels any more
    float *const all = reinterpret_cast<float *>(shared);
#pragma unroll
    for (int i = 0; i < 2; i++)
      putSums<L>(all + ((firstRow + i) * L::tileColumns + firstColumn) * L::epilogueStride, sums.value[i]);
    ptx::clusterSync();
    for (int first = items * part / args.parts + int(threadIdx.x); first < end; first += batch * 32 * warps) {
      int64_t index[batch];
      uint4 residual[batch];
      float values[batch][vectorWidth] = {};
#pragma unroll
      for (int i = 0; i < batch; i++) {
        const int item = first + i * 32 * warps, pixel = item / runs;
        index[i] = item < end ? outputIndex(args, tile, tile.y0 + pixel / L::tileColumns,
                                            tile.x0 + pixel % L::tileColumns, item % runs * 8)
                              : -1;
        residual[i] = loadResidual(args, index[i]);
      }
      for (int other = 0; other < args.parts; other++) {
#pragma unroll
        for (int i = 0; i < batch; i++) {
          const int item = min(first + i * 32 * warps, end - 1);
          const uint32_t at =
              ptx::clusterAddress(ptx::sharedAddress(all + item / runs * L::epilogueStride + item % runs * 8), other);
          const float4 low = ptx::loadCluster(at), high = ptx::loadCluster(at + 16);
          const float sum[vectorWidth] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
          for (int k = 0; k < vectorWidth; k++) values[i][k] += sum[k];
        }
      }
#pragma unroll
      for (int i = 0; i < batch; i++)
        if (index[i] >= 0)
          storeChannels<dtype>(args, index[i], tile.n0 * L::tileChannels + (first + i * 32 * warps) % runs * 8,
                               values[i], residual[i]);
    }
    ptx::clusterSync();  // the other blocks have read what is here
  }
};

template <class L, int dtype>
__global__ void __launch_bounds__(threads, 1) convSm90Kernel(const __grid_constant__ BulkCopies::Args args) {
  extern __shared__ __align__(1024) char shared[];
  run<L, Sm90Product<L::tileChannels, dtype>, BulkCopies>(args, shared);
}

/** How tiles are launched: as many as fill all multiprocessors without a block to spare, then the rest, each divided
 * among `parts` blocks. */
struct Waves {
  int whole, rest, parts;
  /** Of a tile by one block. */
  double duration;
};

/** What dividing a tile costs beside its products: a launch, and the sums' way to each other. */
// of an output channel: one tap of 32 input channels
constexpr double shareMicroseconds = 5, channelMicroseconds = 0.0026;

template <class L>
Waves wavesOf(const Args &args) {
  const int multiprocessors = deviceFacts().multiprocessors, taps = args.kernelT * L::kernelSize * L::kernelSize;
  const int rest = args.tiles % multiprocessors, runs = (args.inChannels + chunk - 1) / chunk;
  Waves waves{args.tiles - rest, rest, 1, double(args.tiles / multiprocessors) + (rest > 0 ? 1 : 0)};
  if (rest == 0) return waves;
  const double share = shareMicroseconds / (taps * runs * L::tileChannels * channelMicroseconds);
  for (int parts = 2; parts <= 4 && parts <= runs; parts++) {
    // Clusters lie within a graphics processing cluster, whose multiprocessors (16 or 18) larger ones do not fill.
    if (rest * parts > (parts == 2 ? multiprocessors : multiprocessors / 11 * 10)) break;
    const double duration = args.tiles / multiprocessors + 1.0 / parts + share;
    if (duration < waves.duration) waves = {waves.whole, rest, parts, duration};
  }
  return waves;
}

template <class L, int dtype>
int launchPart(BulkCopies::Args args, int firstTile, int tiles, int parts, int blocks, cudaStream_t stream) {
  args.firstTile = firstTile;
  args.tiles = firstTile + tiles;
  args.parts = parts;
  return launchClusters(convSm90Kernel<L, dtype>, args, blocks, parts, threads, L::sharedBytes, stream);
}

template <class L, int dtype>
int encodeAll(BulkCopies::Args &args) {
  const int64_t channels = args.inChannels, width = args.width, height = args.height,
                taps = args.kernelT * L::kernelSize * L::kernelSize;
  const auto encode = [](CUtensorMap *map, BoxedTensor<4> tensor) {
    tensor.promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
    return encodeTensorMap(map, tensor);
  };
  const auto video = [&](CUtensorMap *map, const char *name, const __nv_bfloat16 *address, int frames) {
    return encode(map, {name,
                        dtype,
                        reinterpret_cast<uint64_t>(address),
                        {channels, width, height, frames},
                        {channels, width * channels, height * width * channels},
                        {chunk, L::inputColumns, L::inputRows, 1}});
  };
  TRY(video(&args.xMap, "x", args.x, args.frames));
  if (args.history && args.kernelT > 1) TRY(video(&args.historyMap, "history", args.history, args.kernelT - 1));
  return encode(&args.weightMap, {"weight",
                                  dtype,
                                  reinterpret_cast<uint64_t>(args.weight),
                                  {channels, args.outChannels, L::kernelSize, args.kernelT * L::kernelSize},
                                  {taps * channels, channels, L::kernelSize * channels},
                                  {chunk, L::tileChannels, 1, L::kernelSize}});
}

template <class L, int dtype>
int launchSm90(const Args &arguments, const Waves &waves, cudaStream_t stream) {
  BulkCopies::Args args{arguments};
  TRY((encodeAll<L, dtype>(args)));
  const int multiprocessors = deviceFacts().multiprocessors;
  if (waves.parts == 1) return launchPart<L, dtype>(args, 0, args.tiles, 1, min(args.tiles, multiprocessors), stream);
  if (waves.whole > 0) TRY((launchPart<L, dtype>(args, 0, waves.whole, 1, multiprocessors, stream)));
  return launchPart<L, dtype>(args, waves.whole, waves.rest, waves.parts, waves.rest * waves.parts, stream);
}

/** In tiles of 16 × 16 pixels. */
template <int dtype, int kernelSize, int upsample, int tileChannels = 96>
int launchSquares(const Conv &c, cudaStream_t stream) {
  using L = Layout<kernelSize, upsample, tileChannels>;
  Args args;
  TRY(argumentsOf<L>(c, args));
  return launchSm90<L, dtype>(args, wavesOf<L>(args), stream);
}

/** 3 × 3, in tiles of 16 × 16 or 8 × 32 pixels, whichever fit the image better. */
template <int dtype>
int launch3x3(const Conv &c, cudaStream_t stream) {
  using Square = Layout<3, 1, 96>;
  using Flat = Layout<3, 1, 96, 8>;
  Args square, flat;
  TRY(argumentsOf<Square>(c, square));
  TRY(argumentsOf<Flat>(c, flat));
  const Waves squares = wavesOf<Square>(square), flats = wavesOf<Flat>(flat);
  return squares.duration <= flats.duration ? launchSm90<Square, dtype>(square, squares, stream)
                                            : launchSm90<Flat, dtype>(flat, flats, stream);
}

template <int dtype>
int launch(const Conv &c, cudaStream_t stream) {
  if (c.kernelH == 1) return launchSquares<dtype, 1, 1>(c, stream);
  if (c.upsample == 2) return launchSquares<dtype, 3, 2>(c, stream);
  return c.outChannels <= 16 ? launchSquares<dtype, 3, 1, 16>(c, stream) : launch3x3<dtype>(c, stream);
}

}  // namespace conv

bool convSm90Fits() { return deviceHasWgmma(); }

int convSm90(const Conv &c, cudaStream_t stream) {
  return c.dtype == DITRUN_F16 ? conv::launch<DITRUN_F16>(c, stream) : conv::launch<DITRUN_BF16>(c, stream);
}
