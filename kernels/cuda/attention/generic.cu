// Attention in float32 arithmetic (of f32, bf16, f16 or e4m3) for any head dim up to 256: FlashAttention-2, algorithm 1
// (arXiv 2307.08691), on the ordinary multiply-add units. It is the float32 reference of the other kernels and the path
// of float32 models.
//
// A block of 256 threads (16 × 16) owns queryTile queries of one head. Thread (ty, tx) computes the scores of rows
// ty·rowsEach + i against keys tx + 16·j, then the output columns tx·columnsEach + c of the same rows, so that the
// running maximum and sum of a row live in the 16 threads (half a warp) that share ty.
#include "attention/attention.h"
#include "attention/parts.cuh"
#include "runtime/device.h"

constexpr float log2e = 1.44269504088896341f;

template <int headDimTile, int queryTile, int keyTile>
struct GenericShape {
  static constexpr int rowsEach = queryTile / 16, keysEach = keyTile / 16, columnsEach = headDimTile / 16;
  // 4 floats of padding put the 16-byte reads of neighbouring rows on different banks.
  static constexpr int width = headDimTile + 4, probabilityWidth = keyTile + 4;
  static constexpr int sharedFloats = queryTile * width + keyTile * width + queryTile * probabilityWidth;
};

/** Rows of one head as float32 in shared memory; rows past `count` and columns past headDim become zeros. */
template <int headDimTile, int rows>
__device__ inline void loadRows(float *destination, uint64_t source, int64_t stride, int64_t firstColumn, int count,
                                int headDim, int dtype, bool vectorized) {
  constexpr int width = headDimTile + 4;
  if (vectorized) {
    for (int i = threadIdx.x; i < rows * headDimTile / 4; i += 256) {
      const int row = i / (headDimTile / 4), column = i % (headDimTile / 4) * 4;
      float4 value = make_float4(0, 0, 0, 0);
      if (row < count && column < headDim) {
        const int64_t at = row * stride + firstColumn + column;
        if (dtype == DITRUN_F32) {
          value = *reinterpret_cast<const float4 *>(reinterpret_cast<const float *>(source) + at);
        } else {
          const uint2 pair = *reinterpret_cast<const uint2 *>(reinterpret_cast<const uint16_t *>(source) + at);
          if (dtype == DITRUN_F16) {
            const float2 low = __half22float2(reinterpret_cast<const __half2 &>(pair.x)),
                         high = __half22float2(reinterpret_cast<const __half2 &>(pair.y));
            value = make_float4(low.x, low.y, high.x, high.y);
          } else {
            value = make_float4(__uint_as_float(pair.x << 16), __uint_as_float(pair.x & 0xffff0000u),
                                __uint_as_float(pair.y << 16), __uint_as_float(pair.y & 0xffff0000u));
          }
        }
      }
      *reinterpret_cast<float4 *>(destination + row * width + column) = value;
    }
    return;
  }
  for (int i = threadIdx.x; i < rows * headDimTile; i += 256) {
    const int row = i / headDimTile, column = i % headDimTile;
    const bool inside = row < count && column < headDim;
    destination[row * width + column] =
        inside ? loadOne(reinterpret_cast<const void *>(source), row * stride + firstColumn + column, dtype) : 0.0f;
  }
}

/** loadRows for e4m3: row r times scales[r * scaleStride]. */
template <int headDimTile, int rows>
__device__ inline void loadScaledRows(float *destination, uint64_t source, int64_t stride, int64_t firstColumn,
                                      int count, int headDim, const float *scales, int scaleStride) {
  constexpr int width = headDimTile + 4;
  for (int i = threadIdx.x; i < rows * headDimTile; i += 256) {
    const int row = i / headDimTile, column = i % headDimTile;
    const bool inside = row < count && column < headDim;
    destination[row * width + column] =
        inside ? loadOne(reinterpret_cast<const void *>(source), row * stride + firstColumn + column, DITRUN_E4M3) *
                     scales[int64_t(row) * scaleStride]
               : 0.0f;
  }
}

/** Values in e4m3, which ditrun_quantize_kv has transposed: keys firstKey and on of one head, [keys, headDim] as
 * float32 in shared memory. */
template <int headDimTile, int rows>
__device__ inline void loadTransposed(float *destination, uint64_t source, int64_t stride, int64_t firstChannel,
                                      int firstKey, int count, int headDim) {
  constexpr int width = headDimTile + 4;
  for (int i = threadIdx.x; i < rows * headDimTile; i += 256) {
    const int key = i % rows, column = i / rows,
              place = firstKey + key / 16 * 16 + key % 8 / 2 * 4 + key / 8 % 2 * 2 + key % 2;
    const bool inside = key < count && column < headDim;
    destination[key * width + column] =
        inside ? loadOne(reinterpret_cast<const void *>(source), (firstChannel + column) * stride + place, DITRUN_E4M3)
               : 0.0f;
  }
}

template <int headDimTile, int queryTile, int keyTile, bool e4m3>
__global__ void __launch_bounds__(256)
    attentionGenericKernel(const __grid_constant__ AttentionParameters parameters, bool vectorized) {
  using Shape = GenericShape<headDimTile, queryTile, keyTile>;
  constexpr int rowsEach = Shape::rowsEach, keysEach = Shape::keysEach, columnsEach = Shape::columnsEach,
                width = Shape::width, probabilityWidth = Shape::probabilityWidth;
  extern __shared__ float shared[];
  float *queries = shared, *keysOrValues = queries + queryTile * width, *probabilities = keysOrValues + keyTile * width;

  const ditrun_attention_args &args = parameters.args;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, head = blockIdx.y, firstQuery = blockIdx.x * queryTile;
  const int64_t headColumn = int64_t(head) * args.headDim;
  const bool bf16 = args.dtype == DITRUN_BF16, f16 = !e4m3 && args.dtype == DITRUN_F16;
  const float scale = args.scale * log2e;
  if constexpr (e4m3)
    loadScaledRows<headDimTile, queryTile>(
        queries, args.q + firstQuery * args.qStride, args.qStride, headColumn, args.queries - firstQuery, args.headDim,
        reinterpret_cast<const float *>(args.qScale) + int64_t(firstQuery) * args.heads + head, args.heads);
  else
    loadRows<headDimTile, queryTile>(queries, args.q + firstQuery * args.qStride * dtypeBytes(args.dtype), args.qStride,
                                     headColumn, args.queries - firstQuery, args.headDim, args.dtype, vectorized);
  float output[rowsEach][columnsEach] = {}, maximum[rowsEach], sum[rowsEach] = {};
#pragma unroll
  for (int i = 0; i < rowsEach; i++) maximum[i] = -CUDART_INF_F;

  int keysBefore = 0;
  for (int b = 0; b < args.blockCount; b++) {
    awaitBlock(parameters, b);
    const ditrun_kv_block &block = parameters.blocks[b];
    for (int firstKey = 0; firstKey < block.length; firstKey += keyTile) {
      const int keys = block.length - firstKey;
      __syncthreads();
      if constexpr (e4m3) {
        static_assert(DITRUN_FP8_KEYS % keyTile == 0, "the keys of a tile share one scale");
        const int64_t units = (block.length + DITRUN_FP8_KEYS - 1) / DITRUN_FP8_KEYS;
        loadScaledRows<headDimTile, keyTile>(
            keysOrValues, block.k + firstKey * block.kStride, block.kStride, headColumn, keys, args.headDim,
            reinterpret_cast<const float *>(block.kScale) + head * units + firstKey / DITRUN_FP8_KEYS, 0);
      } else {
        loadRows<headDimTile, keyTile>(keysOrValues, block.k + firstKey * block.kStride * dtypeBytes(args.dtype),
                                       block.kStride, headColumn, keys, args.headDim, args.dtype, vectorized);
      }
      __syncthreads();

      float scores[rowsEach][keysEach] = {};
#pragma unroll 4
      for (int d = 0; d < headDimTile; d += 4) {
        float4 q[rowsEach];
#pragma unroll
        for (int i = 0; i < rowsEach; i++)
          q[i] = *reinterpret_cast<const float4 *>(queries + (ty * rowsEach + i) * width + d);
#pragma unroll
        for (int j = 0; j < keysEach; j++) {
          const float4 k = *reinterpret_cast<const float4 *>(keysOrValues + (tx + 16 * j) * width + d);
#pragma unroll
          for (int i = 0; i < rowsEach; i++) scores[i][j] += q[i].x * k.x + q[i].y * k.y + q[i].z * k.z + q[i].w * k.w;
        }
      }
      __syncthreads();  // the keys are used up: the values take their place
      if constexpr (e4m3)
        loadTransposed<headDimTile, keyTile>(keysOrValues, block.v, block.vStride, headColumn, firstKey, keys,
                                             args.headDim);
      else
        loadRows<headDimTile, keyTile>(keysOrValues, block.v + firstKey * block.vStride * dtypeBytes(args.dtype),
                                       block.vStride, headColumn, keys, args.headDim, args.dtype, vectorized);

#pragma unroll
      for (int i = 0; i < rowsEach; i++) {
        float high = maximum[i];
        const int query = firstQuery + ty * rowsEach + i;
        const float *bias = args.relativeBias && query < args.queries
                                ? biasOfQuery(parameters, head, query) + keysBefore + firstKey
                                : nullptr;
#pragma unroll
        for (int j = 0; j < keysEach; j++) {
          const int key = tx + 16 * j;
          // What was too large for f16 is infinite there, and must show: inf - inf.
          if (f16) scores[i][j] += scores[i][j] * 0.0f;
          scores[i][j] = key < keys ? scores[i][j] * scale : -CUDART_INF_F;
          if (bias && key < keys) scores[i][j] += bias[key] * log2e;
          high = fmaxf(high, scores[i][j]);
        }
#pragma unroll
        for (int distance = 8; distance > 0; distance /= 2)
          high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, distance));
        const float origin = high == -CUDART_INF_F ? 0.0f : high;
        const float decay = ptx::exp2Approx(maximum[i] - origin);
        maximum[i] = high;
        float partial = 0;
#pragma unroll
        for (int j = 0; j < keysEach; j++) {
          float p = ptx::exp2Approx(scores[i][j] - origin);
          // Times 2^8, as the Hopper kernels scale them; the sum is that of the rounded ones.
          if (e4m3) p = float(__nv_fp8_e4m3(p * 256.0f)) * 0.00390625f;
          if (f16) p = __half2float(__float2half_rn(p * 256.0f)) * 0.00390625f;
          partial += p;
          if (bf16) p = __bfloat162float(__float2bfloat16_rn(p));
          probabilities[(ty * rowsEach + i) * probabilityWidth + tx + 16 * j] = p;
        }
        sum[i] = sum[i] * decay + partial;  // of this thread's keys; added over the 16 threads at the end
#pragma unroll
        for (int c = 0; c < columnsEach; c++) output[i][c] *= decay;
      }
      __syncthreads();

#pragma unroll 2
      for (int key = 0; key < keyTile; key += 4) {
        float4 p[rowsEach];
#pragma unroll
        for (int i = 0; i < rowsEach; i++)
          p[i] = *reinterpret_cast<const float4 *>(probabilities + (ty * rowsEach + i) * probabilityWidth + key);
#pragma unroll
        for (int c = 0; c < columnsEach; c++) {
          // Columns tx, tx + 16, …: 16 neighbouring threads read 16 neighbouring words.
          const float *v = keysOrValues + key * width + tx + 16 * c;
          const float v0 = v[0], v1 = v[width], v2 = v[2 * width], v3 = v[3 * width];
#pragma unroll
          for (int i = 0; i < rowsEach; i++) output[i][c] += p[i].x * v0 + p[i].y * v1 + p[i].z * v2 + p[i].w * v3;
        }
      }
    }
    keysBefore += block.length;
  }

#pragma unroll
  for (int i = 0; i < rowsEach; i++) {
    const int query = firstQuery + ty * rowsEach + i;
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], distance);
    if (query < args.queries) {
      const RowFinish finish = finishRow(args, head, query, maximum[i], sum[i]);
      __syncwarp(0xffffu << (threadIdx.x & 16));  // the 16 threads of the row have read previousLse, which lse may be
      if (tx == 0 && args.lse) reinterpret_cast<float *>(args.lse)[int64_t(head) * args.queries + query] = finish.lse;
#pragma unroll
      for (int c = 0; c < columnsEach; c++) {
        const int column = tx + 16 * c;
        if (column >= args.headDim) continue;
        float value = output[i][c] * finish.own;
        if (e4m3) value *= reinterpret_cast<const float *>(args.vScale)[headColumn + column];
        if (finish.previous != 0)
          value += finish.previous * reinterpret_cast<const float *>(
                                         args.previousO)[(int64_t(query) * args.heads + head) * args.headDim + column];
        storeOne(reinterpret_cast<void *>(args.o), query * args.oStride + headColumn + column, args.oDtype, value);
      }
    }
  }
}

template <int headDimTile, int queryTile, int keyTile>
static int launch(const ditrun_attention_args &args, bool vectorized, cudaStream_t stream) {
  const int bytes = GenericShape<headDimTile, queryTile, keyTile>::sharedFloats * int(sizeof(float));
  const auto kernel = args.dtype == DITRUN_E4M3 ? attentionGenericKernel<headDimTile, queryTile, keyTile, true>
                                                : attentionGenericKernel<headDimTile, queryTile, keyTile, false>;
  CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  kernel<<<dim3((args.queries + queryTile - 1) / queryTile, args.heads), 256, bytes, stream>>>(
      AttentionParameters(args), vectorized);
  return launched("ditrun_attention (generic)");
}

bool attentionGenericFits(const ditrun_attention_args &args) {
  return args.headDim <= 256 && args.oDtype != DITRUN_E4M3;
}

int attentionGeneric(const ditrun_attention_args &args, cudaStream_t stream) {
  // Four elements at a time where addresses, strides and heads allow it.
  const uint64_t unit = args.dtype == DITRUN_F32 ? 16 : 8;
  bool vectorized = args.dtype != DITRUN_E4M3 && args.headDim % 4 == 0 && args.qStride % 4 == 0 && args.q % unit == 0;
  for (int i = 0; i < args.blockCount; i++) {
    const ditrun_kv_block &block = args.blocks[i];
    vectorized =
        vectorized && block.kStride % 4 == 0 && block.vStride % 4 == 0 && block.k % unit == 0 && block.v % unit == 0;
  }
  if (args.headDim <= 32) return launch<32, 64, 64>(args, vectorized, stream);
  if (args.headDim <= 64) return launch<64, 64, 64>(args, vectorized, stream);
  if (args.headDim <= 128) return launch<128, 64, 64>(args, vectorized, stream);
  return launch<256, 32, 32>(args, vectorized, stream);
}
