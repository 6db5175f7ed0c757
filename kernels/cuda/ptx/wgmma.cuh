// Warpgroup matrix products (PTX ISA, "wgmma"): D[64, N] += A[64, 16] B[16, N] in bf16 or f16, A[64, 32] B[32, N] in
// e4m3. A thread holds rows (lane / 4) and (lane / 4) + 8 of its warp's 16, columns 8 j + 2 (lane % 4) and the next:
// d[4 j], d[4 j + 1] of the first row, d[4 j + 2], d[4 j + 3] of the second. In half precision d[2 j] and d[2 j + 1]
// hold a pair each.
#pragma once

#include <cstdint>

namespace ptx {

enum class Swizzle : uint32_t { bytes128 = 1, bytes64 = 2, bytes32 = 3 };

/** Describes an operand in shared memory: its start, the bytes between its repeats along the contiguous dimension
 * (ignored when one row of the swizzle pattern covers it) and between its groups of 8 rows. Adding n moves the start by
 * 16 n bytes. */
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t repeatBytes, uint32_t groupBytes,
                                               Swizzle swizzle) {
  const uint32_t low = (address & 0x3ffff) >> 4 | repeatBytes >> 4 << 16;
  return low | static_cast<uint64_t>(groupBytes >> 4 | static_cast<uint32_t>(swizzle) << 30) << 32;
}

/** Orders register writes before the matrix products that follow. */
__device__ __forceinline__ void wgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Waits until at most `pending` committed groups are unfinished. */
template <int pending>
__device__ __forceinline__ void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
/** Keeps the compiler from moving reads or writes of registers that a matrix product in flight owns. */
template <int count>
__device__ __forceinline__ void wgmmaPin(float (&d)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int count>
__device__ __forceinline__ void wgmmaPin(uint32_t (&d)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

// The text of an accumulator's operands, and the operands: 4 and 16 at a time.
#define ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ACC16(d, i) ACC4(d, i), ACC4(d, i + 4), ACC4(d, i + 8), ACC4(d, i + 12)
#define HALF4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define HALF16(d, i) HALF4(d, i), HALF4(d, i + 4), HALF4(d, i + 8), HALF4(d, i + 12)
#define TEXT16_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TEXT16_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TEXT16_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define TEXT16_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TEXT16_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define TEXT4_16 ", %16, %17, %18, %19"
#define TEXT4_20 ", %20, %21, %22, %23"
#define TEXT4_32 ", %32, %33, %34, %35"
#define TEXT4_36 ", %36, %37, %38, %39"
#define TEXT4_64 ", %64, %65, %66, %67"
#define TEXT4_80 ", %80, %81, %82, %83"
#define TEXT4_84 ", %84, %85, %86, %87"

/** multiplyShared: A and B both [rows, 16] in shared memory, contiguous along the 16.
 * multiplyRegisters: A in registers as d's layout packs it, B [16, N] in shared memory, contiguous along N. */
template <int N>
struct Wgmma;
/** The same of f16. */
template <int N>
struct WgmmaF16;

#define WGMMA_SHARED(STRUCT, TYPE, N, A, B, P, TEXT, ...)                                                              \
  template <>                                                                                                          \
  struct STRUCT<N> {                                                                                                   \
    static __device__ __forceinline__ void multiplyShared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE  \
                   "." TYPE " {" TEXT "}, " A ", " B ", p, 1, 1, 0, 0;\n}\n"                                           \
                   : __VA_ARGS__                                                                                       \
                   : "l"(a), "l"(b), "r"(accumulate));                                                                 \
    }                                                                                                                  \
  };
WGMMA_SHARED(Wgmma, "bf16", 64, "%32", "%33", "%34", TEXT16_0 TEXT16_16, ACC16(d, 0), ACC16(d, 16))
WGMMA_SHARED(Wgmma, "bf16", 80, "%40", "%41", "%42", TEXT16_0 TEXT16_16 TEXT4_32 TEXT4_36, ACC16(d, 0), ACC16(d, 16),
             ACC4(d, 32), ACC4(d, 36))
WGMMA_SHARED(Wgmma, "bf16", 96, "%48", "%49", "%50", TEXT16_0 TEXT16_16 TEXT16_32, ACC16(d, 0), ACC16(d, 16),
             ACC16(d, 32))
WGMMA_SHARED(Wgmma, "bf16", 128, "%64", "%65", "%66", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48, ACC16(d, 0), ACC16(d, 16),
             ACC16(d, 32), ACC16(d, 48))
WGMMA_SHARED(Wgmma, "bf16", 160, "%80", "%81", "%82", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48 TEXT16_64, ACC16(d, 0),
             ACC16(d, 16), ACC16(d, 32), ACC16(d, 48), ACC16(d, 64))
WGMMA_SHARED(Wgmma, "bf16", 176, "%88", "%89", "%90",
             TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48 TEXT16_64 TEXT4_80 TEXT4_84, ACC16(d, 0), ACC16(d, 16),
             ACC16(d, 32), ACC16(d, 48), ACC16(d, 64), ACC4(d, 80), ACC4(d, 84))
WGMMA_SHARED(WgmmaF16, "f16", 48, "%24", "%25", "%26", TEXT16_0 TEXT4_16 TEXT4_20, ACC16(d, 0), ACC4(d, 16),
             ACC4(d, 20))
WGMMA_SHARED(WgmmaF16, "f16", 64, "%32", "%33", "%34", TEXT16_0 TEXT16_16, ACC16(d, 0), ACC16(d, 16))
WGMMA_SHARED(WgmmaF16, "f16", 96, "%48", "%49", "%50", TEXT16_0 TEXT16_16 TEXT16_32, ACC16(d, 0), ACC16(d, 16),
             ACC16(d, 32))
WGMMA_SHARED(WgmmaF16, "f16", 128, "%64", "%65", "%66", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48, ACC16(d, 0),
             ACC16(d, 16), ACC16(d, 32), ACC16(d, 48))

#define WGMMA_REGISTERS(STRUCT, TYPE, N, A, B, TEXT, ...)                                                             \
  template <>                                                                                                         \
  struct STRUCT<N> {                                                                                                  \
    static __device__ __forceinline__ void multiplyRegisters(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE     \
                   "." TYPE " {" TEXT "}, {" A "}, " B ", p, 1, 1, 1;\n}\n"                                           \
                   : __VA_ARGS__                                                                                      \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                             \
    }                                                                                                                 \
  };
WGMMA_REGISTERS(Wgmma, "bf16", 40, "%20, %21, %22, %23", "%24", TEXT16_0 TEXT4_16, ACC16(d, 0), ACC4(d, 16))
WGMMA_REGISTERS(Wgmma, "bf16", 72, "%36, %37, %38, %39", "%40", TEXT16_0 TEXT16_16 TEXT4_32, ACC16(d, 0), ACC16(d, 16),
                ACC4(d, 32))
WGMMA_REGISTERS(Wgmma, "bf16", 136, "%68, %69, %70, %71", "%72", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48 TEXT4_64,
                ACC16(d, 0), ACC16(d, 16), ACC16(d, 32), ACC16(d, 48), ACC4(d, 64))
WGMMA_REGISTERS(WgmmaF16, "f16", 40, "%20, %21, %22, %23", "%24", TEXT16_0 TEXT4_16, ACC16(d, 0), ACC4(d, 16))
WGMMA_REGISTERS(WgmmaF16, "f16", 72, "%36, %37, %38, %39", "%40", TEXT16_0 TEXT16_16 TEXT4_32, ACC16(d, 0),
                ACC16(d, 16), ACC4(d, 32))
WGMMA_REGISTERS(WgmmaF16, "f16", 136, "%68, %69, %70, %71", "%72", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48 TEXT4_64,
                ACC16(d, 0), ACC16(d, 16), ACC16(d, 32), ACC16(d, 48), ACC4(d, 64))

/** e4m3, B [N, 32] in shared memory, contiguous along the 32 (it has no other form). A in registers: a[0] and a[1] hold
 * four neighbours of the first and the second row from column 4 (lane % 4) on, a[2] and a[3] those 16 columns further.
 */
template <int N>
struct WgmmaE4m3;

#define WGMMA_E4M3_REGISTERS(N, A, B, P, TEXT, ...)                                                                 \
  template <>                                                                                                       \
  struct WgmmaE4m3<N> {                                                                                             \
    static __device__ __forceinline__ void multiplyRegisters(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, \
                                                             int accumulate) {                                      \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N               \
                   "k32.f32.e4m3.e4m3 {" TEXT "}, {" A "}, " B ", p, 1, 1;\n}\n"                                    \
                   : __VA_ARGS__                                                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                          \
    }                                                                                                               \
  };
WGMMA_E4M3_REGISTERS(40, "%20, %21, %22, %23", "%24", "%25", TEXT16_0 TEXT4_16, ACC16(d, 0), ACC4(d, 16))
WGMMA_E4M3_REGISTERS(72, "%36, %37, %38, %39", "%40", "%41", TEXT16_0 TEXT16_16 TEXT4_32, ACC16(d, 0), ACC16(d, 16),
                     ACC4(d, 32))
WGMMA_E4M3_REGISTERS(136, "%68, %69, %70, %71", "%72", "%73", TEXT16_0 TEXT16_16 TEXT16_32 TEXT16_48 TEXT4_64,
                     ACC16(d, 0), ACC16(d, 16), ACC16(d, 32), ACC16(d, 48), ACC4(d, 64))

/** f16, d in half precision, A and B [rows, 16] in shared memory. */
template <int N>
struct WgmmaHalf;

#define WGMMA_HALF(N, A, B, P, TEXT, ...)                                                               \
  template <>                                                                                           \
  struct WgmmaHalf<N> {                                                                                 \
    static __device__ __forceinline__ void multiplyShared(uint32_t (&d)[N / 4], uint64_t a, uint64_t b, \
                                                          int accumulate) {                             \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N   \
                   "k16.f16.f16.f16 {" TEXT "}, " A ", " B ", p, 1, 1, 0, 0;\n}\n"                      \
                   : __VA_ARGS__                                                                        \
                   : "l"(a), "l"(b), "r"(accumulate));                                                  \
    }                                                                                                   \
  };
WGMMA_HALF(96, "%24", "%25", "%26", TEXT16_0 TEXT4_16 TEXT4_20, HALF16(d, 0), HALF4(d, 16), HALF4(d, 20))
WGMMA_HALF(128, "%32", "%33", "%34", TEXT16_0 TEXT16_16, HALF16(d, 0), HALF16(d, 16))

/** d[64, 128] in half precision, A and B [rows, 32] e4m3 in shared memory, contiguous along the 32. */
__device__ __forceinline__ void wgmmaE4m3Half(uint32_t (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\nwgmma.mma_async.sync.aligned.m64n128k32.f16.e4m3.e4m3 {" TEXT16_0
          TEXT16_16 "}, %32, %33, p, 1, 1;\n}\n"
      : HALF16(d, 0), HALF16(d, 16)
      : "l"(a), "l"(b), "r"(accumulate));
}

#undef WGMMA_SHARED
#undef WGMMA_REGISTERS
#undef WGMMA_HALF
#undef WGMMA_E4M3_REGISTERS
#undef ACC4
#undef ACC16
#undef HALF4
#undef HALF16
#undef TEXT16_0
#undef TEXT16_16
#undef TEXT16_32
#undef TEXT16_48
#undef TEXT16_64
#undef TEXT4_16
#undef TEXT4_20
#undef TEXT4_32
#undef TEXT4_36
#undef TEXT4_64
#undef TEXT4_80
#undef TEXT4_84

}  // namespace ptx
