// The tensor-core convolution with Hopper's wgmma: pixels from registers, since their rows in shared memory start anywhere,
// weights from shared memory by descriptor.
#include "device.h"
#include "conv_tensor.cuh"
#include "ptx/fence.cuh"
#include "ptx/wgmma.cuh"

namespace conv {

/** d[64, 96] += a[64, 16] b[16, 96]: a in registers, b in shared memory as [96][16] of rows of 64 bytes. */
__device__ __forceinline__ void multiply96(float (&d)[12][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
      "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 0;"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),
        "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]),
        "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]),
        "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]),
        "+f"(d[10][0]), "+f"(d[10][1]), "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

struct Sm90Product {
  /** A warp's 16 rows of each of two products of 64 rows: the layout of mma.m16n8k16's result, row by row of the image. */
  struct Sums {
    float value[2][12][4];
    /** Pixels of this and of the last 16 channels: the last may still be read by a product in flight. */
    uint32_t pixels[2][2][4];
  };

  static __device__ __forceinline__ void begin(Sums &sums) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 12; j++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums.value[i][j][k] = 0;
  }

  /** What cp.async wrote is read by the matrix engine, past the ordinary path to shared memory. */
  static __device__ __forceinline__ void ready() { ptx::fence_proxy_async_shared(); }

  static __device__ __forceinline__ void finish(Sums &sums) {
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 12; j++) ptx::wgmma_pin(sums.value[i][j]);
  }

  static __device__ __forceinline__ void multiply(int half, Sums &sums, const uint32_t (&rows)[2], uint32_t weights) {
    // At most the products of the last 16 channels still run: those before them, whose registers are loaded anew, are done.
    ptx::wgmma_wait<1>();
    ptx::load_matrices(sums.pixels[half][0], rows[0]);
    ptx::load_matrices(sums.pixels[half][1], rows[1]);
    // Rows of 64 bytes in groups of 8, 512 bytes apart, in the 64-byte swizzle (PTX ISA, "Matrix descriptor"); 16 channels are 32 bytes.
    const uint64_t b = ptx::descriptor(weights + half * 32, 16, 8 * pixelBytes, ptx::Swizzle::bytes64);
    ptx::wgmma_fence();
    multiply96(sums.value[0], sums.pixels[half][0], b);
    multiply96(sums.value[1], sums.pixels[half][1], b);
    ptx::wgmma_commit();
  }
};

template <int kernelSize, int upsample>
__global__ void __launch_bounds__(threads, 1) convSm90Kernel(const __grid_constant__ Args args) {
  extern __shared__ __align__(1024) char shared[];
  run<kernelSize, upsample, 96, Sm90Product>(args, shared);
}

template <int kernelSize, int upsample>
int launchSm90(const Conv &c, cudaStream_t stream) {
  return launch<Layout<kernelSize, upsample, 96>, 96>(convSm90Kernel<kernelSize, upsample>, "ditrun_conv3d (wgmma)", c, deviceFacts().multiprocessors, stream);
}

}  // namespace conv

int convSm90(const Conv &c, cudaStream_t stream) {
  if (c.kernelH == 1) return conv::launchSm90<1, 1>(c, stream);
  return c.upsample == 2 ? conv::launchSm90<3, 2>(c, stream) : conv::launchSm90<3, 1>(c, stream);
}
