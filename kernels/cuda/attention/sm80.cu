// Attention on the matrix units of sm_80 and later (mma.sync m16n8k16, bf16 in, float32 out): FlashAttention-2,
// algorithm 1 (arXiv 2307.08691). Keys and values come through cp.async, one tile ahead; scores and probabilities stay
// in registers.
//
// Four warps own 4·16·mTiles queries of one head; each warp owns 16·mTiles rows, so a row's maximum and sum live in the
// four threads that share it. Fragment layouts are those of the PTX manual, "Matrix Fragments for mma.m16n8k16".
#include "attention/attention.h"
#include "attention/parts.cuh"
#include "runtime/device.h"

constexpr int warps = 4, threads = 128, keyTile = 64;
constexpr float log2e = 1.44269504088896341f;

/** Queries per warp in units of 16: two where the accumulators leave registers for it, since each fragment of K and V
 * that is read from shared memory then feeds two matrix products. */
template <int headDimTile>
constexpr int mTilesFor = headDimTile <= 64 ? 2 : 1;

/** Offset in elements of 8 columns (16 bytes) of a row in shared memory, swizzled so that ldmatrix meets no bank twice.
 */
template <int headDimTile>
__device__ inline int swizzled(int row, int chunk) {
  const int mixed = headDimTile == 32 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
  return row * headDimTile + mixed * 8;
}

__device__ inline uint32_t sharedAddress(const void *pointer) { return uint32_t(__cvta_generic_to_shared(pointer)); }

/** 16 bytes from global to shared memory, or zeros. */
__device__ inline void copyAsync(uint32_t destination, const void *source, bool inside) {
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(bytes) : "memory");
}
__device__ inline void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups>
__device__ inline void awaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

__device__ inline void loadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void loadMatricesTransposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void multiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/** Queues the copy of `rows` rows of one head into swizzled shared memory; rows past count and columns past headDim are
 * zeros. */
template <int headDimTile, int rows>
__device__ inline void copyRows(__nv_bfloat16 *destination, uint64_t source, int64_t stride, int count, int headDim) {
  constexpr int chunks = headDimTile / 8;
  const __nv_bfloat16 *from = reinterpret_cast<const __nv_bfloat16 *>(source);
#pragma unroll
  for (int i = threadIdx.x; i < rows * chunks; i += threads) {
    const int row = i / chunks, chunk = i % chunks;
    const bool inside = row < count && chunk * 8 < headDim;
    copyAsync(sharedAddress(destination + swizzled<headDimTile>(row, chunk)),
              inside ? from + row * stride + chunk * 8 : from, inside);
  }
}

/** Where a tile of keys starts: walks the blocks in order, keyTile keys at a time. */
struct TilePosition {
  int block, key;
  __device__ void advance(const AttentionParameters &parameters) {
    key += keyTile;
    if (key >= parameters.blocks[block].length) {
      block++;
      key = 0;
    }
  }
};

/** biased: args.relativeBias is added to the scores. */
template <int headDimTile, bool biased>
__global__ void __launch_bounds__(threads) attentionSm80Kernel(const __grid_constant__ AttentionParameters parameters) {
  constexpr int mTiles = mTilesFor<headDimTile>, queryTile = warps * 16 * mTiles, kSteps = headDimTile / 16,
                nTiles = keyTile / 8, dTiles = headDimTile / 8;
  extern __shared__ __align__(128) __nv_bfloat16 sharedTiles[];
  __nv_bfloat16 *queries = sharedTiles;
  __nv_bfloat16 *keys = queries + queryTile * headDimTile;   // two stages
  __nv_bfloat16 *values = keys + 2 * keyTile * headDimTile;  // two stages

  const ditrun_attention_args &args = parameters.args;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, firstQuery = blockIdx.x * queryTile;
  const uint64_t headOffset = uint64_t(head) * args.headDim * sizeof(__nv_bfloat16);
  const float scale = args.scale * log2e;

  const auto fetch = [&](const TilePosition &tile, int stage) {
    const ditrun_kv_block &block = parameters.blocks[tile.block];
    if (tile.key == 0) awaitBlock(parameters, tile.block);
    copyRows<headDimTile, keyTile>(keys + stage * keyTile * headDimTile,
                                   block.k + headOffset + uint64_t(tile.key * block.kStride) * 2, block.kStride,
                                   block.length - tile.key, args.headDim);
    copyRows<headDimTile, keyTile>(values + stage * keyTile * headDimTile,
                                   block.v + headOffset + uint64_t(tile.key * block.vStride) * 2, block.vStride,
                                   block.length - tile.key, args.headDim);
  };

  copyRows<headDimTile, queryTile>(queries, args.q + headOffset + uint64_t(firstQuery * args.qStride) * 2, args.qStride,
                                   args.queries - firstQuery, args.headDim);
  commitCopies();
  TilePosition next{0, 0};
  fetch(next, 0);
  commitCopies();
  awaitCopies<1>();
  __syncthreads();

  uint32_t q[mTiles][kSteps][4];
#pragma unroll
  for (int m = 0; m < mTiles; m++)
#pragma unroll
    for (int k = 0; k < kSteps; k++)
      loadMatrices(q[m][k], sharedAddress(queries + swizzled<headDimTile>((warp * mTiles + m) * 16 + lane % 16,
                                                                          2 * k + lane / 16)));

  float output[mTiles][dTiles][4] = {}, maximum[mTiles][2], sum[mTiles][2] = {};
#pragma unroll
  for (int m = 0; m < mTiles; m++) maximum[m][0] = maximum[m][1] = -CUDART_INF_F;

  int stage = 0, keysBefore = 0;
  while (next.block < args.blockCount) {
    const int valid = parameters.blocks[next.block].length - next.key;
    next.advance(parameters);
    if (next.block < args.blockCount) fetch(next, stage ^ 1);
    commitCopies();
    awaitCopies<1>();
    __syncthreads();
    const __nv_bfloat16 *tileKeys = keys + stage * keyTile * headDimTile,
                        *tileValues = values + stage * keyTile * headDimTile;

    float scores[mTiles][nTiles][4] = {};
#pragma unroll
    for (int k = 0; k < kSteps; k++) {
#pragma unroll
      for (int pair = 0; pair < nTiles / 2; pair++) {
        // Two groups of 8 keys × 16 columns: matrices 0 and 1 are the first group's halves, 2 and 3 the second's.
        uint32_t fragment[4];
        loadMatrices(fragment, sharedAddress(tileKeys + swizzled<headDimTile>(pair * 16 + lane / 16 * 8 + lane % 8,
                                                                              2 * k + lane / 8 % 2)));
#pragma unroll
        for (int m = 0; m < mTiles; m++) {
          multiplyAdd(scores[m][2 * pair], q[m][k], fragment[0], fragment[1]);
          multiplyAdd(scores[m][2 * pair + 1], q[m][k], fragment[2], fragment[3]);
        }
      }
    }

    if constexpr (biased) {
      // The scores are not scaled yet, so neither is what is added to them.
      const float unscaled = 1.0f / args.scale;
#pragma unroll
      for (int m = 0; m < mTiles; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int query = firstQuery + (warp * mTiles + m) * 16 + lane / 4 + 8 * half;
          if (query >= args.queries) continue;
          const float *bias = biasOfQuery(parameters, head, query) + keysBefore;
#pragma unroll
          for (int n = 0; n < nTiles; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              const int key = n * 8 + lane % 4 * 2 + e;
              if (key < valid) scores[m][n][2 * half + e] += bias[key] * unscaled;
            }
        }
      }
      keysBefore += valid < keyTile ? valid : keyTile;
    }

    if (valid < keyTile) {
#pragma unroll
      for (int m = 0; m < mTiles; m++)
#pragma unroll
        for (int n = 0; n < nTiles; n++)
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (n * 8 + lane % 4 * 2 + e % 2 >= valid) scores[m][n][e] = -CUDART_INF_F;
    }

    // Elements 0 and 1 belong to row lane / 4, elements 2 and 3 to the row 8 below.
#pragma unroll
    for (int m = 0; m < mTiles; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float high = maximum[m][half];
#pragma unroll
        for (int n = 0; n < nTiles; n++) high = fmaxf(high, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        // scale is positive, so the order of scores stays
        const float origin = high == -CUDART_INF_F ? 0.0f : high * scale;
        const float decay = ptx::exp2Approx(maximum[m][half] * scale - origin);
        maximum[m][half] = high;
        float partial = 0;
#pragma unroll
        for (int n = 0; n < nTiles; n++) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; e++) {
            scores[m][n][e] = ptx::exp2Approx(scores[m][n][e] * scale - origin);
            partial += scores[m][n][e];
          }
        }
        sum[m][half] = sum[m][half] * decay + partial;  // of this thread's keys; added over the four threads at the end
#pragma unroll
        for (int d = 0; d < dTiles; d++) {
          output[m][d][2 * half] *= decay;
          output[m][d][2 * half + 1] *= decay;
        }
      }
    }

#pragma unroll
    for (int k = 0; k < keyTile / 16; k++) {
      uint32_t p[mTiles][4];
#pragma unroll
      for (int m = 0; m < mTiles; m++) {
        const float(&left)[4] = scores[m][2 * k], (&right)[4] = scores[m][2 * k + 1];
        p[m][0] = packBf16(left[0], left[1]);
        p[m][1] = packBf16(left[2], left[3]);
        p[m][2] = packBf16(right[0], right[1]);
        p[m][3] = packBf16(right[2], right[3]);
      }
#pragma unroll
      for (int pair = 0; pair < dTiles / 2; pair++) {
        // 16 keys × two groups of 8 columns, transposed on the way: matrices 0 and 1 are the first group's halves.
        uint32_t fragment[4];
        loadMatricesTransposed(
            fragment, sharedAddress(tileValues + swizzled<headDimTile>(k * 16 + lane % 16, 2 * pair + lane / 16)));
#pragma unroll
        for (int m = 0; m < mTiles; m++) {
          multiplyAdd(output[m][2 * pair], p[m], fragment[0], fragment[1]);
          multiplyAdd(output[m][2 * pair + 1], p[m], fragment[2], fragment[3]);
        }
      }
    }
    __syncthreads();  // before this stage is overwritten
    stage ^= 1;
  }

#pragma unroll
  for (int m = 0; m < mTiles; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = sum[m][half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int query = firstQuery + (warp * mTiles + m) * 16 + lane / 4 + 8 * half;
      if (query >= args.queries) continue;
      const RowFinish finish = finishRow(args, head, query, maximum[m][half] * scale, total);
      __syncwarp(0xfu << (lane & ~3));  // the four threads of the row have read previousLse, which lse may be
      if (lane % 4 == 0 && args.lse)
        reinterpret_cast<float *>(args.lse)[int64_t(head) * args.queries + query] = finish.lse;
#pragma unroll
      for (int d = 0; d < dTiles; d++) {
        const int column = d * 8 + lane % 4 * 2;
        if (column >= args.headDim) continue;
        float low = output[m][d][2 * half] * finish.own, high = output[m][d][2 * half + 1] * finish.own;
        if (finish.previous != 0) {
          const float2 before =
              *reinterpret_cast<const float2 *>(reinterpret_cast<const float *>(args.previousO) +
                                                (int64_t(query) * args.heads + head) * args.headDim + column);
          low += finish.previous * before.x;
          high += finish.previous * before.y;
        }
        const int64_t at = query * args.oStride + int64_t(head) * args.headDim + column;
        if (args.oDtype == DITRUN_BF16)
          *reinterpret_cast<uint32_t *>(reinterpret_cast<__nv_bfloat16 *>(args.o) + at) = packBf16(low, high);
        else *reinterpret_cast<float2 *>(reinterpret_cast<float *>(args.o) + at) = make_float2(low, high);
      }
    }
  }
}

template <int headDimTile>
static int launch(const ditrun_attention_args &args, cudaStream_t stream) {
  constexpr int queryTile = warps * 16 * mTilesFor<headDimTile>;
  const int bytes = (queryTile + 4 * keyTile) * headDimTile * int(sizeof(__nv_bfloat16));
  const auto kernel =
      args.relativeBias ? attentionSm80Kernel<headDimTile, true> : attentionSm80Kernel<headDimTile, false>;
  CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  kernel<<<dim3((args.queries + queryTile - 1) / queryTile, args.heads), threads, bytes, stream>>>(
      AttentionParameters(args));
  return launched("ditrun_attention (sm_80)");
}

bool attentionSm80Fits(const ditrun_attention_args &args) {
  const uint64_t pair = args.oDtype == DITRUN_BF16 ? 4 : 8;
  bool fits = args.dtype == DITRUN_BF16 && args.oDtype != DITRUN_E4M3 && args.headDim % 8 == 0 && args.headDim <= 128 &&
              args.scale > 0 && aligned16(args.q) && args.qStride % 8 == 0 && args.o % pair == 0 &&
              args.oStride % 2 == 0 && args.previousO % 8 == 0;
  for (int i = 0; i < args.blockCount; i++) {
    const ditrun_kv_block &block = args.blocks[i];
    fits = fits && aligned16(block.k) && aligned16(block.v) && block.kStride % 8 == 0 && block.vStride % 8 == 0;
  }
  return fits;
}

int attentionSm80(const ditrun_attention_args &args, cudaStream_t stream) {
  if (args.headDim <= 32) return launch<32>(args, stream);
  if (args.headDim <= 64) return launch<64>(args, stream);
  return launch<128>(args, stream);
}
