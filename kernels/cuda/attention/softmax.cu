// softmax(scale * row): a block a row. The maximum and the sum are found in one pass over memory (each thread keeps
// both and rescales its sum when its maximum grows; Milakov & Gimelshein, arXiv 1805.02867), a second pass writes.
#include "runtime/device.h"
#include "runtime/numbers.cuh"

constexpr int softmaxThreads = 512;

__device__ static void merge(float &most, float &sum, float otherMost, float otherSum) {
  const float larger = fmaxf(most, otherMost);
  // A thread without elements brings no sum.
  sum = (sum > 0 ? sum * __expf(most - larger) : 0) + (otherSum > 0 ? otherSum * __expf(otherMost - larger) : 0);
  most = larger;
}

/** x and out are float32 or narrow: bf16 or f16. */
template <int narrow>
__global__ void __launch_bounds__(softmaxThreads)
    softmaxRows(void *out, bool outNarrow, const void *x, bool xNarrow, int columns, float scale, bool vectorized) {
  const int outDtype = outNarrow ? narrow : DITRUN_F32, xDtype = xNarrow ? narrow : DITRUN_F32;
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
    load8<narrow>(x, first + i * vectorWidth, xNarrow, values);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) take(values[j] * scale);
  }
  for (int i = vectors * vectorWidth + threadIdx.x; i < columns; i += softmaxThreads)
    take(loadOne(x, first + i, xDtype) * scale);

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
    load8<narrow>(x, first + i * vectorWidth, xNarrow, values);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) values[j] = __expf(values[j] * scale - most) * inverse;
    store8<narrow>(out, first + i * vectorWidth, outNarrow, values);
  }
  for (int i = vectors * vectorWidth + threadIdx.x; i < columns; i += softmaxThreads)
    storeOne(out, first + i, outDtype, __expf(loadOne(x, first + i, xDtype) * scale - most) * inverse);
}

int ditrun_softmax_rows(uint64_t out, int outDtype, uint64_t x, int xDtype, int rows, int columns, float scale,
                        uint64_t stream) {
  TRY(useDevice());
  if (rows <= 0 || columns <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_softmax_rows got %d rows of %d columns; both must be positive.", rows,
                columns);
  const bool f16 = xDtype == DITRUN_F16 || outDtype == DITRUN_F16;
  if (!isFloatOrF16(xDtype) || !isFloatOrF16(outDtype) || (f16 && (xDtype == DITRUN_BF16 || outDtype == DITRUN_BF16)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_softmax_rows takes f32 and either bf16 or f16, got x %s, out %s.",
                dtypeName(xDtype), dtypeName(outDtype));
  if (!x || x % dtypeBytes(xDtype) || !out || out % dtypeBytes(outDtype) || (x == out && xDtype != outDtype))
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_softmax_rows got x 0x%llx of %s and out 0x%llx of %s; one may be the other where the dtype stays.",
        (unsigned long long)x, dtypeName(xDtype), (unsigned long long)out, dtypeName(outDtype));
  const bool vectorized = aligned16(x) && aligned16(out) && columns % vectorWidth == 0;
  (f16 ? softmaxRows<DITRUN_F16> : softmaxRows<DITRUN_BF16>)<<<rows, softmaxThreads, 0, asStream(stream)>>>(
      asPointer<void>(out), outDtype != DITRUN_F32, asPointer<void>(x), xDtype != DITRUN_F32, columns, scale,
      vectorized);
  return launched("ditrun_softmax_rows");
}
