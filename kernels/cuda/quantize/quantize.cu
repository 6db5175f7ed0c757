// Rows to e4m3 with one scale a row: scale = max(amax, 1e-12) / 448, out = x / scale rounded to nearest even.
#include "runtime/device.h"
#include "norm/rows.cuh"

/** The largest absolute value of 16 bytes of bf16 or float32. */
template <bool isBf16>
__device__ inline float largestOf(const uint4 &packed) {
  if constexpr (isBf16) {
    const auto *pairs = reinterpret_cast<const __nv_bfloat162 *>(&packed);
    const __nv_bfloat162 most =
        __hmax2(__hmax2(__habs2(pairs[0]), __habs2(pairs[1])), __hmax2(__habs2(pairs[2]), __habs2(pairs[3])));
    return fmaxf(__low2float(most), __high2float(most));
  } else {
    float values[4];
    unpackRun(packed, values);
    return fmaxf(fmaxf(fabsf(values[0]), fabsf(values[1])), fmaxf(fabsf(values[2]), fabsf(values[3])));
  }
}

/** Any width and alignment: a block a row, which is read twice, the second time from cache while it is not too wide. */
__global__ void __launch_bounds__(256)
    quantizeAnyRows(uint8_t *out, float *scale, const void *x, int64_t ldx, int columns, int dtype) {
  const int64_t source = blockIdx.x * ldx, destination = int64_t(blockIdx.x) * columns;
  float amax = 0;
  for (int column = threadIdx.x; column < columns; column += 256)
    amax = fmaxf(amax, fabsf(loadOne(x, source + column, dtype)));
  const float rowScale = scaleOfAmax(reduceRow<256, maxOf>(amax));
  if (threadIdx.x == 0) scale[blockIdx.x] = rowScale;
  for (int column = threadIdx.x; column < columns; column += 256)
    storeOne(out, destination + column, DITRUN_E4M3, __fdiv_rn(loadOne(x, source + column, dtype), rowScale));
}

/** A block a row (a warp, if `threads` is 32), which each thread holds in `runs` runs of 16 bytes, still packed. */
template <bool isBf16, int threads, int runs>
__global__ void __launch_bounds__(threads < 128 ? 128 : threads)
    quantizeRows(uint8_t *out, float *scale, const void *x, int64_t ldx, int rows, int columns) {
  constexpr int width = isBf16 ? 8 : 4, rowsAtOnce = threads < 128 ? 128 / threads : 1;
  const int row = blockIdx.x * rowsAtOnce + threadIdx.x / threads, lane = threadIdx.x % threads;
  if (row >= rows) return;
  const auto *source = static_cast<const uint4 *>(x) + row * ldx / width;
  const int count = columns / width - lane;  // of runs from this thread's first to the row's end
  uint4 packed[runs];
#pragma unroll
  for (int i = 0; i < runs; i++) packed[i] = i * threads < count ? source[lane + i * threads] : make_uint4(0, 0, 0, 0);
  float amax = 0;
#pragma unroll
  for (int i = 0; i < runs; i++) amax = fmaxf(amax, largestOf<isBf16>(packed[i]));
  const float rowScale = scaleOfAmax(reduceRow<threads, maxOf>(amax)), reciprocal = reciprocalOfNormal(rowScale);
  if (lane == 0) scale[row] = rowScale;
#pragma unroll
  for (int i = 0; i < runs; i++) {
    float values[width];
    unpackRun(packed[i], values);
#pragma unroll
    for (int j = 0; j < width; j++) values[j] = quotient(values[j], rowScale, reciprocal);
    if (i * threads < count) storeRunE4m3(out, int64_t(row) * columns + (lane + i * threads) * width, values);
  }
}

/** Rows of 8 · threads columns, as attention's heads are: neighbouring threads share a row, and each holds its part of
 * several. */
template <int threads>
__global__ void __launch_bounds__(256)
    quantizeNarrowRows(uint8_t *out, float *scale, const void *x, int64_t ldx, int rows, bool isBf16) {
  constexpr int rowsEach = 4, rowsAtOnce = 256 / threads;
  const int first = blockIdx.x * rowsEach * rowsAtOnce + threadIdx.x / threads,
            column = threadIdx.x % threads * vectorWidth;
  Packed packed[rowsEach];
#pragma unroll
  for (int i = 0; i < rowsEach; i++) {
    const int row = first + i * rowsAtOnce;
    packed[i] = row < rows ? loadPacked(x, row * ldx + column, isBf16) : Packed{};
  }
#pragma unroll
  for (int i = 0; i < rowsEach; i++) {
    const int row = first + i * rowsAtOnce;
    float values[vectorWidth], amax = 0;
    unpack(packed[i], isBf16, values);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) amax = fmaxf(amax, fabsf(values[j]));
#pragma unroll
    for (int distance = threads / 2; distance > 0; distance /= 2)
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, distance));
    const float rowScale = scaleOfAmax(amax), reciprocal = reciprocalOfNormal(rowScale);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) values[j] = quotient(values[j], rowScale, reciprocal);
    if (row >= rows) continue;
    storeRunE4m3(out, int64_t(row) * 8 * threads + column, values);
    if (threadIdx.x % threads == 0) scale[row] = rowScale;
  }
}

template <int threads>
static void launchNarrowRows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int xDtype,
                             uint64_t stream) {
  constexpr int rowsPerBlock = 4 * 256 / threads;
  quantizeNarrowRows<threads><<<(rows + rowsPerBlock - 1) / rowsPerBlock, 256, 0, asStream(stream)>>>(
      asPointer<uint8_t>(out), asPointer<float>(scale), asPointer<void>(x), ldx, rows, xDtype == DITRUN_BF16);
}

template <bool isBf16, int threads, int runs>
static void launchRows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns, uint64_t stream) {
  constexpr int rowsAtOnce = threads < 128 ? 128 / threads : 1;
  constexpr int blockThreads = threads < 128 ? 128 : threads;
  const int blocks = (rows + rowsAtOnce - 1) / rowsAtOnce;
  quantizeRows<isBf16, threads, runs><<<blocks, blockThreads, 0, asStream(stream)>>>(
      asPointer<uint8_t>(out), asPointer<float>(scale), asPointer<void>(x), ldx, rows, columns);
}

/** The smallest shape that holds a row; false if it is too wide for all. */
template <bool isBf16>
static bool launchVectors(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns,
                          uint64_t stream) {
  const int runs = columns / (isBf16 ? 8 : 4);
  if (runs <= 32 * 2) launchRows<isBf16, 32, 2>(out, scale, x, ldx, rows, columns, stream);
  else if (runs <= 32 * 6) launchRows<isBf16, 32, 6>(out, scale, x, ldx, rows, columns, stream);
  else if (runs <= 128 * 5) launchRows<isBf16, 128, 5>(out, scale, x, ldx, rows, columns, stream);
  else if (runs <= 160 * 7) launchRows<isBf16, 160, 7>(out, scale, x, ldx, rows, columns, stream);
  else if (runs <= 288 * 8) launchRows<isBf16, 288, 8>(out, scale, x, ldx, rows, columns, stream);
  else if (runs <= 1024 * 8) launchRows<isBf16, 1024, 8>(out, scale, x, ldx, rows, columns, stream);
  else return false;
  return true;
}

int ditrun_quantize_rows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns, int xDtype,
                         uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(xDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_rows takes f32 or bf16, not %s (dtype %d).",
                dtypeName(xDtype), xDtype);
  if (rows < 0 || columns <= 0 || ldx < columns || out == 0 || scale == 0 || x == 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_quantize_rows got %d rows of %d columns, stride %lld, x 0x%llx, out 0x%llx, scale 0x%llx.",
                rows, columns, (long long)ldx, (unsigned long long)x, (unsigned long long)out,
                (unsigned long long)scale);
  if (rows == 0) return DITRUN_OK;
  const bool vectorized =
      columns % vectorWidth == 0 && ldx % vectorWidth == 0 && aligned16(x) && out % vectorWidth == 0;
  if (vectorized && columns == 32) launchNarrowRows<4>(out, scale, x, ldx, rows, xDtype, stream);
  else if (vectorized && columns == 64) launchNarrowRows<8>(out, scale, x, ldx, rows, xDtype, stream);
  else if (vectorized && columns == 128) launchNarrowRows<16>(out, scale, x, ldx, rows, xDtype, stream);
  else if (!vectorized || !(xDtype == DITRUN_BF16 ? launchVectors<true>(out, scale, x, ldx, rows, columns, stream)
                                                  : launchVectors<false>(out, scale, x, ldx, rows, columns, stream)))
    quantizeAnyRows<<<rows, 256, 0, asStream(stream)>>>(asPointer<uint8_t>(out), asPointer<float>(scale),
                                                        asPointer<void>(x), ldx, columns, xDtype);
  return launched("ditrun_quantize_rows");
}
