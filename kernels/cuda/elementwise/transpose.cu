// Batched transpose through shared memory: 64 × 64 tiles, rows read and columns written contiguously.
#include "runtime/device.h"
#include "runtime/numbers.cuh"

constexpr int transposeTile = 64, transposeRows = 4;  // threads: 64 × 4

template <class T>
__global__ void __launch_bounds__(transposeTile *transposeRows)
    transposeKernel(T *out, const T *x, int rows, int columns, int64_t tiles, int across, int down) {
  __shared__ T tile[transposeTile][transposeTile + 4 / sizeof(T)];
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const int64_t first = index / (int64_t(across) * down) * rows * columns;
    const int row0 = int(index / across % down) * transposeTile, column0 = int(index % across) * transposeTile;
    for (int r = threadIdx.y; r < transposeTile; r += transposeRows)
      if (row0 + r < rows && column0 + int(threadIdx.x) < columns)
        tile[r][threadIdx.x] = x[first + int64_t(row0 + r) * columns + column0 + threadIdx.x];
    __syncthreads();
    for (int c = threadIdx.y; c < transposeTile; c += transposeRows)
      if (column0 + c < columns && row0 + int(threadIdx.x) < rows)
        out[first + int64_t(column0 + c) * rows + row0 + threadIdx.x] = tile[threadIdx.x][c];
    __syncthreads();
  }
}

int ditrun_transpose(uint64_t out, uint64_t x, int batch, int rows, int columns, int dtype, uint64_t stream) {
  TRY(useDevice());
  if (batch <= 0 || rows <= 0 || columns <= 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_transpose got a batch of %d matrices of %d × %d; all must be positive.", batch, rows, columns);
  if (!isFloatOrF16(dtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_transpose takes f32, bf16 or f16, got %s.", dtypeName(dtype));
  if (!x || !out || x == out || x % dtypeBytes(dtype) || out % dtypeBytes(dtype))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_transpose got x 0x%llx and out 0x%llx for elements of %d bytes; it cannot work in place.",
                (unsigned long long)x, (unsigned long long)out, dtypeBytes(dtype));
  const int across = (columns + transposeTile - 1) / transposeTile, down = (rows + transposeTile - 1) / transposeTile;
  const int64_t tiles = int64_t(batch) * across * down, most = int64_t(deviceFacts().multiprocessors) * 32;
  const dim3 threads(transposeTile, transposeRows);
  const int blocks = int(tiles < most ? tiles : most);
  if (dtype == DITRUN_F32)
    transposeKernel<<<blocks, threads, 0, asStream(stream)>>>(asPointer<uint32_t>(out), asPointer<const uint32_t>(x),
                                                              rows, columns, tiles, across, down);
  else
    transposeKernel<<<blocks, threads, 0, asStream(stream)>>>(asPointer<uint16_t>(out), asPointer<const uint16_t>(x),
                                                              rows, columns, tiles, across, down);
  return launched("ditrun_transpose");
}
