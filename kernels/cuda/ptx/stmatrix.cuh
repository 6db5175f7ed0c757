// Matrix stores from the accumulator layout of wgmma (PTX ISA, "stmatrix").
#pragma once

#include <cstdint>

namespace ptx {

/** Four 8 × 8 matrices of 16-bit elements to shared memory; lanes 8 i to 8 i + 7 give the addresses of matrix i's rows.
 */
__device__ __forceinline__ void storeMatrices(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
}

}  // namespace ptx
