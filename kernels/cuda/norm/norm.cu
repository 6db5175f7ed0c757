// LayerNorm with modulation, one pass over memory: a row lives in the registers of 16 to 128 threads while its mean,
// then the mean of its squared distances from that mean, are computed in float32.
#include "runtime/device.h"
#include "norm/rows.cuh"

struct LayerNorm {
  const void *x, *weight, *bias;
  const float *modScale, *modShift;
  void *out, *quantized;
  float *quantizedScale, *bound;
  int64_t ldx, ldo;
  int rows, columns;
  bool xBf16, weightBf16, outBf16;
  float epsilon, boundFactor, boundTerm;
};

/** y = y * (plus + factor) + term for a run of columns; factor and term may be nullptr. */
template <int width>
__device__ inline void scaleAndShift(const void *factor, const void *term, bool isBf16, float plus, int column,
                                     float (&y)[width]) {
  float factors[width], terms[width];
#pragma unroll
  for (int j = 0; j < width; j++) factors[j] = 1, terms[j] = 0;
  if (factor) loadRun(factor, column, isBf16, factors);
  if (term) loadRun(term, column, isBf16, terms);
#pragma unroll
  for (int j = 0; j < width; j++) y[j] = y[j] * (plus + factors[j]) + terms[j];
}

/** The first half: `values` become their distances from the row's mean; returns 1 / sqrt(variance + epsilon). */
template <class Shape>
__device__ inline float centre(const LayerNorm &args, int runs, float (&values)[Shape::chunks][Shape::width]) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++)
#pragma unroll
    for (int j = 0; j < Shape::width; j++) sum += values[c][j];
  const float mean = reduceRow<Shape::threadsPerRow, sumOf>(sum) / args.columns;
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++) {
    if (c >= runs) continue;
#pragma unroll
    for (int j = 0; j < Shape::width; j++) {
      values[c][j] -= mean;
      squares += values[c][j] * values[c][j];
    }
  }
  return rsqrtf(reduceRow<Shape::threadsPerRow, sumOf, 1>(squares) / args.columns + args.epsilon);
}

/** Writes a row in e4m3, its scale, and its bound if asked for. Every thread must call; `inside`: this thread's row is
 * there. Overwrites values. */
template <class Shape>
__device__ inline void storeQuantized(const LayerNorm &args, int row, bool inside, int runs,
                                      float (&values)[Shape::chunks][Shape::width]) {
  if (args.bound) {
    float squares = 0;
#pragma unroll
    for (int c = 0; c < Shape::chunks; c++) {
      if (c >= runs) continue;
#pragma unroll
      for (int j = 0; j < Shape::width; j++) squares += values[c][j] * values[c][j];
    }
    squares = reduceRow<Shape::threadsPerRow, sumOf, 2>(squares);
    if (inside && Shape::lane() == 0) args.bound[row] = args.boundFactor * sqrtf(squares) + args.boundTerm;
  }
  float amax = 0;
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++) {
    if (c >= runs) continue;
#pragma unroll
    for (int j = 0; j < Shape::width; j++) amax = fmaxf(amax, fabsf(values[c][j]));
  }
  const float rowScale = scaleOfAmax(reduceRow<Shape::threadsPerRow, maxOf>(amax)),
              reciprocal = reciprocalOfNormal(rowScale);
  if (inside && Shape::lane() == 0) args.quantizedScale[row] = rowScale;
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++) {
    if (c >= runs) continue;
#pragma unroll
    for (int j = 0; j < Shape::width; j++) values[c][j] = quotient(values[c][j], rowScale, reciprocal);
    if (inside) storeRunE4m3(args.quantized, int64_t(row) * args.columns + Shape::column(c), values[c]);
  }
}

/** Needs columns, strides and addresses that allow 16-byte accesses. out may be x: a row is read before it is written.
 */
template <class Shape>
__global__ void __launch_bounds__(Shape::blockThreads) layerNormRegisters(const __grid_constant__ LayerNorm args) {
  const int row = Shape::row();
  const int runs = row < args.rows ? Shape::runs(args.columns) : 0;
  float values[Shape::chunks][Shape::width];
  loadRow<Shape>(args.x, row * args.ldx, runs, values);
  const float scale = centre<Shape>(args, runs, values);
#pragma unroll
  for (int c = 0; c < Shape::chunks; c++) {
    if (c >= runs) continue;
    const int column = Shape::column(c);
#pragma unroll
    for (int j = 0; j < Shape::width; j++) values[c][j] *= scale;
    if (args.weight || args.bias) scaleAndShift(args.weight, args.bias, args.weightBf16, 0.0f, column, values[c]);
    if (args.modScale) scaleAndShift(args.modScale, args.modShift, false, 1.0f, column, values[c]);
    if (args.out) storeRun(args.out, row * args.ldo + column, args.outBf16, values[c]);
  }
  if (args.quantized) storeQuantized<Shape>(args, row, row < args.rows, runs, values);
}

/** The same for whole rows with one factor and one term, y = x̂ * (plus + factor) + term, and one output, bf16 or e4m3.
 * What is known when it is compiled need not be decided for each run: branches would cost more instructions than the
 * norm, and keep loads apart. */
template <class Shape, bool factorsBf16>
__global__ void __launch_bounds__(Shape::blockThreads)
    layerNormWhole(const __grid_constant__ LayerNorm args, const void *factor, const void *term, float plus) {
  constexpr int chunks = Shape::chunks, width = Shape::width;
  const bool inside = Shape::row() < args.rows;
  const int row = inside ? Shape::row() : args.rows - 1;  // threads without a row do what others do, and store nothing
  float values[chunks][width];
  loadRow<Shape>(args.x, row * args.ldx, chunks, values);
  const float scale = centre<Shape>(args, chunks, values), plusScale = plus * scale;
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    float factors[width], terms[width];
    loadRun(factor, Shape::column(c), factorsBf16, factors);
    loadRun(term, Shape::column(c), factorsBf16, terms);
#pragma unroll
    for (int j = 0; j < width; j++) values[c][j] = values[c][j] * fmaf(factors[j], scale, plusScale) + terms[j];
  }
  if (args.quantized) {
    storeQuantized<Shape>(args, row, inside, chunks, values);
    return;
  }
#pragma unroll
  for (int c = 0; c < chunks; c++)
    if (inside) storeRun(args.out, row * args.ldo + Shape::column(c), true, values[c]);
}

/** Any width and alignment: one block a row, which is read again for each step (from cache while it is not too wide).
 */
__global__ void __launch_bounds__(256) layerNormAnyWidth(const __grid_constant__ LayerNorm args) {
  const int row = blockIdx.x;
  const int xDtype = args.xBf16 ? DITRUN_BF16 : DITRUN_F32, weightDtype = args.weightBf16 ? DITRUN_BF16 : DITRUN_F32;
  float sum = 0, squares = 0, amax = 0;
  for (int column = threadIdx.x; column < args.columns; column += 256)
    sum += loadOne(args.x, row * args.ldx + column, xDtype);
  const float mean = reduceRow<256, sumOf>(sum) / args.columns;
  for (int column = threadIdx.x; column < args.columns; column += 256) {
    const float distance = loadOne(args.x, row * args.ldx + column, xDtype) - mean;
    squares += distance * distance;
  }
  const float scale = rsqrtf(reduceRow<256, sumOf, 1>(squares) / args.columns + args.epsilon);
  const auto normalized = [&](int column) {
    const float weight = args.weight ? loadOne(args.weight, column, weightDtype) : 1.0f;
    const float bias = args.bias ? loadOne(args.bias, column, weightDtype) : 0.0f;
    const float y = (loadOne(args.x, row * args.ldx + column, xDtype) - mean) * scale * weight + bias;
    return args.modScale ? y * (1.0f + args.modScale[column]) + args.modShift[column] : y;
  };
  if (args.quantized) {
    float length = 0;  // squared
    for (int column = threadIdx.x; column < args.columns; column += 256) {
      const float y = normalized(column);
      amax = fmaxf(amax, fabsf(y));
      length += y * y;
    }
    if (args.bound) {
      length = reduceRow<256, sumOf, 2>(length);
      if (threadIdx.x == 0) args.bound[row] = args.boundFactor * sqrtf(length) + args.boundTerm;
    }
    const float rowScale = scaleOfAmax(reduceRow<256, maxOf>(amax));
    if (threadIdx.x == 0) args.quantizedScale[row] = rowScale;
    for (int column = threadIdx.x; column < args.columns; column += 256)
      storeOne(args.quantized, int64_t(row) * args.columns + column, DITRUN_E4M3,
               __fdiv_rn(normalized(column), rowScale));
  }
  // Last, and each element by the thread that read it: out may be x.
  if (args.out)
    for (int column = threadIdx.x; column < args.columns; column += 256)
      storeOne(args.out, row * args.ldo + column, args.outBf16 ? DITRUN_BF16 : DITRUN_F32, normalized(column));
}

template <bool xBf16, int threadsPerRow, int valuesEach>
static int launchShape(const LayerNorm &args, cudaStream_t stream) {
  using Whole = RowShape<xBf16, threadsPerRow, valuesEach, true>;
  using Shape = RowShape<xBf16, threadsPerRow, valuesEach>;
  const int blocks = (args.rows + Shape::rowsPerBlock - 1) / Shape::rowsPerBlock;
  const bool affine = args.weight && args.bias && !args.modScale,
             modulated = args.modScale && !args.weight && !args.bias;
  const bool oneOutput = args.quantized ? !args.out : args.outBf16;
  if (args.columns == Whole::wholeColumns && oneOutput && (affine || modulated)) {
    const void *factor = affine ? args.weight : args.modScale, *term = affine ? args.bias : args.modShift;
    const auto kernel = affine && args.weightBf16 ? layerNormWhole<Whole, true> : layerNormWhole<Whole, false>;
    kernel<<<blocks, Shape::blockThreads, 0, stream>>>(args, factor, term, affine ? 0.0f : 1.0f);
  } else {
    layerNormRegisters<Shape><<<blocks, Shape::blockThreads, 0, stream>>>(args);
  }
  return launched("ditrun_layer_norm");
}

/** The smallest shape that holds a row of at most mostInRegisters columns. */
template <bool xBf16>
static int launchVectors(const LayerNorm &args, cudaStream_t stream) {
  if (args.columns <= 16 * 32) return launchShape<xBf16, 16, 32>(args, stream);
  if (args.columns <= 32 * 32) return launchShape<xBf16, 32, 32>(args, stream);
  if (args.columns <= 64 * 24) return launchShape<xBf16, 64, 24>(args, stream);
  if (args.columns <= 32 * 64) return launchShape<xBf16, 32, 64>(args, stream);
  if (args.columns <= 128 * 32) return launchShape<xBf16, 128, 32>(args, stream);
  return launchShape<xBf16, 128, 40>(args, stream);
}

int ditrun_layer_norm(const ditrun_layer_norm_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->rows < 0 || a->columns <= 0 || a->x == 0 || (a->out == 0 && a->quantized == 0))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_layer_norm needs x, out or quantized, and columns above 0: got %d rows of %d columns.",
                a ? a->rows : 0, a ? a->columns : 0);
  if (!isFloat(a->xDtype) || !isFloat(a->weightDtype) || (a->out && !isFloat(a->outDtype)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm takes f32 or bf16, got x %s, weight %s, out %s.",
                dtypeName(a->xDtype), dtypeName(a->weightDtype), dtypeName(a->outDtype));
  if (a->ldx < a->columns || (a->out && a->ldo < a->columns))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_layer_norm got rows of %d columns with strides %lld (x) and %lld (out).", a->columns,
                (long long)a->ldx, (long long)a->ldo);
  if ((a->modScale == 0) != (a->modShift == 0))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_layer_norm takes modScale and modShift together, got 0x%llx and 0x%llx.",
                (unsigned long long)a->modScale, (unsigned long long)a->modShift);
  if (a->bound && !a->quantized)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm writes a bound (0x%llx) beside e4m3 rows only.",
                (unsigned long long)a->bound);
  if (a->quantized && a->quantizedScale == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_layer_norm got a place for e4m3 rows but none for their scales.");
  if (a->rows == 0) return DITRUN_OK;
  const LayerNorm args{asPointer<void>(a->x),
                       asPointer<void>(a->weight),
                       asPointer<void>(a->bias),
                       asPointer<float>(a->modScale),
                       asPointer<float>(a->modShift),
                       asPointer<void>(a->out),
                       asPointer<void>(a->quantized),
                       asPointer<float>(a->quantizedScale),
                       asPointer<float>(a->bound),
                       a->ldx,
                       a->ldo,
                       a->rows,
                       a->columns,
                       a->xDtype == DITRUN_BF16,
                       a->weightDtype == DITRUN_BF16,
                       a->outDtype == DITRUN_BF16,
                       a->epsilon,
                       a->boundFactor,
                       a->boundTerm};
  const bool vectorized = a->columns <= mostInRegisters && a->columns % vectorWidth == 0 && a->ldx % vectorWidth == 0 &&
                          (!a->out || a->ldo % vectorWidth == 0) && aligned16(a->x) && aligned16(a->weight) &&
                          aligned16(a->bias) && aligned16(a->modScale) && aligned16(a->modShift) && aligned16(a->out) &&
                          a->quantized % vectorWidth == 0;
  const cudaStream_t queue = asStream(stream);
  if (vectorized) return args.xBf16 ? launchVectors<true>(args, queue) : launchVectors<false>(args, queue);
  layerNormAnyWidth<<<a->rows, 256, 0, queue>>>(args);
  return launched("ditrun_layer_norm");
}
