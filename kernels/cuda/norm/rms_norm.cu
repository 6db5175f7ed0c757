// RMSNorm with activation and rotary embedding, and the row sums that tensor parallel ranks exchange for it. One pass
// over memory: a row lives in the registers of 4 to 128 threads (the narrow rows are those of a convolution's
// channels).
#include "runtime/device.h"
#include "norm/rows.cuh"

struct RmsNorm {
  const void *x, *weight;
  void *out;
  void *quantized;
  float *quantizedScale;
  const float *sumSquares, *rope;
  int64_t ldx, ldo, groupStride;
  int rows, columns, countedColumns, headDim, groupRows, activation;
  bool xNarrow, weightBf16, outNarrow;  // of two bytes: bf16, or f16 in kernels compiled for it
  float epsilon;
};

/** Where a row lies, by its place among the rows of its group. Groups are blocks' y: nobody divides by groupRows. */
struct Place {
  int row;      // of x and of what belongs to it
  int64_t out;  // element at which its row of out begins
  bool inside;

  __device__ Place(const RmsNorm &args, int inGroup)
      : row(blockIdx.y * args.groupRows + inGroup),
        out(blockIdx.y * args.groupStride + inGroup * args.ldo),
        inside(inGroup < args.groupRows && row < args.rows) {}
};

/** (a, b) -> (a cos - b sin, a sin + b cos) */
__device__ inline void rotate(float &a, float &b, float cosine, float sine) {
  const float turned = a * cosine - b * sine;
  b = a * sine + b * cosine;
  a = turned;
}

/** 1 / root mean square of the row. Every thread must call. */
template <class Shape>
__device__ inline float rowFactor(const RmsNorm &args, int row, const float (&values)[Shape::chunks][Shape::width]) {
  float squares = 0;
  if (args.sumSquares) {
    if (row < args.rows) squares = args.sumSquares[row];
  } else {
#pragma unroll
    for (int c = 0; c < Shape::chunks; c++)
#pragma unroll
      for (int j = 0; j < Shape::width; j++) squares += values[c][j] * values[c][j];
    squares = reduceRow<Shape::threadsPerRow, sumOf>(squares);
  }
  return rsqrtf(squares / args.countedColumns + args.epsilon);
}

/** Needs columns, head dim, strides and addresses that allow 16-byte accesses. out may be x: a row is read before it is
 * written. */
template <class Shape, int activation>
__global__ void __launch_bounds__(Shape::blockThreads) rmsNormRegisters(const __grid_constant__ RmsNorm args) {
  constexpr int chunks = Shape::chunks, width = Shape::width;
  const auto [row, out, inside] = Place(args, Shape::row());
  const int runs = inside ? Shape::runs(args.columns) : 0;
  float values[chunks][width];
  loadRow<Shape>(args.x, row * args.ldx, runs, values);
  const float scale = rowFactor<Shape>(args, row, values);

  // Where in its head this thread's run lies: followed by subtraction, since a division a run would cost as much as the
  // rest.
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
    if (args.weight) loadRun(args.weight, column, args.weightBf16, factor);
#pragma unroll
    for (int j = 0; j < width; j++) values[c][j] = activateFor<activation>(values[c][j] * scale * factor[j], false);
    if (args.rope) {
      float turn[width];
      loadRun(turns, inHead, false, turn);
#pragma unroll
      for (int j = 0; j < width; j += 2) rotate(values[c][j], values[c][j + 1], turn[j], turn[j + 1]);
      inHead += headStep;
      if (inHead >= args.headDim) inHead -= args.headDim;
    }
    storeRun(args.out, out + column, args.outNarrow, values[c]);
  }
}

/** What a kernel for whole rows knows when it is compiled, and need not decide for each run: that weight is there, in
 * this dtype, and what comes after it. turned: rope, of heads that a thread meets at the same place in all of its runs.
 */
enum class After { nothing, silu, turned };

/** Writes this thread's runs of heads in e4m3, and the heads' scales: heads lie within a warp. Every thread must call.
 */
template <class Shape>
__device__ inline void storeQuantizedHeads(const RmsNorm &args, int row, bool inside,
                                           float (&values)[Shape::chunks][Shape::width]) {
  constexpr int chunks = Shape::chunks, width = Shape::width;
  const int threadsPerHead = args.headDim / width;
  float amax[chunks] = {};
#pragma unroll
  for (int c = 0; c < chunks; c++)
#pragma unroll
    for (int j = 0; j < width; j++) amax[c] = fmaxf(amax[c], fabsf(values[c][j]));
  for (int distance = threadsPerHead / 2; distance > 0; distance /= 2)
#pragma unroll
    for (int c = 0; c < chunks; c++) amax[c] = fmaxf(amax[c], __shfl_xor_sync(0xffffffffu, amax[c], distance));
  const int headsPerStep = Shape::step / args.headDim;
  float *scales = args.quantizedScale + row * int64_t(headsPerStep * chunks) + Shape::lane() / threadsPerHead;
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    const float scale = scaleOfAmax(amax[c]), reciprocal = reciprocalOfNormal(scale);
#pragma unroll
    for (int j = 0; j < width; j++) values[c][j] = quotient(values[c][j], scale, reciprocal);
    if (!inside) continue;
    storeRunE4m3(args.quantized, int64_t(row) * args.columns + Shape::column(c), values[c]);
    if (Shape::lane() % threadsPerHead == 0) scales[c * headsPerStep] = scale;
  }
}

/** The same for whole rows to bf16 or f16 (narrow, x too), or to e4m3 by heads. */
template <class Shape, bool weightBf16, After after, int narrow = DITRUN_BF16>
__global__ void __launch_bounds__(Shape::blockThreads) rmsNormWhole(const __grid_constant__ RmsNorm args) {
  constexpr int chunks = Shape::chunks, width = Shape::width;
  const Place place(args, Shape::row());
  const bool inside = place.inside;
  const int row = inside ? place.row : args.rows - 1;  // threads without a row do what others do, and store nothing
  float values[chunks][width], turn[width];
  loadRow<Shape, narrow>(args.x, row * args.ldx, chunks, values);
  if (after == After::turned)
    loadRun(args.rope, int64_t(row) * args.headDim + Shape::lane() * width % args.headDim, false, turn);
  const float scale = rowFactor<Shape>(args, row, values);
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    float factor[width];
    loadRun(args.weight, Shape::column(c), weightBf16, factor);
#pragma unroll
    for (int j = 0; j < width; j++)
      values[c][j] =
          activateFor < after == After::silu ? DITRUN_SILU : DITRUN_IDENTITY > (values[c][j] * scale * factor[j], true);
    if (after == After::turned)
#pragma unroll
      for (int j = 0; j < width; j += 2) rotate(values[c][j], values[c][j + 1], turn[j], turn[j + 1]);
  }
  if (after == After::turned && args.quantized) {
    storeQuantizedHeads<Shape>(args, row, inside, values);
    return;
  }
#pragma unroll
  for (int c = 0; c < chunks; c++)
    if (inside) storeRun<narrow>(args.out, place.out + Shape::column(c), true, values[c]);
}

__device__ inline void turnPair(const RmsNorm &args, int row, int column, float &a, float &b) {
  const float *turn = args.rope + int64_t(row) * args.headDim + column % args.headDim;
  rotate(a, b, turn[0], turn[1]);
}

/** A warp a head, whose elements are computed twice. headDim is even. */
template <class Normalized>
__device__ inline void quantizeHeads(const RmsNorm &args, int row, Normalized normalized) {
  const int heads = args.columns / args.headDim, lane = threadIdx.x % 32;
  for (int head = threadIdx.x / 32; head < heads; head += 256 / 32) {
    const auto forPairs = [&](auto use) {
      for (int inHead = 2 * lane; inHead < args.headDim; inHead += 64) {
        const int column = head * args.headDim + inHead;
        float a = normalized(column), b = normalized(column + 1);
        if (args.rope) turnPair(args, row, column, a, b);
        use(int64_t(row) * args.columns + column, a, b);
      }
    };
    float amax = 0;
    forPairs([&](int64_t, float a, float b) { amax = fmaxf(amax, fmaxf(fabsf(a), fabsf(b))); });
    const float scale = scaleOfAmax(reduceRow<32, maxOf>(amax));
    if (lane == 0) args.quantizedScale[int64_t(row) * heads + head] = scale;
    forPairs([&](int64_t at, float a, float b) {
      storeOne(args.quantized, at, DITRUN_E4M3, __fdiv_rn(a, scale));
      storeOne(args.quantized, at + 1, DITRUN_E4M3, __fdiv_rn(b, scale));
    });
  }
}

/** Any width, alignment and activation: one block a row, which is read twice (from cache while it is not too wide). */
template <int narrow>
__global__ void __launch_bounds__(256) rmsNormAnyWidth(const __grid_constant__ RmsNorm args) {
  const auto [row, out, inside] = Place(args, blockIdx.x);
  if (!inside) return;
  const int xDtype = args.xNarrow ? narrow : DITRUN_F32, weightDtype = args.weightBf16 ? DITRUN_BF16 : DITRUN_F32,
            outDtype = args.outNarrow ? narrow : DITRUN_F32;
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
  if (args.quantized) {
    quantizeHeads(args, row, normalized);
    return;
  }
  // Each element is written by the thread that read it: out may be x.
  if (!args.rope) {
    for (int column = threadIdx.x; column < args.columns; column += 256)
      storeOne(args.out, out + column, outDtype, normalized(column));
    return;
  }
  for (int column = 2 * threadIdx.x; column < args.columns; column += 512) {
    float a = normalized(column), b = normalized(column + 1);
    turnPair(args, row, column, a, b);
    storeOne(args.out, out + column, outDtype, a);
    storeOne(args.out, out + column + 1, outDtype, b);
  }
}

/** What a grid may have of blocks' y. */
constexpr int mostGroups = 65535;

/** nullptr: these arguments need the kernel that decides as it runs. */
template <int threadsPerRow, int valuesEach>
static void (*kernelForWholeRows(const RmsNorm &args))(RmsNorm) {
  using Shape = RowShape<true, threadsPerRow, valuesEach, true>;
  if (args.columns != Shape::wholeColumns || !args.weight || (args.out && !args.outNarrow)) return nullptr;
  if (args.rope) {
    const int threadsPerHead = args.headDim / Shape::width;
    const bool turned =
        Shape::step % args.headDim == 0 && threadsPerHead <= 32 && (threadsPerHead & (threadsPerHead - 1)) == 0;
    return turned && !args.weightBf16 && args.activation == DITRUN_IDENTITY ? rmsNormWhole<Shape, false, After::turned>
                                                                            : nullptr;
  }
  if (args.quantized) return nullptr;
  if (args.activation == DITRUN_SILU)
    return args.weightBf16 ? rmsNormWhole<Shape, true, After::silu> : rmsNormWhole<Shape, false, After::silu>;
  return args.weightBf16 ? rmsNormWhole<Shape, true, After::nothing> : rmsNormWhole<Shape, false, After::nothing>;
}

struct RowKernel {
  void (*run)(RmsNorm);  // or nullptr
  int rowsPerBlock, threads;
};

template <bool xNarrow, int threadsPerRow, int valuesEach>
static RowKernel kernelOfShape(const RmsNorm &args) {
  using Shape = RowShape<xNarrow, threadsPerRow, valuesEach>;
  if constexpr (xNarrow) {
    const auto whole = kernelForWholeRows<threadsPerRow, valuesEach>(args);
    if (whole) return {whole, Shape::rowsPerBlock, Shape::blockThreads};
  }
  if (args.quantized) return {nullptr, 0, 0};
  return {
      args.activation == DITRUN_SILU ? rmsNormRegisters<Shape, DITRUN_SILU> : rmsNormRegisters<Shape, DITRUN_IDENTITY>,
      Shape::rowsPerBlock, Shape::blockThreads};
}

/** The smallest shape that holds a row of at most mostInRegisters columns. */
template <bool xNarrow>
static RowKernel kernelFor(const RmsNorm &args) {
  if (args.columns <= 4 * 24) return kernelOfShape<xNarrow, 4, 24>(args);
  if (args.columns <= 8 * 24) return kernelOfShape<xNarrow, 8, 24>(args);
  if (args.columns <= 16 * 24) return kernelOfShape<xNarrow, 16, 24>(args);
  if (args.columns <= 32 * 24) return kernelOfShape<xNarrow, 32, 24>(args);
  if (args.columns <= 64 * 24) return kernelOfShape<xNarrow, 64, 24>(args);
  if (args.columns <= 128 * 24) return kernelOfShape<xNarrow, 128, 24>(args);
  return kernelOfShape<xNarrow, 128, 40>(args);
}

template <int threadsPerRow>
static RowKernel kernelOfF16(const RmsNorm &args) {
  using Shape = RowShape<true, threadsPerRow, 24, true>;
  return {args.activation == DITRUN_SILU ? rmsNormWhole<Shape, false, After::silu, DITRUN_F16>
                                         : rmsNormWhole<Shape, false, After::nothing, DITRUN_F16>,
          Shape::rowsPerBlock, Shape::blockThreads};
}

/** f16 rows of the widths that Wan's VAE has. */
static RowKernel kernelForF16(const RmsNorm &args) {
  const RowKernel none{nullptr, 0, 0};
  if (!args.xNarrow || !args.outNarrow || !args.weight || args.weightBf16 || args.rope) return none;
  return args.columns == 4 * 24    ? kernelOfF16<4>(args)
         : args.columns == 8 * 24  ? kernelOfF16<8>(args)
         : args.columns == 16 * 24 ? kernelOfF16<16>(args)
                                   : none;
}

int ditrun_rms_norm(const ditrun_rms_norm_args *a, uint64_t stream) {
  TRY(useDevice());
  if (!a || a->rows < 0 || a->columns <= 0 || a->x == 0 || (a->out == 0) == (a->quantized == 0))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_rms_norm needs x, either out or quantized, and columns above 0: got %d rows of %d columns.",
                a ? a->rows : 0, a ? a->columns : 0);
  if (a->quantized && a->quantizedScale == 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm got a place for e4m3 rows but none for their scales.");
  const bool f16 = a->xDtype == DITRUN_F16 || (a->out && a->outDtype == DITRUN_F16),
             bf16 = a->xDtype == DITRUN_BF16 || (a->out && a->outDtype == DITRUN_BF16);
  if (!isFloatOrF16(a->xDtype) || !isFloat(a->weightDtype) || (a->out && !isFloatOrF16(a->outDtype)) || (f16 && bf16))
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "ditrun_rms_norm takes f32 and either bf16 or f16, and a weight of f32 or bf16; got x %s, weight %s, out %s.",
        dtypeName(a->xDtype), dtypeName(a->weightDtype), dtypeName(a->outDtype));
  if (a->ldx < a->columns || (a->out && a->ldo < a->columns))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm got rows of %d columns with strides %lld (x) and %lld (out).",
                a->columns, (long long)a->ldx, (long long)a->ldo);
  if (a->sumSquares && a->fullColumns < a->columns)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm got sums over %d columns, fewer than the %d of x.",
                a->fullColumns, a->columns);
  if ((a->rope || a->quantized) && (a->headDim <= 0 || a->headDim % 2 != 0 || a->columns % a->headDim != 0))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_rms_norm rotates or quantizes heads of an even number of columns that divides %d, got %d.",
                a->columns, a->headDim);
  if (a->activation < DITRUN_IDENTITY || a->activation > DITRUN_SILU)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_rms_norm knows no activation %d (0 identity, 1 gelu, 2 gelu tanh, 3 silu).", a->activation);
  if (a->groupRows < 0 || (a->groupRows > 0 && (a->out == 0 || a->out == a->x ||
                                                a->groupStride < (a->groupRows - 1) * a->ldo + a->columns)))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_rms_norm got groups of %d rows of %d columns with strides %lld (row) and %lld (group): they "
                "must not overlap, nor lie in x.",
                a->groupRows, a->columns, (long long)a->ldo, (long long)a->groupStride);
  if (a->rows == 0) return DITRUN_OK;
  const int groupRows = a->groupRows ? a->groupRows : a->rows, groups = (a->rows - 1) / groupRows + 1;
  if (groups > mostGroups)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_rms_norm takes at most %d groups of rows, got %d.", mostGroups,
                groups);
  const RmsNorm args{asPointer<void>(a->x),
                     asPointer<void>(a->weight),
                     asPointer<void>(a->out),
                     asPointer<void>(a->quantized),
                     asPointer<float>(a->quantizedScale),
                     asPointer<float>(a->sumSquares),
                     asPointer<float>(a->rope),
                     a->ldx,
                     a->ldo,
                     a->groupStride,
                     a->rows,
                     a->columns,
                     a->sumSquares ? a->fullColumns : a->columns,
                     a->headDim,
                     groupRows,
                     a->activation,
                     a->xDtype != DITRUN_F32,
                     a->weightDtype == DITRUN_BF16,
                     a->out && a->outDtype != DITRUN_F32,
                     a->epsilon};
  const bool outVectorized =
      !a->out || (aligned16(a->out) && a->ldo % vectorWidth == 0 && (groups == 1 || a->groupStride % vectorWidth == 0));
  const bool vectorized = a->columns <= mostInRegisters && a->columns % vectorWidth == 0 && a->ldx % vectorWidth == 0 &&
                          outVectorized && aligned16(a->x) && aligned16(a->weight) && a->quantized % vectorWidth == 0 &&
                          aligned16(a->rope) && (!a->rope || a->headDim % vectorWidth == 0);
  RowKernel kernel{nullptr, 0, 0};
  if (vectorized && (a->activation == DITRUN_IDENTITY || a->activation == DITRUN_SILU))
    kernel = f16 ? kernelForF16(args) : args.xNarrow ? kernelFor<true>(args) : kernelFor<false>(args);
  if (kernel.run)
    kernel.run<<<dim3((groupRows + kernel.rowsPerBlock - 1) / kernel.rowsPerBlock, groups), kernel.threads, 0,
                 asStream(stream)>>>(args);
  else
    (f16 ? rmsNormAnyWidth<DITRUN_F16>
         : rmsNormAnyWidth<DITRUN_BF16>)<<<dim3(groupRows, groups), 256, 0, asStream(stream)>>>(args);
  return launched("ditrun_rms_norm");
}

/** A warp a row, four loads in flight a thread. */
template <int width>
__global__ void __launch_bounds__(256)
    sumSquaresOfRows(float *out, const void *x, int64_t ldx, int rows, int columns, int dtype, bool vectorized) {
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
  if (!isFloat(xDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_row_sum_squares takes f32 or bf16, not %s (dtype %d).",
                dtypeName(xDtype), xDtype);
  if (rows < 0 || columns <= 0 || ldx < columns || out == 0 || x == 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_row_sum_squares got %d rows of %d columns, stride %lld, x 0x%llx, out 0x%llx.", rows, columns,
                (long long)ldx, (unsigned long long)x, (unsigned long long)out);
  if (rows == 0) return DITRUN_OK;
  const bool vectorized = columns % vectorWidth == 0 && ldx % vectorWidth == 0 && aligned16(x);
  const auto kernel = xDtype == DITRUN_BF16 ? sumSquaresOfRows<8> : sumSquaresOfRows<4>;
  kernel<<<(rows + 7) / 8, 256, 0, asStream(stream)>>>(asPointer<float>(out), asPointer<void>(x), ldx, rows, columns,
                                                       xDtype, vectorized);
  return launched("ditrun_row_sum_squares");
}
