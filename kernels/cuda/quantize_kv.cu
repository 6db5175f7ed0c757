// Keys and values to e4m3 for attention (see ditrun.h): smoothing, scaling and V's transposition. kv_statistics.cu has the sums and maxima that they
// depend on.
#include <cuda_pipeline_primitives.h>

#include <cfloat>

#include "device.h"
#include "keys.cuh"

namespace {

constexpr int unit = DITRUN_FP8_KEYS;

/** The mean key and the scales of V's channels of one head, into shared memory; the first unit's block also stores the scales. */
__device__ inline void readStatistics(const ditrun_quantize_kv_args &a, int head, bool store, float *mean, float *vScale) {
  const int columns = a.heads * a.headDim;
  for (int channel = threadIdx.x; channel < a.headDim; channel += blockDim.x) {
    float total = 0, largest = 0;
    for (int i = 0; i < a.statisticsCount; i++) {
      const float *statistics = asPointer<float>(a.statistics) + int64_t(i) * 2 * columns + head * a.headDim + channel;
      total += statistics[0];
      largest = fmaxf(largest, statistics[columns]);
    }
    mean[channel] = total / float(a.totalRows);
    vScale[channel] = fmaxf(largest / largestE4m3, FLT_MIN);
    if (store) asPointer<float>(a.vScale)[head * a.headDim + channel] = vScale[channel];
  }
}

/** The largest of all threads' values, in every thread. */
template <int threads>
__device__ inline float blockMax(float value, float *scratch) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < threads / 32; warp++) value = fmaxf(value, scratch[warp]);
  return value;
}

/** A block: 128 keys and values of one head. bf16 in rows that start on 16 bytes; everything is read once, before the first use. */
template <int headDim, int threads, bool normalised>
__global__ void __launch_bounds__(threads) quantizeUnit(const __grid_constant__ ditrun_quantize_kv_args a) {
  constexpr int runs = headDim / 8, keyRuns = unit * runs / threads, wordRuns = unit / 4 * runs / threads;
  static_assert(keyRuns * threads == unit * runs && wordRuns * threads == unit / 4 * runs);
  constexpr int pitch = unit / 4 + 1;  // words of a channel in shared memory
  __shared__ float mean[headDim], vScale[headDim], scratch[threads / 32];
  __shared__ uint32_t transposed[headDim * pitch];
  const int head = blockIdx.x, firstKey = blockIdx.y * unit, units = gridDim.y;
  const auto *k = asPointer<__nv_bfloat16>(a.k) + head * headDim, *v = asPointer<__nv_bfloat16>(a.v) + head * headDim;
  const int run = threadIdx.x % runs;  // the same for all of a thread's loads: runs divides threads

  uint4 keys[keyRuns], values[wordRuns][4];
  [[maybe_unused]] float factor[keyRuns];
  [[maybe_unused]] extern __shared__ float4 turns[];  // normalised only: [keyRuns, 2, threads], each thread's own, without a register
  if constexpr (normalised) {
#pragma unroll
    for (int i = 0; i < keyRuns; i++) {
      const int row = min(firstKey + (i * threads + int(threadIdx.x)) / runs, a.rows - 1);
      const float4 *source = reinterpret_cast<const float4 *>(asPointer<float>(a.rope) + int64_t(row) * headDim + run * 8);
#pragma unroll
      for (int half = 0; half < 2; half++) __pipeline_memcpy_async(turns + (2 * i + half) * threads + threadIdx.x, source + half, 16);
      factor[i] = asPointer<float>(a.rowFactor)[row];
    }
    __pipeline_commit();
  }
#pragma unroll
  for (int i = 0; i < keyRuns; i++) {
    const int row = firstKey + (i * threads + threadIdx.x) / runs;
    keys[i] = row < a.rows ? *reinterpret_cast<const uint4 *>(k + row * a.ldk + run * 8) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < wordRuns; i++) {
    const int word = (i * threads + threadIdx.x) / runs;  // four neighbours in the order of outV
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = firstKey + word / 4 * 16 + word % 4 * 2 + j / 2 * 8 + j % 2;
      values[i][j] = row < a.rows ? *reinterpret_cast<const uint4 *>(v + row * a.ldv + run * 8) : make_uint4(0, 0, 0, 0);
    }
  }
  if constexpr (normalised) {
    float weight[8];
    loadRun(asPointer<float>(a.weight), head * headDim + run * 8, false, weight);
    __pipeline_wait_prior(0);
#pragma unroll
    for (int i = 0; i < keyRuns; i++) {
      const float4 low = turns[2 * i * threads + threadIdx.x], high = turns[(2 * i + 1) * threads + threadIdx.x];
      const float turn[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      keys[i] = keysOf(keys[i], factor[i], weight, turn);
    }
  }
  readStatistics(a, head, blockIdx.y == 0, mean, vScale);
  __syncthreads();

  float ownMean[8], amax = 0;
#pragma unroll
  for (int c = 0; c < 8; c++) ownMean[c] = mean[run * 8 + c];
#pragma unroll
  for (int i = 0; i < keyRuns; i++) {
    float x[8];
    unpack({keys[i], {}}, true, x);
    const bool inside = firstKey + (i * threads + int(threadIdx.x)) / runs < a.rows;
#pragma unroll
    for (int c = 0; c < 8; c++) amax = fmaxf(amax, inside ? fabsf(x[c] - ownMean[c]) : 0.0f);
  }
  amax = blockMax<threads>(amax, scratch);
  const float scale = fmaxf(amax / largestE4m3, FLT_MIN), reciprocal = __frcp_rn(scale);
  if (threadIdx.x == 0) asPointer<float>(a.kScale)[int64_t(head) * units + blockIdx.y] = scale;
#pragma unroll
  for (int i = 0; i < keyRuns; i++) {
    const int row = firstKey + (i * threads + threadIdx.x) / runs;
    float x[8];
    unpack({keys[i], {}}, true, x);
#pragma unroll
    for (int c = 0; c < 8; c++) x[c] = quotient(x[c] - ownMean[c], scale, reciprocal);
    if (row < a.rows) storeRunE4m3(asPointer<uint8_t>(a.outK), (int64_t(row) * a.heads + head) * headDim + run * 8, x);
  }

  float ownScale[8], ownReciprocal[8];
#pragma unroll
  for (int c = 0; c < 8; c++) {
    ownScale[c] = vScale[run * 8 + c];
    ownReciprocal[c] = __frcp_rn(ownScale[c]);
  }
#pragma unroll
  for (int i = 0; i < wordRuns; i++) {
    const int word = (i * threads + threadIdx.x) / runs;
    float x[4][8];
#pragma unroll
    for (int j = 0; j < 4; j++) unpack({values[i][j], {}}, true, x[j]);
#pragma unroll
    for (int c = 0; c < 8; c++) {
      float four[4];
#pragma unroll
      for (int j = 0; j < 4; j++) four[j] = quotient(x[j][c], ownScale[c], ownReciprocal[c]);
      transposed[(run * 8 + c) * pitch + word] = packE4m3(four);
    }
  }
  __syncthreads();
  const int64_t padded = int64_t(units) * unit;
#pragma unroll
  for (int i = 0; i < headDim * 8 / threads; i++) {
    const int channel = (i * threads + threadIdx.x) / 8, piece = threadIdx.x % 8;
    const uint32_t *words = transposed + channel * pitch + piece * 4;
    *reinterpret_cast<uint4 *>(asPointer<uint8_t>(a.outV) + (int64_t(head) * headDim + channel) * padded + firstKey + piece * 16) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <int headDim, int threads>
int launchUnits(const ditrun_quantize_kv_args &a, dim3 grid, cudaStream_t stream) {
  if (!a.rowFactor) {
    quantizeUnit<headDim, threads, false><<<grid, threads, 0, stream>>>(a);
  } else {
    constexpr int turnBytes = unit * headDim * sizeof(float);
    const auto kernel = quantizeUnit<headDim, threads, true>;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, turnBytes));
    kernel<<<grid, threads, turnBytes, stream>>>(a);
  }
  return launched("ditrun_quantize_kv");
}

constexpr int largestHeadDim = 1024;

/** The same for any head dimension, dtype and alignment, an element at a time. */
__global__ void __launch_bounds__(256) quantizeUnitGeneric(const __grid_constant__ ditrun_quantize_kv_args a) {
  __shared__ float mean[largestHeadDim], vScale[largestHeadDim], scratch[8];
  const int head = blockIdx.x, firstKey = blockIdx.y * unit, units = gridDim.y, columns = a.headDim;
  const int rows = min(unit, a.rows - firstKey);
  const void *v = asPointer<void>(a.v);
  readStatistics(a, head, blockIdx.y == 0, mean, vScale);
  __syncthreads();
  float amax = 0;
  for (int i = threadIdx.x; i < rows * columns; i += 256)
    amax = fmaxf(amax, fabsf(loadKey(a, firstKey + i / columns, head * columns + i % columns) - mean[i % columns]));
  const float scale = fmaxf(blockMax<256>(amax, scratch) / largestE4m3, FLT_MIN);
  if (threadIdx.x == 0) asPointer<float>(a.kScale)[int64_t(head) * units + blockIdx.y] = scale;
  for (int i = threadIdx.x; i < rows * columns; i += 256) {
    const int64_t row = firstKey + i / columns;
    const float x = loadKey(a, row, head * columns + i % columns) - mean[i % columns];
    storeOne(asPointer<void>(a.outK), (row * a.heads + head) * columns + i % columns, DITRUN_E4M3, __fdiv_rn(x, scale));
  }
  for (int i = threadIdx.x; i < unit * columns; i += 256) {
    const int channel = i / unit, place = i % unit, four = place / 4 % 4;
    const int key = place / 16 * 16 + four * 2 + place / 2 % 2 * 8 + place % 2;
    const float x = key < rows ? __fdiv_rn(loadOne(v, (firstKey + key) * a.ldv + head * columns + channel, a.dtype), vScale[channel]) : 0.0f;
    storeOne(asPointer<void>(a.outV), (int64_t(head) * columns + channel) * units * unit + firstKey + place, DITRUN_E4M3, x);
  }
}

}  // namespace

int ditrun_quantize_kv(const ditrun_quantize_kv_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv got no arguments.");
  const ditrun_quantize_kv_args &a = *args;
  if (!isFloat(a.dtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv takes f32 or bf16, not %s (dtype %d).", dtypeName(a.dtype), a.dtype);
  const int64_t columns = int64_t(a.heads) * a.headDim;
  if (a.rows <= 0 || a.heads <= 0 || a.headDim <= 0 || a.headDim > largestHeadDim || a.statisticsCount <= 0 || a.totalRows < a.rows || a.ldk < columns || a.ldv < columns)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv got %d of %lld rows, %d heads of %d (at most %d), %d statistics, strides %lld and %lld.", a.rows, (long long)a.totalRows,
                a.heads, a.headDim, largestHeadDim, a.statisticsCount, (long long)a.ldk, (long long)a.ldv);
  if (!a.k || !a.v || !a.statistics || !a.outK || !a.outV || !a.kScale || !a.vScale)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv got k 0x%llx, v 0x%llx, statistics 0x%llx, outK 0x%llx, outV 0x%llx, kScale 0x%llx, vScale 0x%llx; none may be 0.",
                (unsigned long long)a.k, (unsigned long long)a.v, (unsigned long long)a.statistics, (unsigned long long)a.outK, (unsigned long long)a.outV,
                (unsigned long long)a.kScale, (unsigned long long)a.vScale);
  TRY(checkKeyNorm("ditrun_quantize_kv", a.rowFactor, a.weight, a.rope, a.headDim));
  const dim3 grid(a.heads, (a.rows + unit - 1) / unit);
  if (grid.y > 65535) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv takes at most %d rows, got %d.", 65535 * unit, a.rows);
  const bool vectorized = a.dtype == DITRUN_BF16 && aligned16(a.k) && aligned16(a.v) && a.ldk % 8 == 0 && a.ldv % 8 == 0 && a.outK % 8 == 0 && aligned16(a.outV) && aligned16(a.weight) && aligned16(a.rope);
  if (vectorized && a.headDim == 32)
    return launchUnits<32, 128>(a, grid, asStream(stream));
  if (vectorized && a.headDim == 64)
    return launchUnits<64, 128>(a, grid, asStream(stream));
  if (vectorized && a.headDim == 128)
    return launchUnits<128, 256>(a, grid, asStream(stream));
  quantizeUnitGeneric<<<grid, 256, 0, asStream(stream)>>>(a);
  return launched("ditrun_quantize_kv");
}
