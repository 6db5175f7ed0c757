// The bulk tensor copy engine, global to shared memory.
#pragma once

#include <cuda.h>

#include "mbarrier.cuh"

namespace ptx {

__device__ __forceinline__ void tma_prefetch_map(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}

/** Copies the box at (column, row) of a matrix; elements out of bounds arrive as zeros and count as bytes all the same. */
__device__ __forceinline__ void tma_load(void *destination, const CUtensorMap *map, uint64_t *barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(destination)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

}  // namespace ptx
