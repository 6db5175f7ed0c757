// What matrix products on sm_80 and later are made of: asynchronous copies of 16 bytes, matrix loads, mma.sync (PTX
// ISA).
#pragma once

#include <cstdint>

#include "mbarrier.cuh"

namespace ptx {

/** 16 bytes from global to shared memory, or zeros; the source is not read then. */
__device__ __forceinline__ void copyAsync(uint32_t destination, const void *source, bool inside) {
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(bytes) : "memory");
}
/** Arrives at the barrier once all copies that this thread has queued so far are complete. */
__device__ __forceinline__ void copyArrive(uint64_t *barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(sharedAddress(barrier)) : "memory");
}

// mbarrier.cuh's barriers, without what sm_80 lacks.

__device__ __forceinline__ void barrierInit(uint64_t *barrier, uint32_t arrivals) { mbarrierInit(barrier, arrivals); }

__device__ __forceinline__ void barrierArrive(uint64_t *barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}\n" ::"r"(sharedAddress(barrier))
               : "memory");
}

/** Waits until the phase of this parity (0 for the first) has completed. */
__device__ __forceinline__ void barrierWait(uint64_t *barrier, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  mbarrierWait(barrier, parity);
#else
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(sharedAddress(barrier)),
      "r"(parity)
      : "memory");
#endif
}

/** Four 8 × 8 matrices of 16-bit elements; lanes 8 i to 8 i + 7 give the addresses of matrix i's rows. */
__device__ __forceinline__ void loadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/** d[16, 8] += a[16, 16] b[16, 8] in bf16; b0 and b1 hold k 0 to 7 and 8 to 15. */
__device__ __forceinline__ void multiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/** The same of f16. */
__device__ __forceinline__ void multiplyAddF16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace ptx
