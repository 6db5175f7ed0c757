// conv::run's products by mma.sync.
#pragma once

#include "conv/tensor.cuh"

namespace conv {

template <int tileChannels, int elements>
struct MmaProduct {
  static constexpr int dtype = elements;
  /** Of two image rows of 16 pixels each, in the layout of mma.m16n8k16's result. */
  struct Sums {
    float value[2][tileChannels / 8][4];
  };

  static __device__ __forceinline__ void begin(Sums &sums) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < tileChannels / 8; j++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums.value[i][j][k] = 0;
  }
  static __device__ __forceinline__ void initialized() {}
  static __device__ __forceinline__ void copying() {}
  static __device__ __forceinline__ void multiplying() {}
  static __device__ __forceinline__ void finish(Sums &) {}

  static constexpr bool shares = false;

  static __device__ __forceinline__ void multiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (dtype == DITRUN_F16) ptx::multiplyAddF16(d, a, b0, b1);
    else ptx::multiplyAdd(d, a, b0, b1);
  }

  /** rows: this lane's address of a pixel row for each image row that the taps meet; weights: of each tap
   * [tileChannels][32], of which channels 16 · half … are used. */
  template <int count>
  static __device__ __forceinline__ void multiply(int half, Sums &sums, const uint32_t (&rows)[count],
                                                  uint32_t weights) {
    const int lane = threadIdx.x % 32;
    uint32_t pixels[count][4];
#pragma unroll
    for (int i = 0; i < count; i++) ptx::loadMatrices(pixels[i], rows[i]);
    // Matrices in order: channels 0 to 7 of the first 8 outputs, 8 to 15 of them, then the same of the next 8 outputs.
    // 16 rows on, the swizzle is the same.
    const uint32_t first = weights + swizzled(lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2);
#pragma unroll
    for (int kernelRow = 0; kernelRow + 1 < count; kernelRow++) {
#pragma unroll
      for (int n = 0; n < tileChannels; n += 16) {
        uint32_t b[4];
        ptx::loadMatrices(b, first + (kernelRow * tileChannels + n) * pixelBytes);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          multiplyAdd(sums.value[i][n / 8], pixels[kernelRow + i], b[0], b[1]);
          multiplyAdd(sums.value[i][n / 8 + 1], pixels[kernelRow + i], b[2], b[3]);
        }
      }
    }
  }
};

}  // namespace conv
