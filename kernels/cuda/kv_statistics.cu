// What the scales of e4m3 keys and values depend on (see ditrun.h): the sum of the keys, which may have to be made first, and the largest
// value of each channel. Parts of the rows, then the parts in their order.
#include "keys.cuh"

namespace {

constexpr int parts = DITRUN_STATISTICS_PARTS;

/** How the 256 threads of a block share a part's rows: 32 runs of neighbouring columns, eight rows at a time. */
constexpr int runsPerBlock = 32, rowsAtOnce = 8;

/** Where the sums of one part are, and behind them the maxima. */
__device__ inline float *sumsOfPart(const ditrun_kv_statistics_args &a, int part) { return asPointer<float>(a.workspace) + int64_t(part) * 2 * a.columns; }

/** workspace[part] = Σ k and max |v| of the columns, over rows part · rows / parts and on. A thread's rows are eight apart. */
template <int width>
__global__ void __launch_bounds__(256) partStatistics(const __grid_constant__ ditrun_kv_statistics_args a) {
  __shared__ float sums[rowsAtOnce][runsPerBlock * width], maxima[rowsAtOnce][runsPerBlock * width];
  const int run = threadIdx.x % runsPerBlock, lane = threadIdx.x / runsPerBlock;
  const int column = (blockIdx.x * runsPerBlock + run) * width;
  const int part = blockIdx.y, first = int(int64_t(a.rows) * part / parts), end = int(int64_t(a.rows) * (part + 1) / parts);
  const void *k = asPointer<void>(a.k), *v = asPointer<void>(a.v);
  float sum[width] = {}, amax[width] = {};
  if (column < a.columns) {
#pragma unroll 4
    for (int row = first + lane; row < end; row += rowsAtOnce) {
      float keys[width], values[width];
      if constexpr (width == 1) {
        keys[0] = loadKey(a, row, column);
        values[0] = loadOne(v, row * a.ldv + column, a.dtype);
      } else {
        loadRun(k, row * a.ldk + column, a.dtype == DITRUN_BF16, keys);
        loadRun(v, row * a.ldv + column, a.dtype == DITRUN_BF16, values);
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
    if (at >= a.columns) break;
    float total = sums[0][i], largest = maxima[0][i];
#pragma unroll
    for (int other = 1; other < rowsAtOnce; other++) {
      total += sums[other][i];
      largest = fmaxf(largest, maxima[other][i]);
    }
    sumsOfPart(a, part)[at] = total;
    sumsOfPart(a, part)[a.columns + at] = largest;
  }
}

/** rowFactor alone, for rows that partKeys does not take. */
__global__ void __launch_bounds__(256) rowFactors(const __grid_constant__ ditrun_kv_statistics_args a) {
  const int64_t row = blockIdx.x;
  float squares = 0;
  for (int column = threadIdx.x; column < a.columns; column += 256) {
    const float x = loadOne(asPointer<void>(a.k), row * a.ldk + column, a.dtype);
    squares += x * x;
  }
  squares = reduceRow<256, sumOf>(squares);
  if (a.sumSquares) squares = asPointer<float>(a.sumSquares)[row];
  if (threadIdx.x == 0) asPointer<float>(a.rowFactor)[row] = rsqrtf(squares / (a.sumSquares ? a.fullColumns : a.columns) + a.epsilon);
}

constexpr int keyThreads = 128;

/** Of whole rows of bf16 that make keys, threadsPerRow threads a row with `chunks` runs of 8 each, at the same place of a head. In one launch: blocks
 * of blockIdx.y 0 write a part's row factors and Σ of its keys, those of 1 its max |v|. */
template <int threadsPerRow, int chunks>
__global__ void __launch_bounds__(keyThreads, chunks <= 3 ? 5 : 3) partKeys(const __grid_constant__ ditrun_kv_statistics_args a) {
  constexpr int rowsAtOnce = keyThreads / threadsPerRow, step = threadsPerRow * 8;
  __shared__ float weights[chunks * step], totals[chunks * step], squaresOfWarp[2][keyThreads / 32];
  const int lane = threadIdx.x % threadsPerRow, own = threadIdx.x / threadsPerRow;
  const int part = blockIdx.x, first = int(int64_t(a.rows) * part / parts), end = int(int64_t(a.rows) * (part + 1) / parts);
  const bool ofKeys = blockIdx.y == 0;
  const auto *source = asPointer<__nv_bfloat16>(ofKeys ? a.k : a.v);
  const int64_t ld = ofKeys ? a.ldk : a.ldv;
  uint4 next[chunks];
  float nextTurns[8];
  const auto fetch = [&](int row) {
    if (ofKeys) loadRun(asPointer<float>(a.rope), int64_t(min(row, end - 1)) * a.headDim + lane * 8 % a.headDim, false, nextTurns);
#pragma unroll
    for (int c = 0; c < chunks; c++) next[c] = row < end ? *reinterpret_cast<const uint4 *>(source + row * ld + c * step + lane * 8) : make_uint4(0, 0, 0, 0);
  };
  fetch(first + own);
  float total[chunks][8] = {};
  if (ofKeys) {
    for (int i = threadIdx.x; i < chunks * step; i += keyThreads) weights[i] = asPointer<float>(a.weight)[i];
    __syncthreads();
    int turn = 0;
    for (int base = first; base < end; base += rowsAtOnce, turn ^= 1) {  // the same for all threads, which meet
      const int row = base + own;
      float x[chunks][8], turns[8], squares = 0;
#pragma unroll
      for (int c = 0; c < chunks; c++) unpackRun(next[c], x[c]);
#pragma unroll
      for (int j = 0; j < 8; j++) turns[j] = nextTurns[j];
      fetch(row + rowsAtOnce);
#pragma unroll
      for (int c = 0; c < chunks; c++)
#pragma unroll
        for (int j = 0; j < 8; j++) squares += x[c][j] * x[c][j];
      squares = reduceRow<32, sumOf>(squares);
      if constexpr (threadsPerRow > 32) {
        if (threadIdx.x % 32 == 0) squaresOfWarp[turn][threadIdx.x / 32] = squares;
        __syncthreads();
        squares = 0;
#pragma unroll
        for (int warp = 0; warp < threadsPerRow / 32; warp++) squares += squaresOfWarp[turn][own * (threadsPerRow / 32) + warp];
      }
      if (a.sumSquares && row < end) squares = asPointer<float>(a.sumSquares)[row];
      const float factor = row < end ? rsqrtf(squares / (a.sumSquares ? a.fullColumns : chunks * step) + a.epsilon) : 0.0f;
      if (row < end && lane == 0) asPointer<float>(a.rowFactor)[row] = factor;
#pragma unroll
      for (int c = 0; c < chunks; c++) {
        float weight[8], key[8];
        loadRun(weights, c * step + lane * 8, false, weight);
#pragma unroll
        for (int j = 0; j < 8; j++) key[j] = x[c][j] * factor * weight[j];
#pragma unroll
        for (int j = 0; j < 8; j += 2) rotate(key[j], key[j + 1], turns[j], turns[j + 1]);
#pragma unroll
        for (int j = 0; j < 8; j++) total[c][j] += __bfloat162float(__float2bfloat16_rn(key[j]));
      }
    }
  } else {
    for (int row = first + own; row < end; row += rowsAtOnce) {
      float x[chunks][8];
#pragma unroll
      for (int c = 0; c < chunks; c++) unpackRun(next[c], x[c]);
      fetch(row + rowsAtOnce);
#pragma unroll
      for (int c = 0; c < chunks; c++)
#pragma unroll
        for (int j = 0; j < 8; j++) total[c][j] = fmaxf(total[c][j], fabsf(x[c][j]));
    }
  }
  // Threads that have the same columns of other rows, one after the other.
  for (int turn = 0; turn < rowsAtOnce; turn++) {
    __syncthreads();
    if (own != turn) continue;
#pragma unroll
    for (int c = 0; c < chunks; c++)
#pragma unroll
      for (int j = 0; j < 8; j++) {
        float &at = totals[c * step + j * threadsPerRow + lane];  // neighbours in different banks
        at = turn == 0 ? total[c][j] : ofKeys ? at + total[c][j] : fmaxf(at, total[c][j]);
      }
  }
  __syncthreads();
  float *out = sumsOfPart(a, part) + (ofKeys ? 0 : a.columns);
  for (int i = threadIdx.x; i < chunks * step; i += keyThreads) out[i] = totals[i / step * step + i % 8 * threadsPerRow + i % step / 8];
}

/** The kernel for rows of so many columns, or nullptr. */
template <int threadsPerRow>
void (*partKeysOf(int columns))(ditrun_kv_statistics_args) {
  switch (columns % (threadsPerRow * 8) == 0 ? columns / (threadsPerRow * 8) : 0) {
    case 1: return partKeys<threadsPerRow, 1>;
    case 2: return partKeys<threadsPerRow, 2>;
    case 3: return partKeys<threadsPerRow, 3>;
    case 4: return partKeys<threadsPerRow, 4>;
    case 5: return partKeys<threadsPerRow, 5>;
    default: return nullptr;
  }
}

void (*keysKernel(const ditrun_kv_statistics_args &a))(ditrun_kv_statistics_args) {
  if (256 % a.headDim != 0 || a.headDim % 8 != 0) return nullptr;
  if (const auto kernel = partKeysOf<32>(a.columns)) return kernel;
  if (const auto kernel = partKeysOf<64>(a.columns)) return kernel;
  return partKeysOf<128>(a.columns);
}

constexpr int shares = 16;

/** Adds up the parts: 16 threads a column, each its share in order, then the shares. */
__global__ void __launch_bounds__(32 * shares) joinStatistics(const __grid_constant__ ditrun_kv_statistics_args a) {
  __shared__ float sums[shares][32], maxima[shares][32];
  const int column = blockIdx.x * 32 + threadIdx.x % 32, share = threadIdx.x / 32;
  float total = 0, largest = 0;
  if (column < a.columns) {
#pragma unroll 10
    for (int part = parts / shares * share; part < parts / shares * (share + 1); part++) {
      total += sumsOfPart(a, part)[column];
      largest = fmaxf(largest, sumsOfPart(a, part)[a.columns + column]);
    }
  }
  sums[share][threadIdx.x % 32] = total;
  maxima[share][threadIdx.x % 32] = largest;
  __syncthreads();
  if (share > 0 || column >= a.columns) return;
  for (int other = 1; other < shares; other++) {
    total += sums[other][threadIdx.x];
    largest = fmaxf(largest, maxima[other][threadIdx.x]);
  }
  asPointer<float>(a.statistics)[column] = total;
  asPointer<float>(a.statistics)[a.columns + column] = largest;
}
static_assert(parts % shares == 0);

}  // namespace

int ditrun_kv_statistics(const ditrun_kv_statistics_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_kv_statistics got no arguments.");
  const ditrun_kv_statistics_args &a = *args;
  if (!isFloat(a.dtype)) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_kv_statistics takes f32 or bf16, not %s (dtype %d).", dtypeName(a.dtype), a.dtype);
  if (a.rows <= 0 || a.columns <= 0 || a.ldk < a.columns || a.ldv < a.columns || !a.statistics || !a.workspace || !a.k || !a.v || a.statistics % 4 != 0 || a.workspace % 4 != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_kv_statistics got %d rows of %d columns with strides %lld and %lld, k 0x%llx, v 0x%llx, statistics 0x%llx, workspace 0x%llx.", a.rows,
                a.columns, (long long)a.ldk, (long long)a.ldv, (unsigned long long)a.k, (unsigned long long)a.v, (unsigned long long)a.statistics, (unsigned long long)a.workspace);
  TRY(checkKeyNorm("ditrun_kv_statistics", a.rowFactor, a.weight, a.rope, a.headDim));
  if (a.rowFactor && (a.columns % a.headDim != 0 || (a.sumSquares && a.fullColumns < a.columns)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_kv_statistics got keys of %d columns in heads of %d, with sums of squares over %d.", a.columns, a.headDim, a.sumSquares ? a.fullColumns : a.columns);
  const bool isBf16 = a.dtype == DITRUN_BF16;
  const int width = isBf16 ? 8 : 4;
  const bool vectorized = a.columns % width == 0 && a.ldk % width == 0 && a.ldv % width == 0 && aligned16(a.k) && aligned16(a.v);
  const auto keys = a.rowFactor && vectorized && isBf16 && aligned16(a.rope) && aligned16(a.weight) ? keysKernel(a) : nullptr;
  if (keys) {
    keys<<<dim3(parts, 2), keyThreads, 0, asStream(stream)>>>(a);
  } else {
    if (a.rowFactor) rowFactors<<<a.rows, 256, 0, asStream(stream)>>>(a);
    const bool runs = vectorized && !a.rowFactor;
    const auto kernel = !runs ? partStatistics<1> : isBf16 ? partStatistics<8> : partStatistics<4>;
    const int perBlock = runsPerBlock * (runs ? width : 1);
    kernel<<<dim3((a.columns + perBlock - 1) / perBlock, parts), 256, 0, asStream(stream)>>>(a);
  }
  TRY(launched("ditrun_kv_statistics"));
  joinStatistics<<<(a.columns + 31) / 32, 32 * shares, 0, asStream(stream)>>>(a);
  return launched("ditrun_kv_statistics (join)");
}
