// Runs of elements of any dtype, seen as float32: every operator reads runs, computes, and writes runs.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "runtime/error.h"
#include "runtime/numbers.h"

namespace ditrun {

/** Elements handled at a time by the elementwise operators: three buffers of them fit the first-level cache. */
constexpr int64_t runLength = 1024;

inline int64_t dtypeBytes(int dtype) {
  return dtype == DITRUN_E4M3 ? 1 : dtype == DITRUN_BF16 || dtype == DITRUN_F16 ? 2 : 4;
}

inline const char *dtypeName(int dtype) {
  static const char *const names[] = {"f32", "bf16", "e4m3", "f16", "i32"};
  return dtype >= 0 && dtype <= DITRUN_I32 ? names[dtype] : "unknown";
}

template <class T>
T *pointer(uint64_t address) {
  return reinterpret_cast<T *>(static_cast<uintptr_t>(address));
}

/** Throws unless dtype is one of `allowed`. */
template <class... Allowed>
void requireDtype(const char *function, const char *name, int dtype, Allowed... allowed) {
  if (((dtype == allowed) || ...)) return;
  std::string list;
  for (const int one : {static_cast<int>(allowed)...}) list += (list.empty() ? "" : ", ") + std::string(dtypeName(one));
  refuse(function, ": ", name, " is dtype ", dtype, " (", dtypeName(dtype), ") but must be one of ", list, ".");
}

/** Throws where one tensor is bf16 and another f16: float32 goes with either. */
inline void requireOneNarrow(const char *function, std::initializer_list<int> dtypes) {
  const auto has = [&](int dtype) { return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end(); };
  require(!(has(DITRUN_BF16) && has(DITRUN_F16)), function,
          ": one tensor is bf16 and another f16; they must be alike, or float32.");
}

/** Throws unless the address is given and aligned to its element. */
inline void requireAddress(const char *function, const char *name, uint64_t address, int64_t elementBytes) {
  require(address != 0, function, ": ", name, " is 0 but an address is needed.");
  require(address % static_cast<uint64_t>(elementBytes) == 0, function, ": ", name, " is at address ", address,
          ", which is not a multiple of its element size, ", elementBytes, " bytes.");
}

inline void requireOptional(const char *function, const char *name, uint64_t address, int64_t elementBytes) {
  if (address != 0) requireAddress(function, name, address, elementBytes);
}

/** Elements [first, first + count) as float32: in place where they are float32 already, else decoded into buffer. */
inline const float *readRun(uint64_t base, int dtype, int64_t first, int64_t count, float *buffer) {
  switch (dtype) {
    case DITRUN_BF16: {
      const auto *x = pointer<const uint16_t>(base) + first;
      for (int64_t i = 0; i < count; i++) buffer[i] = fromBf16(x[i]);
      return buffer;
    }
    case DITRUN_F16: {
      const auto *x = pointer<const uint16_t>(base) + first;
      for (int64_t i = 0; i < count; i++) buffer[i] = fromF16(x[i]);
      return buffer;
    }
    case DITRUN_E4M3: {
      const auto *x = pointer<const uint8_t>(base) + first;
      for (int64_t i = 0; i < count; i++) buffer[i] = fromE4m3(x[i]);
      return buffer;
    }
    default:
      return pointer<const float>(base) + first;
  }
}

/** As readRun, but always into buffer. */
inline void copyRun(uint64_t base, int dtype, int64_t first, int64_t count, float *buffer) {
  const float *x = readRun(base, dtype, first, count, buffer);
  if (x != buffer) std::memcpy(buffer, x, static_cast<size_t>(count) * sizeof(float));
}

/** Stores count float32 values as elements [first, first + count), rounded to nearest even. */
inline void writeRun(uint64_t base, int dtype, int64_t first, int64_t count, const float *x) {
  switch (dtype) {
    case DITRUN_BF16: {
      auto *out = pointer<uint16_t>(base) + first;
      for (int64_t i = 0; i < count; i++) out[i] = toBf16(x[i]);
      return;
    }
    case DITRUN_F16: {
      auto *out = pointer<uint16_t>(base) + first;
      for (int64_t i = 0; i < count; i++) out[i] = toF16(x[i]);
      return;
    }
    case DITRUN_E4M3: {
      auto *out = pointer<uint8_t>(base) + first;
      for (int64_t i = 0; i < count; i++) out[i] = toE4m3(x[i]);
      return;
    }
    default: {
      auto *out = pointer<float>(base) + first;
      if (out != x) std::memmove(out, x, static_cast<size_t>(count) * sizeof(float));
    }
  }
}

}  // namespace ditrun
