// RMSNorm with activation and rotary embedding, and the row sums that tensor parallel ranks exchange for it. One pass over memory:
// a row lives in the registers of 4 to 128 threads (the narrow rows are those of a convolution's channels).
#include "device.h"
#include "rows.cuh"

struct RmsNorm {
  const void *x, *weight;
  void *out;
  const float *sumSquares, *rope;
  int64_t ldx, ldo;
  int rows, columns, countedColumns, headDim, activation;
  bool xBf16, weightBf16, outBf16;
  float epsilon;
};

/** (a, b) -> (a cos - b sin, a sin + b cos) */
__device__ inline void rotate(float &a, float &b, float cosine, float sine) {
  const float turned = a * cosine - b * sine;
  b = a * sine + b * cosine;
  a = turned;
}

/** Needs columns, head dim, strides and addresses that allow 16-byte accesses. out may be x: a row is read before it is written.
 * bf16: weight is there, and it and out are bf16, which then need not be decided for every run. */
template <class Shape, int activation, bool bf16>
__global__ void __launch_bounds__(rowBlockThreads) rmsNormRegisters(const __grid_constant__ RmsNorm args) {
  constexpr int chunks = Shape::chunks, width = Shape::width;
  const int row = Shape::row();
  const int runs = row < args.rows ? Shape::runs(args.columns) : 0;
  float values[chunks][width];
  loadRow<Shape>(args.x, row * args.ldx, runs, values);

  float squares = 0;
  if (args.sumSquares) {
    if (row < args.rows) squares = args.sumSquares[row];
  } else {
#pragma unroll
    for (int c = 0; c < chunks; c++)
#pragma unroll
      for (int j = 0; j < width; j++) squares += values[c][j] * values[c][j];
    squares = reduceRow<Shape::threadsPerRow, sumOf>(squares);
  }
  const float scale = rsqrtf(squares / args.countedColumns + args.epsilon);

  // Where in its head this thread's run lies: followed by subtraction, since a division a run would cost as much as the rest.
  int inHead = args.rope ? Shape::lane() * width % args.headDim : 0;
  const int headStep = args.rope ? Shape::step % args.headDim : 0;
  const float *turns = args.rope + int64_t(row) * args.headDim;
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    if (c >= runs) continue;
    const int column = Shape::column(c);
    float factor[width];
#pragma unroll
    for (int j = 0; j < width; j++) factor[j] = 1;
    if (bf16 || args.weight) loadRun(args.weight, column, bf16 || args.weightBf16, factor);
#pragma unroll
    for (int j = 0; j < width; j++) values[c][j] = activateFor<activation>(values[c][j] * scale * factor[j], bf16);
    if (args.rope) {
      float turn[width];
      loadRun(turns, inHead, false, turn);
#pragma unroll
      for (int j = 0; j < width; j += 2) rotate(values[c][j], values[c][j + 1], turn[j], turn[j + 1]);
      inHead += headStep;
      if (inHead >= args.headDim) inHead -= args.headDim;
    }
    storeRun(args.out, row * args.ldo + column, bf16 || args.outBf16, values[c]);
  }
}

/** Any width, alignment and activation: one block a row, which is read twice (from cache while it is not too wide). */
__global__ void __launch_bounds__(256) rmsNormAnyWidth(const __grid_constant__ RmsNorm args) {
  const int row = blockIdx.x;
  const int xDtype = args.xBf16 ? DITRUN_BF16 : DITRUN_F32, weightDtype = args.weightBf16 ? DITRUN_BF16 : DITRUN_F32, outDtype = args.outBf16 ? DITRUN_BF16 : DITRUN_F32;
  float squares = 0;
  if (args.sumSquares) {
    squares = args.sumSquares[row];
  } else {
    for (int column = threadIdx.x; column < args.columns; column += 256) {
      const float x = loadOne(args.x, row * args.ldx + column, xDtype);
      squares += x * x;
    }
    squares = reduceRow<256, sumOf>(squares);
  }
  const float scale = rsqrtf(squares / args.countedColumns + args.epsilon);
  const auto normalized = [&](int column) {
    const float weight = args.weight ? loadOne(args.weight, column, weightDtype) : 1.0f;
    return activate(loadOne(args.x, row * args.ldx + column, xDtype) * scale * weight, args.activation);
  };
  // Each element is written by the thread that read it: out may be x.
  if (!args.rope) {
    for (int column = threadIdx.x; column < args.columns; column += 256) storeOne(args.out, row * args.ldo + column, outDtype, normalized(column));
    return;
  }
  for (int column = 2 * threadIdx.x; column < args.columns; column += 512) {
    const float *turn = args.rope + int64_t(row) * args.headDim + column % args.headDim;
    float a = normalized(column), b = normalized(column + 1);
    rotate(a, b, turn[0], turn[1]);
    storeOne(args.out, row * args.ldo + column, outDtype, a);
    storeOne(args.out, row * args.ldo + column + 1, outDtype, b);
  }
}

template <bool xBf16, int threadsPerRow, int valuesEach>
static int launchShape(const RmsNorm &args, cudaStream_t stream) {
  using Shape = RowShape<xBf16, threadsPerRow, valuesEach>;
  const bool bf16 = args.weight && args.weightBf16 && args.outBf16;
  const auto kernel = args.activation == DITRUN_SILU ? (bf16 ? rmsNormRegisters<Shape, DITRUN_SILU, true> : rmsNormRegisters<Shape, DITRUN_SILU, false>)
                                                     : (bf16 ? rmsNormRegisters<Shape, DITRUN_IDENTITY, true> : rmsNormRegisters<Shape, DITRUN_IDENTITY, false>);
  kernel<<<(args.rows + Shape::rowsPerBlock - 1) / Shape::rowsPerBlock, rowBlockThreads, 0, stream>>>(args);
  return launched("ditrun_rms_norm");
}

/** The smallest shape that holds a row of at most mostInRegisters columns. */
template <bool xBf16>
static int launchVectors(const RmsNorm &args, cudaStream_t stream) {
  if (args.columns <= 4 * 24) return launchShape<xBf16, 4, 24>(args, stream);
  if (args.columns <= 8 * 24) return launchShape<xBf16, 8, 24>(args, stream);
  if (args.columns <= 16 * 24) return launchShape<xBf16, 16, 24>(args, stream);
  if (args.columns <= 32 * 24) return launchShape<xBf16, 32, 24>(args, stream);
  if (args.columns <= 32 * 48) return launchShape<xBf16, 32, 48>(args, stream);
  if (args.columns <= 128 * 24) return launchShape<xBf16, 128, 24>(args, stream);
  return launchShape<xBf16, 128, 40>(args, stream);
}

int ditrun_rms_norm(const ditrun_rms_norm_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->rows < 0 || a->columns <= 0 || a->x == 0 || a->out == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm needs x, out and columns above 0: got %d rows of %d columns.", a ? a->rows : 0, a ? a->columns : 0);
  if (!isFloat(a->xDtype) || !isFloat(a->weightDtype) || !isFloat(a->outDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm takes f32 or bf16, got x %s, weight %s, out %s.", dtypeName(a->xDtype), dtypeName(a->weightDtype),
                dtypeName(a->outDtype));
  if (a->ldx < a->columns || a->ldo < a->columns)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm got rows of %d columns with strides %lld (x) and %lld (out).", a->columns, (long long)a->ldx, (long long)a->ldo);
  if (a->sumSquares && a->fullColumns < a->columns)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm got sums over %d columns, fewer than the %d of x.", a->fullColumns, a->columns);
  if (a->rope && (a->headDim <= 0 || a->headDim % 2 != 0 || a->columns % a->headDim != 0))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm rotates heads of an even number of columns that divides %d, got %d.", a->columns, a->headDim);
  if (a->activation < DITRUN_IDENTITY || a->activation > DITRUN_SILU)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm knows no activation %d (0 identity, 1 gelu, 2 gelu tanh, 3 silu).", a->activation);
  if (a->rows == 0) return DITRUN_OK;
  const RmsNorm args{asPointer<void>(a->x), asPointer<void>(a->weight), asPointer<void>(a->out), asPointer<float>(a->sumSquares), asPointer<float>(a->rope), a->ldx, a->ldo,
                     a->rows, a->columns, a->sumSquares ? a->fullColumns : a->columns, a->headDim, a->activation, a->xDtype == DITRUN_BF16,
                     a->weightDtype == DITRUN_BF16, a->outDtype == DITRUN_BF16, a->epsilon};
  const bool vectorized = a->columns <= mostInRegisters && a->columns % vectorWidth == 0 && a->ldx % vectorWidth == 0 && a->ldo % vectorWidth == 0 && aligned16(a->x) &&
                          aligned16(a->weight) && aligned16(a->out) && aligned16(a->rope) && (!a->rope || a->headDim % vectorWidth == 0);
  const cudaStream_t queue = asStream(stream);
  if (vectorized && (a->activation == DITRUN_IDENTITY || a->activation == DITRUN_SILU))
    return args.xBf16 ? launchVectors<true>(args, queue) : launchVectors<false>(args, queue);
  rmsNormAnyWidth<<<a->rows, 256, 0, queue>>>(args);
  return launched("ditrun_rms_norm");
}

/** A warp a row, four loads in flight a thread. */
template <int width>
__global__ void __launch_bounds__(256) sumSquaresOfRows(float *out, const void *x, int64_t ldx, int rows, int columns, int dtype, bool vectorized) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float squares = 0;
  if (vectorized) {
    for (int first = lane * width; first < columns; first += 4 * 32 * width) {
      float values[4][width] = {};
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (first + i * 32 * width < columns) loadRun(x, row * ldx + first + i * 32 * width, width == 8, values[i]);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < width; j++) squares += values[i][j] * values[i][j];
    }
  } else {
    for (int column = lane; column < columns; column += 32) {
      const float value = loadOne(x, row * ldx + column, dtype);
      squares += value * value;
    }
  }
  squares = reduceRow<32, sumOf>(squares);
  if (lane == 0) out[row] = squares;
}

int ditrun_row_sum_squares(uint64_t out, uint64_t x, int64_t ldx, int rows, int columns, int xDtype, uint64_t stream) {
  TRY(useDevice());
  if (!isFloat(xDtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_row_sum_squares takes f32 or bf16, not %s (dtype %d).", dtypeName(xDtype), xDtype);
  if (rows < 0 || columns <= 0 || ldx < columns || out == 0 || x == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_row_sum_squares got %d rows of %d columns, stride %lld, x 0x%llx, out 0x%llx.", rows, columns, (long long)ldx,
                (unsigned long long)x, (unsigned long long)out);
  if (rows == 0) return DITRUN_OK;
  const bool vectorized = columns % vectorWidth == 0 && ldx % vectorWidth == 0 && aligned16(x);
  const auto kernel = xDtype == DITRUN_BF16 ? sumSquaresOfRows<8> : sumSquaresOfRows<4>;
  kernel<<<(rows + 7) / 8, 256, 0, asStream(stream)>>>(asPointer<float>(out), asPointer<void>(x), ldx, rows, columns, xDtype, vectorized);
  return launched("ditrun_row_sum_squares");
}
