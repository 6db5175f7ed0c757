// Kernels that keep a row in registers: how threads share a row, and the sizes that rows come in.
#pragma once
#include "runtime/numbers.cuh"

/** Wider rows are read from memory anew for each step. */
constexpr int mostInRegisters = 128 * 40;

__device__ inline float sumOf(float a, float b) { return a + b; }
__device__ inline float maxOf(float a, float b) { return fmaxf(a, b); }

/** 16 bytes of bf16 or f16 (narrow), or float32. */
template <int narrow = DITRUN_BF16>
__device__ inline void unpackRun(const uint4 &packed, float (&values)[8]) {
  unpack<narrow>({packed, {}}, true, values);
}
template <int narrow = DITRUN_BF16>
__device__ inline void unpackRun(const uint4 &packed, float (&values)[4]) {
  values[0] = __uint_as_float(packed.x), values[1] = __uint_as_float(packed.y);
  values[2] = __uint_as_float(packed.z), values[3] = __uint_as_float(packed.w);
}

/** Reduces over the threads that share a row: neighbours within a warp, or all threads of the block. Every thread must
 * call, once for each `call` of a kernel: they have places of their own in shared memory, so that none has to wait
 * until another's has been read. */
template <int threadsPerRow, float (*combine)(float, float), int call = 0>
__device__ float reduceRow(float value) {
#pragma unroll
  for (int distance = (threadsPerRow < 32 ? threadsPerRow : 32) / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  if constexpr (threadsPerRow > 32) {
    constexpr int warps = threadsPerRow / 32;
    __shared__ float partial[warps];
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
#pragma unroll
    for (int warp = 1; warp < warps; warp++) value = combine(value, partial[warp]);
  }
  return value;
}

/** The columns that one thread holds of its row: `chunks` runs of `width` neighbours. A run is 16 bytes of x (8 of bf16
 * or f16, 4 of float32), so that the threads of a row read and write whole 128-byte lines. `whole`: rows are as long as
 * all runs together, so that a kernel has no branches between its loads. */
template <bool xNarrow, int threads, int valuesEach, bool whole = false>
struct RowShape {
  static constexpr int threadsPerRow = threads, width = xNarrow ? 8 : 4, chunks = valuesEach / width,
                       step = threads * width;
  static constexpr int blockThreads = threads > 32 ? threads : 128, rowsPerBlock = blockThreads / threads,
                       wholeColumns = threads * valuesEach;
  static_assert(chunks * width == valuesEach && rowsPerBlock * threads == blockThreads &&
                (threads <= 32 || threads % 32 == 0));

  __device__ static int lane() { return threadIdx.x % threads; }
  __device__ static int row() { return blockIdx.x * rowsPerBlock + threadIdx.x / threads; }
  __device__ static int column(int chunk) { return chunk * step + lane() * width; }
  /** How many of its runs lie inside the row (columns is a multiple of 8). */
  __device__ static int runs(int columns) { return whole ? chunks : (columns - lane() * width + step - 1) / step; }
};

/** This thread's first `runs` runs of the row that begins at element `start`; zeros in place of the others. */
template <class Shape, int narrow = DITRUN_BF16>
__device__ inline void loadRow(const void *x, int64_t start, int runs, float (&values)[Shape::chunks][Shape::width]) {
  const uint4 *source = static_cast<const uint4 *>(x) + start / Shape::width;
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++) {
    unpackRun<narrow>(c < runs ? source[Shape::column(c) / Shape::width] : make_uint4(0, 0, 0, 0), values[c]);
  }
}
