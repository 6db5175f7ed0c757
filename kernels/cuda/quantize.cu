// Rows to e4m3 with one scale a row: scale = max(amax, 1e-12) / 448, out = x / scale rounded to nearest even.
#include "device.h"
#include "numbers.cuh"

/** A warp a row; the row is read twice, the second time from cache. */
__global__ void __launch_bounds__(256) quantizeRows(uint8_t *out, float *scale, const void *x, int64_t ldx, int rows, int columns, bool isBf16, bool vectorized) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const int dtype = isBf16 ? DITRUN_BF16 : DITRUN_F32;
  const int64_t source = row * ldx, destination = int64_t(row) * columns;
  float amax = 0;
  if (vectorized) {
#pragma unroll 2
    for (int column = lane * vectorWidth; column < columns; column += 32 * vectorWidth) {
      float values[vectorWidth];
      load8(x, source + column, isBf16, values);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) amax = fmaxf(amax, fabsf(values[j]));
    }
  } else {
    for (int column = lane; column < columns; column += 32) amax = fmaxf(amax, fabsf(loadOne(x, source + column, dtype)));
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, distance));
  const float rowScale = fmaxf(amax, smallestAmax) / largestE4m3;
  if (lane == 0) scale[row] = rowScale;
  if (vectorized) {
#pragma unroll 2
    for (int column = lane * vectorWidth; column < columns; column += 32 * vectorWidth) {
      float values[vectorWidth];
      load8(x, source + column, isBf16, values);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) values[j] = __fdiv_rn(values[j], rowScale);
      storeRunE4m3(out, destination + column, values);
    }
  } else {
    for (int column = lane; column < columns; column += 32)
      storeOne(out, destination + column, DITRUN_E4M3, __fdiv_rn(loadOne(x, source + column, dtype), rowScale));
  }
}

/** Rows of 8 · threads columns, as attention's heads are: neighbouring threads share a row, and each holds its part of several. */
template <int threads>
__global__ void __launch_bounds__(256) quantizeNarrowRows(uint8_t *out, float *scale, const void *x, int64_t ldx, int rows, bool isBf16) {
  constexpr int rowsEach = 4, rowsAtOnce = 256 / threads;
  const int first = blockIdx.x * rowsEach * rowsAtOnce + threadIdx.x / threads, column = threadIdx.x % threads * vectorWidth;
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
    for (int distance = threads / 2; distance > 0; distance /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, distance));
    const float rowScale = fmaxf(amax, smallestAmax) / largestE4m3, reciprocal = __frcp_rn(rowScale);
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) values[j] = quotient(values[j], rowScale, reciprocal);
    if (row >= rows) continue;
    storeRunE4m3(out, int64_t(row) * 8 * threads + column, values);
    if (threadIdx.x % threads == 0) scale[row] = rowScale;
  }
}

template <int threads>
static void launchNarrowRows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int xDtype, uint64_t stream) {
  constexpr int rowsPerBlock = 4 * 256 / threads;
  quantizeNarrowRows<threads><<<(rows + rowsPerBlock - 1) / rowsPerBlock, 256, 0, asStream(stream)>>>(asPointer<uint8_t>(out), asPointer<float>(scale), asPointer<void>(x), ldx, rows,
                                                                                                    xDtype == DITRUN_BF16);
}

int ditrun_quantize_rows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns, int xDtype, uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(xDtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_rows takes f32 or bf16, not %s (dtype %d).", dtypeName(xDtype), xDtype);
  if (rows < 0 || columns <= 0 || ldx < columns || out == 0 || scale == 0 || x == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_quantize_rows got %d rows of %d columns, stride %lld, x 0x%llx, out 0x%llx, scale 0x%llx.", rows, columns, (long long)ldx,
                (unsigned long long)x, (unsigned long long)out, (unsigned long long)scale);
  if (rows == 0) return DITRUN_OK;
  const bool vectorized = columns % vectorWidth == 0 && ldx % vectorWidth == 0 && aligned16(x) && out % vectorWidth == 0;
  if (vectorized && columns == 32)
    launchNarrowRows<4>(out, scale, x, ldx, rows, xDtype, stream);
  else if (vectorized && columns == 64)
    launchNarrowRows<8>(out, scale, x, ldx, rows, xDtype, stream);
  else if (vectorized && columns == 128)
    launchNarrowRows<16>(out, scale, x, ldx, rows, xDtype, stream);
  else
    quantizeRows<<<(rows + 7) / 8, 256, 0, asStream(stream)>>>(asPointer<uint8_t>(out), asPointer<float>(scale), asPointer<void>(x), ldx, rows, columns,
                                                              xDtype == DITRUN_BF16, vectorized);
  return launched("ditrun_quantize_rows");
}
