// Sin-cos embeddings. Angles reach thousands of radians, so sinf and cosf with full range reduction, never the fast
// ones.
#include "runtime/device.h"
#include "runtime/numbers.cuh"

/** Column c of the embedding of position p in a row of width w: sin(p f_c) for c < w/2, then cos(p f_(c - w/2)). */
__device__ inline float sincosColumn(float position, int column, int width) {
  const int half = width / 2, j = column < half ? column : column - half;
  const float frequency = expf(-9.210340371976184f * float(j) / float(half));  // ln(10000)
  const float angle = position * frequency;
  return column < half ? sinf(angle) : cosf(angle);
}

struct Embedding {
  void *out;
  const float *positions;  // nullptr: positions are those of a grid
  int outDtype, gridWidth, firstToken;
  int rows, width, firstColumn, columns;
};

/** A block a row. */
__global__ void embed(const __grid_constant__ Embedding args) {
  const int row = blockIdx.x, token = args.firstToken + row, half = args.width / 2;
  for (int i = threadIdx.x; i < args.columns; i += blockDim.x) {
    const int column = args.firstColumn + i;
    float value;
    if (args.positions) {
      value = sincosColumn(args.positions[row], column, args.width);
    } else {
      const int position = column < half ? token / args.gridWidth : token % args.gridWidth;
      value = sincosColumn(float(position), column < half ? column : column - half, half);
    }
    storeOne(args.out, int64_t(row) * args.columns + i, args.outDtype, value);
  }
}

static int check(const char *what, const Embedding &args, int widthUnit) {
  if (!isFloat(args.outDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s writes f32 or bf16, not %s (dtype %d).", what, dtypeName(args.outDtype),
                args.outDtype);
  if (args.rows < 0 || args.width <= 0 || args.width % widthUnit != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s needs a width that is a multiple of %d, got %d rows of width %d.", what,
                widthUnit, args.rows, args.width);
  if (args.firstColumn < 0 || args.columns <= 0 || args.firstColumn + args.columns > args.width)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got columns %d to %d of a row of width %d.", what, args.firstColumn,
                args.firstColumn + args.columns, args.width);
  if (args.rows > 0 && !args.out) return fail(DITRUN_INVALID_ARGUMENT, "%s got a null address for its output.", what);
  return DITRUN_OK;
}

static int launch(const char *what, const Embedding &args, uint64_t stream) {
  if (args.rows == 0) return DITRUN_OK;
  const int threads = args.columns < 256 ? 128 : 256;
  embed<<<args.rows, threads, 0, asStream(stream)>>>(args);
  return launched(what);
}

int ditrun_sincos_embedding(uint64_t out, int outDtype, uint64_t positions, int rows, int width, int firstColumn,
                            int columns, uint64_t stream) {
  TRY(useDevice());
  const Embedding args{
      asPointer<void>(out), asPointer<float>(positions), outDtype, 1, 0, rows, width, firstColumn, columns};
  TRY(check("ditrun_sincos_embedding", args, 2));
  if (rows > 0 && positions == 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_sincos_embedding got no positions.");
  return launch("ditrun_sincos_embedding", args, stream);
}

int ditrun_sincos_2d(uint64_t out, int outDtype, int gridWidth, int firstToken, int tokens, int width, int firstColumn,
                     int columns, uint64_t stream) {
  TRY(useDevice());
  const Embedding args{asPointer<void>(out), nullptr, outDtype, gridWidth, firstToken, tokens, width,
                       firstColumn,          columns};
  TRY(check("ditrun_sincos_2d", args, 4));
  if (gridWidth <= 0 || firstToken < 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_sincos_2d got a grid %d wide and the first token %d.", gridWidth,
                firstToken);
  return launch("ditrun_sincos_2d", args, stream);
}
