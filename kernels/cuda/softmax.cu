// softmax(scale * row) in place: a block a row. The maximum and the sum are found in one pass over memory (each thread keeps both
// and rescales its sum when its maximum grows; Milakov & Gimelshein, arXiv 1805.02867), a second pass writes.
#include "device.h"
#include "numbers.cuh"

constexpr int softmaxThreads = 512;

__device__ static void merge(float &most, float &sum, float otherMost, float otherSum) {
  const float larger = fmaxf(most, otherMost);
  // A thread without elements brings no sum.
  sum = (sum > 0 ? sum * __expf(most - larger) : 0) + (otherSum > 0 ? otherSum * __expf(otherMost - larger) : 0);
  most = larger;
}

__global__ void __launch_bounds__(softmaxThreads) softmaxRows(void *x, int columns, float scale, bool isBf16, bool vectorized) {
  const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t first = int64_t(blockIdx.x) * columns;
  const int vectors = vectorized ? columns / vectorWidth : 0;
  float most = -INFINITY, sum = 0;
  const auto take = [&](float value) {
    if (value > most) {
      sum = sum * __expf(most - value) + 1;
      most = value;
    } else {
      sum += __expf(value - most);
    }
  };
  for (int i = threadIdx.x; i < vectors; i += softmaxThreads) {
    float values[vectorWidth];
    load8(x, first + i * vectorWidth, isBf16, values);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) take(values[j] * scale);
  }
  for (int i = vectors * vectorWidth + threadIdx.x; i < columns; i += softmaxThreads) take(loadOne(x, first + i, dtype) * scale);

  __shared__ float partMost[softmaxThreads / 32], partSum[softmaxThreads / 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    merge(most, sum, __shfl_xor_sync(0xffffffffu, most, distance), __shfl_xor_sync(0xffffffffu, sum, distance));
  if (threadIdx.x % 32 == 0) {
    partMost[threadIdx.x / 32] = most;
    partSum[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  most = partMost[0];
  sum = partSum[0];
#pragma unroll
  for (int warp = 1; warp < softmaxThreads / 32; warp++) merge(most, sum, partMost[warp], partSum[warp]);
  const float inverse = 1.0f / sum;

  for (int i = threadIdx.x; i < vectors; i += softmaxThreads) {
    float values[vectorWidth];
    load8(x, first + i * vectorWidth, isBf16, values);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) values[j] = __expf(values[j] * scale - most) * inverse;
    store8(x, first + i * vectorWidth, isBf16, values);
  }
  for (int i = vectors * vectorWidth + threadIdx.x; i < columns; i += softmaxThreads)
    storeOne(x, first + i, dtype, __expf(loadOne(x, first + i, dtype) * scale - most) * inverse);
}

int ditrun_softmax_rows(uint64_t x, int rows, int columns, float scale, int dtype, uint64_t stream) {
  TRY(useDevice());
  if (rows <= 0 || columns <= 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_softmax_rows got %d rows of %d columns; both must be positive.", rows, columns);
  if (!isFloat(dtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_softmax_rows takes f32 or bf16, got %s.", dtypeName(dtype));
  if (!x || x % dtypeBytes(dtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_softmax_rows got x 0x%llx for elements of %d bytes.", (unsigned long long)x, dtypeBytes(dtype));
  const bool vectorized = aligned16(x) && columns % vectorWidth == 0;
  softmaxRows<<<rows, softmaxThreads, 0, asStream(stream)>>>(asPointer<void>(x), columns, scale, dtype == DITRUN_BF16, vectorized);
  return launched("ditrun_softmax_rows");
}
