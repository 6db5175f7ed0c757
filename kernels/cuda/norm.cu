// LayerNorm with modulation, one pass over memory: a row lives in the registers of 16, 32 or 128 threads while its mean, then the
// mean of its squared distances from that mean, are computed in float32.
#include "device.h"
#include "rows.cuh"

struct LayerNorm {
  const void *x, *weight, *bias;
  const float *modScale, *modShift;
  void *out, *quantized;
  float *quantizedScale;
  int64_t ldx, ldo;
  int rows, columns;
  bool xBf16, weightBf16, outBf16;
  float epsilon;
};

/** y = y * weight + bias, then y * (1 + modScale) + modShift, for a run of columns. */
template <int width>
__device__ inline void scaleAndShift(const LayerNorm &args, int column, float (&y)[width]) {
  float factor[width], term[width];
#pragma unroll
  for (int j = 0; j < width; j++) factor[j] = 1, term[j] = 0;
  if (args.weight) loadRun(args.weight, column, args.weightBf16, factor);
  if (args.bias) loadRun(args.bias, column, args.weightBf16, term);
#pragma unroll
  for (int j = 0; j < width; j++) y[j] = y[j] * factor[j] + term[j];
  if (!args.modScale) return;
  loadRun(args.modScale, column, false, factor);
  loadRun(args.modShift, column, false, term);
#pragma unroll
  for (int j = 0; j < width; j++) y[j] = y[j] * (1.0f + factor[j]) + term[j];
}

/** Needs columns, strides and addresses that allow 16-byte accesses. out may be x: a row is read before it is written. */
template <class Shape, bool quantize>
__global__ void __launch_bounds__(rowBlockThreads) layerNormRegisters(const __grid_constant__ LayerNorm args) {
  constexpr int threadsPerRow = Shape::threadsPerRow, chunks = Shape::chunks, width = Shape::width;
  const int row = Shape::row();
  const bool inside = row < args.rows;
  float values[chunks][width];
  loadRow<Shape>(args.x, args.ldx, row, args.rows, args.columns, values);

  float sum = 0, squares = 0;
#pragma unroll
  for (int c = 0; c < chunks; c++)
#pragma unroll
    for (int j = 0; j < width; j++) sum += values[c][j];
  const float mean = reduceRow<threadsPerRow, sumOf>(sum) / args.columns;
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    if (Shape::column(c) >= args.columns) continue;
#pragma unroll
    for (int j = 0; j < width; j++) {
      values[c][j] -= mean;
      squares += values[c][j] * values[c][j];
    }
  }
  const float scale = rsqrtf(reduceRow<threadsPerRow, sumOf>(squares) / args.columns + args.epsilon);

  float amax = 0;
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    const int column = Shape::column(c);
    if (column >= args.columns) continue;
#pragma unroll
    for (int j = 0; j < width; j++) values[c][j] *= scale;
    scaleAndShift(args, column, values[c]);
    if constexpr (quantize) {
#pragma unroll
      for (int j = 0; j < width; j++) amax = fmaxf(amax, fabsf(values[c][j]));
    }
    if (inside && args.out) storeRun(args.out, row * args.ldo + column, args.outBf16, values[c]);
  }
  if constexpr (quantize) {
    const float rowScale = fmaxf(reduceRow<threadsPerRow, maxOf>(amax), smallestAmax) / largestE4m3;
    if (!inside) return;
    if (Shape::lane() == 0) args.quantizedScale[row] = rowScale;
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      const int column = Shape::column(c);
      if (column >= args.columns) continue;
#pragma unroll
      for (int j = 0; j < width; j++) values[c][j] = __fdiv_rn(values[c][j], rowScale);
      storeRunE4m3(args.quantized, int64_t(row) * args.columns + column, values[c]);
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
    const float y = (loadOne(args.x, row * args.ldx + column, xDtype) - mean) * scale * weight + bias;
    return args.modScale ? y * (1.0f + args.modScale[column]) + args.modShift[column] : y;
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

template <bool xBf16, int threadsPerRow, int valuesEach>
static int launchShape(const LayerNorm &args, cudaStream_t stream) {
  using Shape = RowShape<xBf16, threadsPerRow, valuesEach>;
  const auto kernel = args.quantized ? layerNormRegisters<Shape, true> : layerNormRegisters<Shape, false>;
  kernel<<<(args.rows + Shape::rowsPerBlock - 1) / Shape::rowsPerBlock, rowBlockThreads, 0, stream>>>(args);
  return launched("ditrun_layer_norm");
}

/** The smallest shape that holds a row; wider rows than the largest are read from memory three times. */
template <bool xBf16>
static int launchVectors(const LayerNorm &args, cudaStream_t stream) {
  if (args.columns <= 16 * 32) return launchShape<xBf16, 16, 32>(args, stream);
  if (args.columns <= 32 * 32) return launchShape<xBf16, 32, 32>(args, stream);
  if (args.columns <= 32 * 48) return launchShape<xBf16, 32, 48>(args, stream);
  if (args.columns <= 32 * 64) return launchShape<xBf16, 32, 64>(args, stream);
  if (args.columns <= 128 * 32) return launchShape<xBf16, 128, 32>(args, stream);
  if (args.columns <= 128 * 40) return launchShape<xBf16, 128, 40>(args, stream);
  return launchShape<xBf16, 128, 64>(args, stream);
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
  if ((a->modScale == 0) != (a->modShift == 0))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm takes modScale and modShift together, got 0x%llx and 0x%llx.", (unsigned long long)a->modScale,
                (unsigned long long)a->modShift);
  if (a->quantized && a->quantizedScale == 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm got a place for e4m3 rows but none for their scales.");
  if (a->rows == 0) return DITRUN_OK;
  const LayerNorm args{asPointer<void>(a->x),          asPointer<void>(a->weight),    asPointer<void>(a->bias),          asPointer<float>(a->modScale),
                       asPointer<float>(a->modShift),  asPointer<void>(a->out),       asPointer<void>(a->quantized),     asPointer<float>(a->quantizedScale),
                       a->ldx,                         a->ldo,                        a->rows,                           a->columns,
                       a->xDtype == DITRUN_BF16,       a->weightDtype == DITRUN_BF16, a->outDtype == DITRUN_BF16,        a->epsilon};
  const bool vectorized = a->columns <= 128 * 64 && a->columns % vectorWidth == 0 && a->ldx % vectorWidth == 0 && (!a->out || a->ldo % vectorWidth == 0) &&
                          aligned16(a->x) && aligned16(a->weight) && aligned16(a->bias) && aligned16(a->modScale) && aligned16(a->modShift) && aligned16(a->out) &&
                          a->quantized % vectorWidth == 0;
  const cudaStream_t queue = asStream(stream);
  if (vectorized) return args.xBf16 ? launchVectors<true>(args, queue) : launchVectors<false>(args, queue);
  layerNormAnyWidth<<<a->rows, 256, 0, queue>>>(args);
  return launched("ditrun_layer_norm");
}
