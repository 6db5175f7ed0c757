// Where ditrun_quantize_kv puts e4m3 keys and values, and ditrun_attention finds them.
#pragma once

#include <cstdint>

#include "ditrun.h"

namespace ditrun {

/** The largest e4m3 number. */
constexpr float e4m3Largest = 448.0f;

/** Place i of each 16 keys of transposed values holds the key of this index among them. */
constexpr int keyOfPlace[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};

/** Keys of a row of transposed values, zeros behind the last included. */
inline int64_t paddedKeys(int64_t keys) { return (keys + DITRUN_FP8_KEYS - 1) / DITRUN_FP8_KEYS * DITRUN_FP8_KEYS; }

}  // namespace ditrun
