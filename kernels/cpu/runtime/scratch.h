// Working memory of the kernels: one buffer per stream thread, grown to the largest kernel's need and kept.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace ditrun {

/** At least `floats` floats, 64-byte aligned, valid until this thread asks again. Throws std::bad_alloc. */
inline float *scratch(int64_t floats) {
  struct Free {
    void operator()(float *block) const { std::free(block); }
  };
  thread_local std::unique_ptr<float, Free> buffer;
  thread_local int64_t size = 0;
  if (floats > size) {
    buffer.reset();
    size = 0;
    void *block = nullptr;
    if (posix_memalign(&block, 64, static_cast<size_t>(floats) * sizeof(float)) != 0) throw std::bad_alloc();
    buffer.reset(static_cast<float *>(block));
    size = floats;
  }
  return buffer.get();
}

}  // namespace ditrun
