// The bulk tensor copy engine, between global and shared memory.
#pragma once

#include <cuda.h>

#include "mbarrier.cuh"

namespace ptx {

__device__ __forceinline__ void tmaPrefetchMap(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}

/** Copies the box at (column, row) of a matrix; elements out of bounds arrive as zeros and count as bytes all the same.
 */
__device__ __forceinline__ void tmaLoad(void *destination, const CUtensorMap *map, uint64_t *barrier, int column,
                                        int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          sharedAddress(destination)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(sharedAddress(barrier)), "r"(column), "r"(row)
      : "memory");
}

/** Copies the box at these coordinates, the contiguous one first, of a tensor of four dimensions. */
__device__ __forceinline__ void tmaLoad4d(uint32_t destination, const CUtensorMap *map, uint64_t *barrier, int c0,
                                          int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(destination),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(sharedAddress(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

/** Queues the copy of a box from shared memory to (column, row) of a matrix; elements out of bounds are not written. */
__device__ __forceinline__ void tmaStore(const CUtensorMap *map, const void *source, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
                   reinterpret_cast<uint64_t>(map)),
               "r"(sharedAddress(source)), "r"(column), "r"(row)
               : "memory");
}
__device__ __forceinline__ void tmaStoreCommit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/** Waits until at most `pending` of this thread's committed stores still read shared memory. */
template <int pending = 0>
__device__ __forceinline__ void tmaStoreWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}
/** Waits until this thread's stores have been written. */
__device__ __forceinline__ void tmaStoreWait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

}  // namespace ptx
