// Wide warpgroup matrix products with both operands in shared memory, D[64, N] = A[64, K] B[N, K]ᵀ (+ D), float32
// accumulators in wgmma.cuh's layout (PTX ISA, "wgmma"). K is 32 bytes: 16 of bf16 or 32 of e4m3.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "wgmma.cuh"

namespace ptx {

#define TEXT16_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TEXT16_1 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TEXT16_2 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define TEXT16_3 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TEXT16_4 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define TEXT16_5 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define TEXT16_6 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define TEXT16_7 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TEXT64 TEXT16_0 TEXT16_1 TEXT16_2 TEXT16_3
#define TEXT96 TEXT64 TEXT16_4 TEXT16_5
#define TEXT128 TEXT96 TEXT16_6 TEXT16_7
#define SUMS4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS16(d, i) SUMS4(d, i), SUMS4(d, i + 4), SUMS4(d, i + 8), SUMS4(d, i + 12)
#define SUMS64(d) SUMS16(d, 0), SUMS16(d, 16), SUMS16(d, 32), SUMS16(d, 48)
#define SUMS96(d) SUMS64(d), SUMS16(d, 64), SUMS16(d, 80)
#define SUMS128(d) SUMS96(d), SUMS16(d, 96), SUMS16(d, 112)

/** product(d, a, b, accumulate): accumulate 0 overwrites d. a and b are descriptors of operands that are contiguous
 * along K. */
template <class Element, int N>
struct WideProduct;

#define WIDE_PRODUCT(Element, N, count, shape, types, text, sums, a, b, p, transposes)                                 \
  template <>                                                                                                          \
  struct WideProduct<Element, N> {                                                                                     \
    static __device__ __forceinline__ void product(float (&d)[count], uint64_t descA, uint64_t descB,                  \
                                                   int accumulate) {                                                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p                                                               \
                   ", 0;\n"                                                                                            \
                   "wgmma.mma_async.sync.aligned." shape ".f32." types " {" text "}, " a ", " b ", p, 1, 1" transposes \
                   ";\n}\n"                                                                                            \
                   : sums(d)                                                                                           \
                   : "l"(descA), "l"(descB), "r"(accumulate));                                                         \
    }                                                                                                                  \
  };

WIDE_PRODUCT(__nv_bfloat16, 128, 64, "m64n128k16", "bf16.bf16", TEXT64, SUMS64, "%64", "%65", "%66", ", 0, 0")
WIDE_PRODUCT(__nv_bfloat16, 192, 96, "m64n192k16", "bf16.bf16", TEXT96, SUMS96, "%96", "%97", "%98", ", 0, 0")
WIDE_PRODUCT(__nv_bfloat16, 256, 128, "m64n256k16", "bf16.bf16", TEXT128, SUMS128, "%128", "%129", "%130", ", 0, 0")
WIDE_PRODUCT(__nv_fp8_e4m3, 128, 64, "m64n128k32", "e4m3.e4m3", TEXT64, SUMS64, "%64", "%65", "%66", "")
WIDE_PRODUCT(__nv_fp8_e4m3, 192, 96, "m64n192k32", "e4m3.e4m3", TEXT96, SUMS96, "%96", "%97", "%98", "")
WIDE_PRODUCT(__nv_fp8_e4m3, 256, 128, "m64n256k32", "e4m3.e4m3", TEXT128, SUMS128, "%128", "%129", "%130", "")

#undef WIDE_PRODUCT
#undef SUMS128
#undef SUMS96
#undef SUMS64
#undef SUMS16
#undef SUMS4
#undef TEXT128
#undef TEXT96
#undef TEXT64
#undef TEXT16_0
#undef TEXT16_1
#undef TEXT16_2
#undef TEXT16_3
#undef TEXT16_4
#undef TEXT16_5
#undef TEXT16_6
#undef TEXT16_7

}  // namespace ptx
