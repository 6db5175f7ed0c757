// Keys and values to e4m3 for attention (see ditrun.h): sums and maxima of columns, then smoothing, scaling and V's
// transposition.
#include <cfloat>

#include "runtime/device.h"
#include "runtime/numbers.cuh"

namespace {

constexpr int parts = DITRUN_STATISTICS_PARTS;
constexpr int unit = DITRUN_FP8_KEYS;

/** How the 256 threads of a block share a part's rows: 32 runs of neighbouring columns, eight rows at a time. */
constexpr int runsPerBlock = 32, rowsAtOnce = 8;

/** workspace[part] = Σ k and max |v| of the columns, over rows part · rows / parts and on. A thread's rows are eight
 * apart. */
template <int width>
__global__ void __launch_bounds__(256) partStatistics(float *workspace, const void *k, int64_t ldk, const void *v,
                                                      int64_t ldv, int rows, int columns, bool isBf16) {
  __shared__ float sums[rowsAtOnce][runsPerBlock * width], maxima[rowsAtOnce][runsPerBlock * width];
  const int run = threadIdx.x % runsPerBlock, lane = threadIdx.x / runsPerBlock;
  const int column = (blockIdx.x * runsPerBlock + run) * width;
  const int part = blockIdx.y, first = int(int64_t(rows) * part / parts), end = int(int64_t(rows) * (part + 1) / parts);
  float sum[width] = {}, amax[width] = {};
  if (column < columns) {
#pragma unroll 4
    for (int row = first + lane; row < end; row += rowsAtOnce) {
      float keys[width], values[width];
      if constexpr (width == 1) {
        const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32;
        keys[0] = loadOne(k, row * ldk + column, dtype);
        values[0] = loadOne(v, row * ldv + column, dtype);
      } else {
        loadRun(k, row * ldk + column, isBf16, keys);
        loadRun(v, row * ldv + column, isBf16, values);
      }
#pragma unroll
      for (int i = 0; i < width; i++) {
        sum[i] += keys[i];
        amax[i] = fmaxf(amax[i], fabsf(values[i]));
      }
    }
  }
#pragma unroll
  for (int i = 0; i < width; i++) {
    sums[lane][run * width + i] = sum[i];
    maxima[lane][run * width + i] = amax[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < runsPerBlock * width; i += 256) {
    const int at = blockIdx.x * runsPerBlock * width + i;
    if (at >= columns) break;
    float total = sums[0][i], largest = maxima[0][i];
#pragma unroll
    for (int other = 1; other < rowsAtOnce; other++) {
      total += sums[other][i];
      largest = fmaxf(largest, maxima[other][i]);
    }
    workspace[(int64_t(part) * 2) * columns + at] = total;
    workspace[(int64_t(part) * 2 + 1) * columns + at] = largest;
  }
}

/** Adds up the parts, in their order. */
__global__ void __launch_bounds__(128) joinStatistics(float *statistics, const float *workspace, int columns) {
  const int column = blockIdx.x * 128 + threadIdx.x;
  if (column >= columns) return;
  float total = 0, largest = 0;
#pragma unroll 16
  for (int part = 0; part < parts; part++) {
    total += workspace[int64_t(part) * 2 * columns + column];
    largest = fmaxf(largest, workspace[(int64_t(part) * 2 + 1) * columns + column]);
  }
  statistics[column] = total;
  statistics[columns + column] = largest;
}

/** The mean key and the scales of V's channels of one head, into shared memory; the first unit's block also stores the
 * scales. */
__device__ inline void readStatistics(const ditrun_quantize_kv_args &a, int head, bool store, float *mean,
                                      float *vScale) {
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
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < threads / 32; warp++) value = fmaxf(value, scratch[warp]);
  return value;
}

/** A block: 128 keys and values of one head. bf16 in rows that start on 16 bytes; everything is read once, before the
 * first use. */
template <int headDim, int threads>
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
      values[i][j] =
          row < a.rows ? *reinterpret_cast<const uint4 *>(v + row * a.ldv + run * 8) : make_uint4(0, 0, 0, 0);
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
    *reinterpret_cast<uint4 *>(asPointer<uint8_t>(a.outV) + (int64_t(head) * headDim + channel) * padded + firstKey +
                               piece * 16) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

constexpr int largestHeadDim = 1024;

/** The same for any head dimension, dtype and alignment, an element at a time. */
__global__ void __launch_bounds__(256) quantizeUnitGeneric(const __grid_constant__ ditrun_quantize_kv_args a) {
  __shared__ float mean[largestHeadDim], vScale[largestHeadDim], scratch[8];
  const int head = blockIdx.x, firstKey = blockIdx.y * unit, units = gridDim.y, columns = a.headDim;
  const int rows = min(unit, a.rows - firstKey);
  const void *k = asPointer<void>(a.k), *v = asPointer<void>(a.v);
  readStatistics(a, head, blockIdx.y == 0, mean, vScale);
  __syncthreads();
  float amax = 0;
  for (int i = threadIdx.x; i < rows * columns; i += 256)
    amax = fmaxf(amax, fabsf(loadOne(k, (firstKey + i / columns) * a.ldk + head * columns + i % columns, a.dtype) -
                             mean[i % columns]));
  const float scale = fmaxf(blockMax<256>(amax, scratch) / largestE4m3, FLT_MIN);
  if (threadIdx.x == 0) asPointer<float>(a.kScale)[int64_t(head) * units + blockIdx.y] = scale;
  for (int i = threadIdx.x; i < rows * columns; i += 256) {
    const int64_t row = firstKey + i / columns;
    const float x = loadOne(k, row * a.ldk + head * columns + i % columns, a.dtype) - mean[i % columns];
    storeOne(asPointer<void>(a.outK), (row * a.heads + head) * columns + i % columns, DITRUN_E4M3, __fdiv_rn(x, scale));
  }
  for (int i = threadIdx.x; i < unit * columns; i += 256) {
    const int channel = i / unit, place = i % unit, four = place / 4 % 4;
    const int key = place / 16 * 16 + four * 2 + place / 2 % 2 * 8 + place % 2;
    const float x = key < rows ? __fdiv_rn(loadOne(v, (firstKey + key) * a.ldv + head * columns + channel, a.dtype),
                                           vScale[channel])
                               : 0.0f;
    storeOne(asPointer<void>(a.outV), (int64_t(head) * columns + channel) * units * unit + firstKey + place,
             DITRUN_E4M3, x);
  }
}

}  // namespace

int ditrun_kv_statistics(uint64_t statistics, uint64_t workspace, uint64_t k, int64_t ldk, uint64_t v, int64_t ldv,
                         int rows, int columns, int dtype, uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(dtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_kv_statistics takes f32 or bf16, not %s (dtype %d).", dtypeName(dtype),
                dtype);
  if (rows <= 0 || columns <= 0 || ldk < columns || ldv < columns || !statistics || !workspace || !k || !v ||
      statistics % 4 != 0 || workspace % 4 != 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_kv_statistics got %d rows of %d columns with strides %lld and %lld, k 0x%llx, v 0x%llx, "
                "statistics 0x%llx, workspace 0x%llx.",
                rows, columns, (long long)ldk, (long long)ldv, (unsigned long long)k, (unsigned long long)v,
                (unsigned long long)statistics, (unsigned long long)workspace);
  const bool isBf16 = dtype == DITRUN_BF16;
  const int width = isBf16 ? 8 : 4;
  const bool vectorized = columns % width == 0 && ldk % width == 0 && ldv % width == 0 && aligned16(k) && aligned16(v);
  const auto kernel = !vectorized ? partStatistics<1> : isBf16 ? partStatistics<8> : partStatistics<4>;
  const int perBlock = runsPerBlock * (vectorized ? width : 1);
  kernel<<<dim3((columns + perBlock - 1) / perBlock, parts), 256, 0, asStream(stream)>>>(
      asPointer<float>(workspace), asPointer<void>(k), ldk, asPointer<void>(v), ldv, rows, columns, isBf16);
  TRY(launched("ditrun_kv_statistics"));
  joinStatistics<<<(columns + 127) / 128, 128, 0, asStream(stream)>>>(asPointer<float>(statistics),
                                                                      asPointer<float>(workspace), columns);
  return launched("ditrun_kv_statistics (join)");
}

int ditrun_quantize_kv(const ditrun_quantize_kv_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv got no arguments.");
  const ditrun_quantize_kv_args &a = *args;
  if (!isFloat(a.dtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv takes f32 or bf16, not %s (dtype %d).", dtypeName(a.dtype),
                a.dtype);
  const int64_t columns = int64_t(a.heads) * a.headDim;
  if (a.rows <= 0 || a.heads <= 0 || a.headDim <= 0 || a.headDim > largestHeadDim || a.statisticsCount <= 0 ||
      a.totalRows < a.rows || a.ldk < columns || a.ldv < columns)
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_quantize_kv got %d of %lld rows, %d heads of %d (at most %d), %d statistics, strides %lld and %lld.",
        a.rows, (long long)a.totalRows, a.heads, a.headDim, largestHeadDim, a.statisticsCount, (long long)a.ldk,
        (long long)a.ldv);
  if (!a.k || !a.v || !a.statistics || !a.outK || !a.outV || !a.kScale || !a.vScale)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_quantize_kv got k 0x%llx, v 0x%llx, statistics 0x%llx, outK 0x%llx, outV 0x%llx, kScale "
                "0x%llx, vScale 0x%llx; none may be 0.",
                (unsigned long long)a.k, (unsigned long long)a.v, (unsigned long long)a.statistics,
                (unsigned long long)a.outK, (unsigned long long)a.outV, (unsigned long long)a.kScale,
                (unsigned long long)a.vScale);
  const dim3 grid(a.heads, (a.rows + unit - 1) / unit);
  if (grid.y > 65535)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_kv takes at most %d rows, got %d.", 65535 * unit, a.rows);
  const bool vectorized = a.dtype == DITRUN_BF16 && aligned16(a.k) && aligned16(a.v) && a.ldk % 8 == 0 &&
                          a.ldv % 8 == 0 && a.outK % 8 == 0 && aligned16(a.outV);
  if (vectorized && a.headDim == 32) quantizeUnit<32, 128><<<grid, 128, 0, asStream(stream)>>>(a);
  else if (vectorized && a.headDim == 64) quantizeUnit<64, 128><<<grid, 128, 0, asStream(stream)>>>(a);
  else if (vectorized && a.headDim == 128) quantizeUnit<128, 256><<<grid, 256, 0, asStream(stream)>>>(a);
  else quantizeUnitGeneric<<<grid, 256, 0, asStream(stream)>>>(a);
  return launched("ditrun_quantize_kv");
}
