// Elementwise operators: activate, add, multiply, add_rows, cast, non-finite count, pixels.
#include "runtime/operands.h"

// ---- out[i] = operator(x[i], y[i]) ----

struct AddOperator {
  static constexpr bool binary = true;
  __device__ float operator()(float x, float y, bool) const { return x + y; }
};
struct MultiplyOperator {
  static constexpr bool binary = true;
  __device__ float operator()(float x, float y, bool) const { return x * y; }
};
template <int activation>
struct ActivateOperator {
  static constexpr bool binary = false;
  __device__ float operator()(float x, float, bool isBf16) const { return activateFor<activation>(x, isBf16); }
};

/** A thread moves 16 bytes of each operand at a time: 8 of bf16, 4 of float32. */
template <class Operator, bool isBf16>
__global__ void mapVectors(void *out, const void *x, const void *y, int64_t vectors, int64_t count) {
  constexpr int width = isBf16 ? 8 : 4;
  const Operator apply;
  const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = thread; i < vectors; i += threads) {
    float a[width], b[width] = {};
    loadRun(x, i * width, isBf16, a);
    if (Operator::binary) loadRun(y, i * width, isBf16, b);
#pragma unroll
    for (int j = 0; j < width; j++) a[j] = apply(a[j], b[j], isBf16);
    storeRun(out, i * width, isBf16, a);
  }
  for (int64_t i = vectors * width + thread; i < count; i += threads)
    storeOne(out, i, dtype, apply(loadOne(x, i, dtype), Operator::binary ? loadOne(y, i, dtype) : 0.0f, isBf16));
}

template <class Operator>
static int map(const char *what, uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream) {
  const bool vectorized = aligned16(out) && aligned16(x) && aligned16(y);
  const int64_t vectors = vectorized ? count / (dtype == DITRUN_BF16 ? 8 : 4) : 0;
  const int threads = 256;
  const auto kernel = dtype == DITRUN_BF16 ? mapVectors<Operator, true> : mapVectors<Operator, false>;
  kernel<<<gridFor(vectors > 0 ? vectors : count, threads, deviceFacts().multiprocessors), threads, 0,
           asStream(stream)>>>(asPointer<void>(out), asPointer<void>(x), asPointer<void>(y), vectors, count);
  return launched(what);
}

int ditrun_activate(uint64_t out, uint64_t x, int64_t count, int dtype, int activation, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFloat("ditrun_activate", dtype));
  TRY(checkArray("ditrun_activate", out, count, dtype));
  TRY(checkArray("ditrun_activate", x, count, dtype));
  if (count == 0) return DITRUN_OK;
  switch (activation) {
    case DITRUN_IDENTITY:
      return map<ActivateOperator<DITRUN_IDENTITY>>("ditrun_activate", out, x, 0, count, dtype, stream);
    case DITRUN_GELU:
      return map<ActivateOperator<DITRUN_GELU>>("ditrun_activate", out, x, 0, count, dtype, stream);
    case DITRUN_GELU_TANH:
      return map<ActivateOperator<DITRUN_GELU_TANH>>("ditrun_activate", out, x, 0, count, dtype, stream);
    case DITRUN_SILU:
      return map<ActivateOperator<DITRUN_SILU>>("ditrun_activate", out, x, 0, count, dtype, stream);
    default:
      return fail(DITRUN_INVALID_ARGUMENT,
                  "ditrun_activate knows no activation %d (0 identity, 1 gelu, 2 gelu tanh, 3 silu).", activation);
  }
}

int ditrun_add(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFloat("ditrun_add", dtype));
  TRY(checkArray("ditrun_add", out, count, dtype));
  TRY(checkArray("ditrun_add", x, count, dtype));
  TRY(checkArray("ditrun_add", y, count, dtype));
  if (count == 0) return DITRUN_OK;
  return map<AddOperator>("ditrun_add", out, x, y, count, dtype, stream);
}

int ditrun_multiply(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFloat("ditrun_multiply", dtype));
  TRY(checkArray("ditrun_multiply", out, count, dtype));
  TRY(checkArray("ditrun_multiply", x, count, dtype));
  TRY(checkArray("ditrun_multiply", y, count, dtype));
  if (count == 0) return DITRUN_OK;
  return map<MultiplyOperator>("ditrun_multiply", out, x, y, count, dtype, stream);
}

// ---- out[r, c] = x[r, c] + rowTable[r, c] + vector[c] ----

__global__ void addRows(void *out, const void *x, const void *rowTable, const void *vector, int64_t count, int columns,
                        bool isBf16, bool vectorized) {
  const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  if (!vectorized) {
    for (int64_t i = thread; i < count; i += threads) {
      float value = loadOne(x, i, dtype);
      if (rowTable) value += loadOne(rowTable, i, dtype);
      if (vector) value += loadOne(vector, i % columns, dtype);
      storeOne(out, i, dtype, value);
    }
    return;
  }
  for (int64_t i = thread * vectorWidth; i < count; i += threads * vectorWidth) {
    float value[vectorWidth], other[vectorWidth];
    load8(x, i, isBf16, value);
    if (rowTable) {
      load8(rowTable, i, isBf16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
    if (vector) {
      load8(vector, i % columns, isBf16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
    store8(out, i, isBf16, value);
  }
}

int ditrun_add_rows(uint64_t out, uint64_t x, uint64_t rowTable, uint64_t vector, int rows, int columns, int dtype,
                    uint64_t stream) {
  TRY(useDevice());
  TRY(checkFloat("ditrun_add_rows", dtype));
  if (rows < 0 || columns <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_add_rows got %d rows of %d columns.", rows, columns);
  const int64_t count = int64_t(rows) * columns;
  TRY(checkArray("ditrun_add_rows", out, count, dtype));
  TRY(checkArray("ditrun_add_rows", x, count, dtype));
  if (rowTable) TRY(checkArray("ditrun_add_rows", rowTable, count, dtype));
  if (vector) TRY(checkArray("ditrun_add_rows", vector, columns, dtype));
  if (count == 0) return DITRUN_OK;
  const bool vectorized =
      columns % vectorWidth == 0 && aligned16(out) && aligned16(x) && aligned16(rowTable) && aligned16(vector);
  const int threads = 256;
  addRows<<<gridFor(vectorized ? count / vectorWidth : count, threads, deviceFacts().multiprocessors), threads, 0,
            asStream(stream)>>>(asPointer<void>(out), asPointer<void>(x), asPointer<void>(rowTable),
                                asPointer<void>(vector), count, columns, dtype == DITRUN_BF16, vectorized);
  return launched("ditrun_add_rows");
}

// ---- cast ----

/** x and out are float32 or narrow: bf16 or f16. */
template <int narrow>
__global__ void castVectors(void *out, bool outNarrow, const void *x, bool xNarrow, int64_t vectors) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += threads) {
    float values[vectorWidth];
    load8<narrow>(x, i * vectorWidth, xNarrow, values);
    store8<narrow>(out, i * vectorWidth, outNarrow, values);
  }
}

__global__ void castOnes(void *out, int outDtype, const void *x, int xDtype, int64_t first, int64_t count) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = first + int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads)
    storeOne(out, i, outDtype, loadOne(x, i, xDtype));
}

int ditrun_cast(uint64_t out, int outDtype, uint64_t x, int xDtype, int64_t count, uint64_t stream) {
  TRY(useDevice());
  if (dtypeBytes(outDtype) == 0 || dtypeBytes(xDtype) == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_cast knows no dtype %d or %d.", xDtype, outDtype);
  TRY(checkArray("ditrun_cast", out, count, outDtype));
  TRY(checkArray("ditrun_cast", x, count, xDtype));
  if (count == 0) return DITRUN_OK;
  const bool f16 = outDtype == DITRUN_F16 || xDtype == DITRUN_F16,
             bf16 = outDtype == DITRUN_BF16 || xDtype == DITRUN_BF16;
  const bool vectorized =
      isFloatOrF16(outDtype) && isFloatOrF16(xDtype) && !(f16 && bf16) && aligned16(out) && aligned16(x);
  const int64_t vectors = vectorized ? count / vectorWidth : 0, first = vectors * vectorWidth;
  const int threads = 256, multiprocessors = deviceFacts().multiprocessors;
  if (vectors > 0)
    (f16 ? castVectors<DITRUN_F16>
         : castVectors<DITRUN_BF16>)<<<gridFor(vectors, threads, multiprocessors), threads, 0, asStream(stream)>>>(
        asPointer<void>(out), outDtype != DITRUN_F32, asPointer<void>(x), xDtype != DITRUN_F32, vectors);
  if (first < count)
    castOnes<<<gridFor(count - first, threads, multiprocessors), threads, 0, asStream(stream)>>>(
        asPointer<void>(out), outDtype, asPointer<void>(x), xDtype, first, count);
  return launched("ditrun_cast");
}

// ---- non-finite count ----

__global__ void countNonfinite(uint32_t *result, const void *x, int64_t count, int dtype) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  uint32_t found = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads)
    found += !isfinite(loadOne(x, i, dtype));
  found = __reduce_add_sync(0xffffffffu, found);
  if (threadIdx.x % 32 == 0 && found > 0) atomicAdd(result, found);
}

int ditrun_count_nonfinite(uint64_t result, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  TRY(useDevice());
  if (dtypeBytes(dtype) == 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_count_nonfinite knows no dtype %d.", dtype);
  TRY(checkArray("ditrun_count_nonfinite", result, 1, DITRUN_I32));
  TRY(checkArray("ditrun_count_nonfinite", x, count, dtype));
  CUDA_TRY(cudaMemsetAsync(asPointer<void>(result), 0, sizeof(uint32_t), asStream(stream)));
  if (count == 0) return DITRUN_OK;
  const int threads = 256;
  countNonfinite<<<gridFor(count, threads, deviceFacts().multiprocessors), threads, 0, asStream(stream)>>>(
      asPointer<uint32_t>(result), asPointer<void>(x), count, dtype);
  return launched("ditrun_count_nonfinite");
}

// ---- pixels ----

__device__ inline uint32_t byteOf(float pixel) {
  const float value = __fmul_rn(__fadd_rn(pixel, 1.0f), 127.5f);
  return uint32_t(__float2int_rn(fminf(fmaxf(value, 0.0f), 255.0f)));  // fmaxf makes 0 of a NaN
}

/** x is float32 or narrow: bf16 or f16. */
template <int narrow>
__global__ void toBytes(uint8_t *out, uint32_t *nonfinite, const void *x, bool xNarrow, int64_t vectors,
                        int64_t count) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  bool found = false;
  for (int64_t i = thread; i < vectors; i += threads) {
    float pixels[vectorWidth];
    load8<narrow>(x, i * vectorWidth, xNarrow, pixels);
    uint32_t words[2] = {};
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) {
      found |= !isfinite(pixels[j]);
      words[j / 4] |= byteOf(pixels[j]) << j % 4 * 8;
    }
    reinterpret_cast<uint2 *>(out)[i] = make_uint2(words[0], words[1]);
  }
  for (int64_t i = vectors * vectorWidth + thread; i < count; i += threads) {
    const float pixel = loadOne(x, i, xNarrow ? narrow : DITRUN_F32);
    found |= !isfinite(pixel);
    out[i] = uint8_t(byteOf(pixel));
  }
  if (found) *nonfinite = 1;  // all threads that write write the same
}

int ditrun_to_bytes(uint64_t out, uint64_t nonfinite, uint64_t x, int xDtype, int64_t count, uint64_t stream) {
  TRY(useDevice());
  if (count < 0 || !out)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_to_bytes got a count of %lld and out 0x%llx.", (long long)count,
                (unsigned long long)out);
  if (!isFloatOrF16(xDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_to_bytes takes f32, bf16 or f16, not %s (dtype %d).",
                dtypeName(xDtype), xDtype);
  TRY(checkArray("ditrun_to_bytes", nonfinite, 1, DITRUN_I32));
  TRY(checkArray("ditrun_to_bytes", x, count, xDtype));
  if (count == 0) return DITRUN_OK;
  const int64_t vectors = aligned16(x) && out % vectorWidth == 0 ? count / vectorWidth : 0;
  const auto kernel = xDtype == DITRUN_F16 ? toBytes<DITRUN_F16> : toBytes<DITRUN_BF16>;
  kernel<<<gridFor(vectors > 0 ? vectors : count, 256, deviceFacts().multiprocessors), 256, 0, asStream(stream)>>>(
      asPointer<uint8_t>(out), asPointer<uint32_t>(nonfinite), asPointer<void>(x), xDtype != DITRUN_F32, vectors,
      count);
  return launched("ditrun_to_bytes");
}
