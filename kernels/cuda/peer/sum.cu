// ditrun_sum: the sum of tensors that other processes may hold, over whatever has brought them within reach.
#include "runtime/operands.h"

constexpr int mostSources = 32;
struct Sources {
  const void *address[mostSources];
  int count;
};

__global__ void sumSources(void *out, const void *base, const void *bias, int columns,
                           const __grid_constant__ Sources sources, int64_t count, bool isBf16, bool sourcesBf16,
                           bool vectorized) {
  const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32, sourceDtype = sourcesBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  if (!vectorized) {
    for (int64_t i = thread; i < count; i += threads) {
      float value = base ? loadOne(base, i, dtype) : 0.0f;
      for (int p = 0; p < sources.count; p++) value += loadOne(sources.address[p], i, sourceDtype);
      if (bias) value += loadOne(bias, i % columns, dtype);
      storeOne(out, i, dtype, value);
    }
    return;
  }
  for (int64_t i = thread * vectorWidth; i < count; i += threads * vectorWidth) {
    float value[vectorWidth] = {}, other[vectorWidth];
    if (base) load8(base, i, isBf16, value);
    for (int p = 0; p < sources.count; p++) {
      load8(sources.address[p], i, sourcesBf16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
    if (bias) {
      load8(bias, i % columns, isBf16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
    store8(out, i, isBf16, value);
  }
}

int ditrun_sum(uint64_t out, uint64_t base, uint64_t bias, int columns, const uint64_t *sources, int sourceCount,
               int64_t count, int dtype, int sourceDtype, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFloat("ditrun_sum", dtype));
  TRY(checkFloat("ditrun_sum", sourceDtype));
  if (sourceCount < 0 || sourceCount > mostSources || (sourceCount > 0 && !sources))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_sum adds 0 to %d sources, got %d.", mostSources, sourceCount);
  if (bias && (columns <= 0 || count % columns != 0))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_sum got a bias of %d columns for %lld elements.", columns,
                (long long)count);
  TRY(checkArray("ditrun_sum", out, count, dtype));
  bool vectorized = aligned16(out) && aligned16(base) && aligned16(bias) && count % vectorWidth == 0 &&
                    (!bias || columns % vectorWidth == 0);
  Sources list{};
  list.count = sourceCount;
  for (int p = 0; p < sourceCount; p++) {
    TRY(checkArray("ditrun_sum", sources[p], count, sourceDtype));
    vectorized = vectorized && aligned16(sources[p]);
    list.address[p] = asPointer<void>(sources[p]);
  }
  if (count == 0) return DITRUN_OK;
  const int threads = 256;
  sumSources<<<gridFor(vectorized ? count / vectorWidth : count, threads, deviceFacts().multiprocessors), threads, 0,
               asStream(stream)>>>(asPointer<void>(out), asPointer<void>(base), asPointer<void>(bias), columns, list,
                                   count, dtype == DITRUN_BF16, sourceDtype == DITRUN_BF16, vectorized);
  return launched("ditrun_sum");
}
