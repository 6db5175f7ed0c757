// Parts that the sm_80 and the generic attention kernels share: arguments by value, waiting for a flag, merging.
#pragma once
#include <math_constants.h>

#include "ditrun.h"
#include "runtime/numbers.cuh"

/** ditrun_attention_args with its blocks inside, as a kernel parameter. */
struct AttentionParameters {
  ditrun_attention_args args;
  ditrun_kv_block blocks[DITRUN_MAX_KV_BLOCKS];
  int64_t biasStride;  // of one head's relative bias: queries + keys of all blocks - 1

  explicit AttentionParameters(const ditrun_attention_args &given)
      : args(given), blocks{}, biasStride(int64_t(given.queries) - 1) {
    for (int i = 0; i < given.blockCount; i++) {
      blocks[i] = given.blocks[i];
      biasStride += blocks[i].length;
    }
    args.blocks = nullptr;
  }
};

/** Returns, in every thread of the block, once the flag of kv block `index` is 1 and what was written before it is
 * visible. */
__device__ inline void awaitBlock(const AttentionParameters &parameters, int index) {
  const uint64_t flag = parameters.blocks[index].flag;
  if (flag == 0) return;
  if (threadIdx.x == 0) {
    uint64_t start, end;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    uint32_t value;
    while (true) {
      asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
      if (value == 1) break;
      __nanosleep(100);
    }
    const bool observer = blockIdx.x == 0 && blockIdx.y == 0 && parameters.args.waitNanoseconds != 0;
    if (observer) {
      asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(end));
      reinterpret_cast<uint64_t *>(parameters.args.waitNanoseconds)[index] += end - start;
    }
  }
  __syncthreads();
}

/** The relative bias of a query for key 0 of all blocks' keys; key k's is k further on. */
__device__ inline const float *biasOfQuery(const AttentionParameters &parameters, int head, int query) {
  return reinterpret_cast<const float *>(parameters.args.relativeBias) + head * parameters.biasStride +
         parameters.args.queries - 1 - query;
}

/** How a finished row is written: o = own * accumulator + previous * previousO, with the row's log-sum-exp. */
struct RowFinish {
  float own, previous, lse;
};

/** From the row's maximum (of scores in units of log2 e) and sum; merges with previousLse as Ring Attention does. */
__device__ inline RowFinish finishRow(const ditrun_attention_args &args, int head, int query, float maximum,
                                      float sum) {
  RowFinish finish;
  finish.lse = sum == 0 ? -CUDART_INF_F : maximum * 0.69314718055994531f + logf(sum);
  finish.own = sum == 0 ? 0.0f : 1.0f / sum;
  finish.previous = 0;
  if (args.previousLse) {
    const float before = reinterpret_cast<const float *>(args.previousLse)[int64_t(head) * args.queries + query];
    const float high = fmaxf(before, finish.lse);
    if (high > -CUDART_INF_F) {
      const float previousWeight = expf(before - high), ownWeight = expf(finish.lse - high),
                  total = previousWeight + ownWeight;
      finish.own *= ownWeight / total;
      finish.previous = previousWeight / total;
      finish.lse = high + logf(total);
    }
  }
  return finish;
}
