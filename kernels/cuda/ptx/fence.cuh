// Orderings between threads, between processes, and between ordinary accesses and the copy and matrix engines.
#pragma once

#include <cstdint>

namespace ptx {

/** Barrier `id` (1 to 15) among `threads` threads of the block. */
__device__ __forceinline__ void namedBarrierSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/** The same; returns whether `mine` is true in all of them. */
__device__ __forceinline__ bool namedBarrierAll(int id, int threads, bool mine) {
  uint32_t all;
  asm volatile(
      "{\n"
      ".reg .pred in, out;\n"
      "setp.ne.b32 in, %3, 0;\n"
      "barrier.cta.red.and.pred out, %1, %2, in;\n"
      "selp.b32 %0, 1, 0, out;\n"
      "}\n"
      : "=r"(all)
      : "r"(id), "r"(threads), "r"(static_cast<uint32_t>(mine))
      : "memory");
  return all != 0;
}

/** Arrives there without waiting. */
__device__ __forceinline__ void namedBarrierArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/** Makes initialised mbarriers visible to the copy engine. */
__device__ __forceinline__ void fenceMbarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/** Orders this thread's ordinary shared-memory writes before reads by the copy or matrix engines. */
__device__ __forceinline__ void fenceProxyAsyncShared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/** Orders what this thread has observed of global memory before its later bulk copies read it. */
__device__ __forceinline__ void fenceProxyAsyncGlobal() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/** Reads a flag that another GPU, a copy engine or another process sets; later reads see what was written before it. */
__device__ __forceinline__ uint32_t loadAcquireSystem(const uint32_t *flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

/** Sets a flag of another GPU or process; what this thread has seen, read and written is before it. */
__device__ __forceinline__ void storeReleaseSystem(uint32_t *flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

/** Gives registers of this warp group back to the block's pool, or takes them; `count` a thread afterwards. */
template <int count>
__device__ __forceinline__ void registersDecrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void registersIncrease() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

/** Nanoseconds of a clock that all multiprocessors share; it ticks coarsely. */
__device__ __forceinline__ uint64_t globalNanoseconds() {
  uint64_t value;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
  return value;
}

}  // namespace ptx
