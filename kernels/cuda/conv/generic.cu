// Convolution for any shape, stride, alignment and dtype: an implicit matrix product with float32 arithmetic, tiles of
// 64 output pixels by 64 output channels, each thread 4 by 4 of them.
#include "conv/conv.h"
#include "runtime/device.h"
#include "runtime/numbers.cuh"

constexpr int genericThreads = 256, genericTile = 64, genericDepth = 16;

/** A value of the padded, upsampled input: k counts (kernel frame, row, column, channel) as the weight lays them out.
 */
__device__ static float inputAt(const Conv &c, int frame, int y, int x, int k) {
  const int channel = k % c.inChannels;
  int tap = k / c.inChannels;
  const int column = x + tap % c.kernelW;
  tap /= c.kernelW;
  const int row = y + tap % c.kernelH;
  const int f = frame + tap / c.kernelH;
  if (row < 0 || column < 0 || row >= c.upsample * c.height || column >= c.upsample * c.width ||
      (f < 0 && c.history == 0))
    return 0;
  const int64_t at = f < 0 ? f + c.kernelT - 1 : f;
  const int64_t index = ((at * c.height + row / c.upsample) * c.width + column / c.upsample) * c.inChannels + channel;
  return loadOne(asPointer<const void>(f < 0 ? c.history : c.x), index, c.dtype);
}

__global__ void __launch_bounds__(genericThreads) convGenericKernel(const __grid_constant__ Conv c) {
  __shared__ float inputs[genericDepth][genericTile + 4], weights[genericDepth][genericTile + 4];
  const int depth = c.kernelT * c.kernelH * c.kernelW * c.inChannels;
  const int64_t pixels = int64_t(c.outFrames) * c.outHeight * c.outWidth,
                firstPixel = int64_t(blockIdx.x) * genericTile;
  const int firstChannel = blockIdx.y * genericTile;
  // Each thread fetches 4 values of one pixel and 4 of one output channel.
  const int fetched = threadIdx.x / 4, fetchedK = threadIdx.x % 4 * 4;
  const int64_t pixel = firstPixel + fetched;
  const bool exists = pixel < pixels;
  const int x = int(pixel % c.outWidth) * c.strideW - c.padLeft;
  const int y = int(pixel / c.outWidth % c.outHeight) * c.strideH - c.padTop;
  const int frame = int(pixel / c.outWidth / c.outHeight) * c.strideT - (c.kernelT - 1);
  const int channel = firstChannel + fetched;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  float sums[4][4] = {};
  for (int k0 = 0; k0 < depth; k0 += genericDepth) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int k = k0 + fetchedK + i;
      inputs[fetchedK + i][fetched] = exists && k < depth ? inputAt(c, frame, y, x, k) : 0.0f;
      weights[fetchedK + i][fetched] =
          channel < c.outChannels && k < depth
              ? loadOne(asPointer<const void>(c.weight), int64_t(channel) * depth + k, c.dtype)
              : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < genericDepth; k++) {
      const float4 a = *reinterpret_cast<const float4 *>(&inputs[k][row]),
                   b = *reinterpret_cast<const float4 *>(&weights[k][column]);
      const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += left[i] * right[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (firstPixel + row + i >= pixels) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int n = firstChannel + column + j;
      if (n >= c.outChannels) break;
      const int64_t index = (firstPixel + row + i) * c.outChannels + n;
      float value = sums[i][j];
      if (c.bias) value += loadOne(asPointer<const void>(c.bias), n, c.dtype);
      if (c.residual) value += loadOne(asPointer<const void>(c.residual), index, c.dtype);
      storeOne(asPointer<void>(c.out), index, c.dtype, value);
    }
  }
}

int convGeneric(const Conv &c, cudaStream_t stream) {
  const int64_t tiles = (int64_t(c.outFrames) * c.outHeight * c.outWidth + genericTile - 1) / genericTile;
  const int64_t channelTiles = (int64_t(c.outChannels) + genericTile - 1) / genericTile;
  if (tiles > 0x7fffffff || channelTiles > 65535)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d: %d × %d × %d pixels of %d channels are more than one launch can count.", c.outFrames,
                c.outHeight, c.outWidth, c.outChannels);
  convGenericKernel<<<dim3(unsigned(tiles), unsigned(channelTiles)), genericThreads, 0, stream>>>(c);
  return launched("ditrun_conv3d");
}
