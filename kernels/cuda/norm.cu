// LayerNorm, one pass over memory: a row lives in the registers of a warp (or of 128 threads) while its mean, then the mean
// of its squared distances from that mean, are computed in float32.
#include "device.h"
#include "numbers.cuh"

struct LayerNorm {
  const void *x, *weight, *bias;
  void *out, *quantized;
  float *quantizedScale;
  int64_t ldx, ldo;
  int rows, columns;
  bool xBf16, weightBf16, outBf16;
  float epsilon;
};

__device__ inline float sumOf(float a, float b) { return a + b; }
__device__ inline float maxOf(float a, float b) { return fmaxf(a, b); }

/** Reduces over the threads that share a row: a warp, or all threads of the block. */
template <int threadsPerRow, float (*combine)(float, float)>
__device__ float reduceRow(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  if constexpr (threadsPerRow > 32) {
    constexpr int warps = threadsPerRow / 32;
    __shared__ float partial[warps];
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
#pragma unroll
    for (int warp = 1; warp < warps; warp++) value = combine(value, partial[warp]);
  }
  return value;
}

/** A block holds 8 rows of a warp each, or one row. */
template <int threadsPerRow>
constexpr int blockThreads = threadsPerRow == 32 ? 256 : threadsPerRow;

/** Each thread holds `chunks` vectors of 8 columns; needs columns, strides and addresses that allow 16-byte accesses.
 * A warp (or block) walks rows with a grid stride and loads its next row before it reduces this one, so that memory never
 * idles. Rows of a whole block keep weight and bias in registers where they fit; for a warp's rows more warps are worth more. */
template <int threadsPerRow, int chunks, bool quantize>
__global__ void __launch_bounds__(blockThreads<threadsPerRow>) layerNormRegisters(const __grid_constant__ LayerNorm args) {
  constexpr int rowsPerBlock = blockThreads<threadsPerRow> / threadsPerRow;
  constexpr bool keepWeights = threadsPerRow > 32 && chunks <= 2;
  const int lane = threadIdx.x % threadsPerRow, rowStep = gridDim.x * rowsPerBlock;
  const auto columnOf = [&](int chunk) { return (chunk * threadsPerRow + lane) * vectorWidth; };
  const auto loadWeights = [&](int column, float(&weight)[vectorWidth], float(&bias)[vectorWidth]) {
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) weight[j] = 1, bias[j] = 0;
    if (args.weight) load8(args.weight, column, args.weightBf16, weight);
    if (args.bias) load8(args.bias, column, args.weightBf16, bias);
  };
  float keptWeight[keepWeights ? chunks : 1][vectorWidth] = {}, keptBias[keepWeights ? chunks : 1][vectorWidth] = {};
  if constexpr (keepWeights) {
#pragma unroll
    for (int c = 0; c < chunks; c++)
      if (columnOf(c) < args.columns) loadWeights(columnOf(c), keptWeight[c], keptBias[c]);
  }
  Packed next[chunks];
  const auto fetch = [&](int row) {
#pragma unroll
    for (int c = 0; c < chunks; c++)
      if (columnOf(c) < args.columns) next[c] = loadPacked(args.x, row * args.ldx + columnOf(c), args.xBf16);
  };

  int row = blockIdx.x * rowsPerBlock + threadIdx.x / threadsPerRow;
  if (row < args.rows) fetch(row);
  for (; row < args.rows; row += rowStep) {
    float values[chunks][vectorWidth];
    float sum = 0;
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      if (columnOf(c) >= args.columns) continue;
      unpack(next[c], args.xBf16, values[c]);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) sum += values[c][j];
    }
    if (row + rowStep < args.rows) fetch(row + rowStep);

    const float mean = reduceRow<threadsPerRow, sumOf>(sum) / args.columns;
    float squares = 0;
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      if (columnOf(c) >= args.columns) continue;
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) {
        values[c][j] -= mean;
        squares += values[c][j] * values[c][j];
      }
    }
    const float scale = rsqrtf(reduceRow<threadsPerRow, sumOf>(squares) / args.columns + args.epsilon);

    float amax = 0;
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      const int column = columnOf(c);
      if (column >= args.columns) continue;
      float weight[vectorWidth], bias[vectorWidth];
      if constexpr (!keepWeights) loadWeights(column, weight, bias);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) {
        values[c][j] = values[c][j] * scale * (keepWeights ? keptWeight[c][j] : weight[j]) + (keepWeights ? keptBias[c][j] : bias[j]);
        if constexpr (quantize) amax = fmaxf(amax, fabsf(values[c][j]));
      }
      if (args.out) store8(args.out, row * args.ldo + column, args.outBf16, values[c]);
    }
    if constexpr (quantize) {
      const float rowScale = fmaxf(reduceRow<threadsPerRow, maxOf>(amax), smallestAmax) / largestE4m3;
      if (lane == 0) args.quantizedScale[row] = rowScale;
#pragma unroll
      for (int c = 0; c < chunks; c++) {
        const int column = columnOf(c);
        if (column >= args.columns) continue;
#pragma unroll
        for (int j = 0; j < vectorWidth; j++) values[c][j] = __fdiv_rn(values[c][j], rowScale);
        store8E4m3(args.quantized, int64_t(row) * args.columns + column, values[c]);
      }
    }
  }
}

/** Any width and alignment: one block a row, which is read again for each step (from cache while it is not too wide). */
__global__ void __launch_bounds__(256) layerNormAnyWidth(const __grid_constant__ LayerNorm args) {
  const int row = blockIdx.x;
  const int xDtype = args.xBf16 ? DITRUN_BF16 : DITRUN_F32, weightDtype = args.weightBf16 ? DITRUN_BF16 : DITRUN_F32;
  float sum = 0, squares = 0, amax = 0;
  for (int column = threadIdx.x; column < args.columns; column += 256) sum += loadOne(args.x, row * args.ldx + column, xDtype);
  const float mean = reduceRow<256, sumOf>(sum) / args.columns;
  for (int column = threadIdx.x; column < args.columns; column += 256) {
    const float distance = loadOne(args.x, row * args.ldx + column, xDtype) - mean;
    squares += distance * distance;
  }
  const float scale = rsqrtf(reduceRow<256, sumOf>(squares) / args.columns + args.epsilon);
  const auto normalized = [&](int column) {
    const float weight = args.weight ? loadOne(args.weight, column, weightDtype) : 1.0f;
    const float bias = args.bias ? loadOne(args.bias, column, weightDtype) : 0.0f;
    return (loadOne(args.x, row * args.ldx + column, xDtype) - mean) * scale * weight + bias;
  };
  if (args.quantized) {
    for (int column = threadIdx.x; column < args.columns; column += 256) amax = fmaxf(amax, fabsf(normalized(column)));
    const float rowScale = fmaxf(reduceRow<256, maxOf>(amax), smallestAmax) / largestE4m3;
    if (threadIdx.x == 0) args.quantizedScale[row] = rowScale;
    for (int column = threadIdx.x; column < args.columns; column += 256)
      storeOne(args.quantized, int64_t(row) * args.columns + column, DITRUN_E4M3, __fdiv_rn(normalized(column), rowScale));
  }
  // Last, and each element by the thread that read it: out may be x.
  if (args.out)
    for (int column = threadIdx.x; column < args.columns; column += 256)
      storeOne(args.out, row * args.ldo + column, args.outBf16 ? DITRUN_BF16 : DITRUN_F32, normalized(column));
}

template <int threadsPerRow, int chunks>
static int launchRegisters(const LayerNorm &args, cudaStream_t stream) {
  constexpr int threads = blockThreads<threadsPerRow>, rowsPerBlock = threads / threadsPerRow;
  const auto kernel = args.quantized ? layerNormRegisters<threadsPerRow, chunks, true> : layerNormRegisters<threadsPerRow, chunks, false>;
  int perMultiprocessor = 0;
  CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&perMultiprocessor, kernel, threads, 0));
  const int blocks = (args.rows + rowsPerBlock - 1) / rowsPerBlock, resident = deviceFacts().multiprocessors * perMultiprocessor;
  kernel<<<blocks < resident ? blocks : resident, threads, 0, stream>>>(args);
  return launched("ditrun_layer_norm");
}

int ditrun_layer_norm(const ditrun_layer_norm_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->rows < 0 || a->columns <= 0 || a->x == 0 || (a->out == 0 && a->quantized == 0))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm needs x, out or quantized, and columns above 0: got %d rows of %d columns.", a ? a->rows : 0, a ? a->columns : 0);
  if (!isFloat(a->xDtype) || !isFloat(a->weightDtype) || (a->out && !isFloat(a->outDtype)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm takes f32 or bf16, got x %s, weight %s, out %s.", dtypeName(a->xDtype), dtypeName(a->weightDtype),
                dtypeName(a->outDtype));
  if (a->ldx < a->columns || (a->out && a->ldo < a->columns))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm got rows of %d columns with strides %lld (x) and %lld (out).", a->columns, (long long)a->ldx, (long long)a->ldo);
  if (a->quantized && a->quantizedScale == 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm got a place for e4m3 rows but none for their scales.");
  if (a->rows == 0) return DITRUN_OK;
  const LayerNorm args{asPointer<void>(a->x),  asPointer<void>(a->weight), asPointer<void>(a->bias), asPointer<void>(a->out), asPointer<void>(a->quantized),
                       asPointer<float>(a->quantizedScale), a->ldx, a->ldo, a->rows, a->columns, a->xDtype == DITRUN_BF16, a->weightDtype == DITRUN_BF16,
                       a->outDtype == DITRUN_BF16, a->epsilon};
  const bool vectorized = a->columns % vectorWidth == 0 && a->ldx % vectorWidth == 0 && (!a->out || a->ldo % vectorWidth == 0) && aligned16(a->x) &&
                          aligned16(a->weight) && aligned16(a->bias) && aligned16(a->out) && a->quantized % vectorWidth == 0;
  const int vectors = a->columns / vectorWidth;
  const cudaStream_t queue = asStream(stream);
  if (vectorized && vectors <= 32) return launchRegisters<32, 1>(args, queue);
  if (vectorized && vectors <= 32 * 2) return launchRegisters<32, 2>(args, queue);
  if (vectorized && vectors <= 32 * 4) return launchRegisters<32, 4>(args, queue);
  if (vectorized && vectors <= 128 * 2) return launchRegisters<128, 2>(args, queue);
  if (vectorized && vectors <= 128 * 4) return launchRegisters<128, 4>(args, queue);
  if (vectorized && vectors <= 128 * 8) return launchRegisters<128, 8>(args, queue);
  layerNormAnyWidth<<<a->rows, 256, 0, queue>>>(args);
  return launched("ditrun_layer_norm");
}
