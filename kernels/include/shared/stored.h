// How files store numbers: one element of each ditrun_stored, as float32. Both modules decode with this.
#pragma once

#include <cstdint>
#include <cstring>

#include "ditrun.h"

#ifdef __CUDACC__
#define DITRUN_BOTH __host__ __device__ inline
#else
#define DITRUN_BOTH inline
#endif

namespace stored {

/** Elements that share scales, and the bytes that they take. */
struct Block {
  int elements, bytes;
};

/** By ditrun_stored; elements 0 where there is no such value. Source: ggml-common.h for the blocks. */
DITRUN_BOTH constexpr Block blockOf(int kind) {
  switch (kind) {
    case DITRUN_STORED_F32:
      return {1, 4};
    case DITRUN_STORED_F16:
    case DITRUN_STORED_BF16:
      return {1, 2};
    case DITRUN_STORED_F64:
      return {1, 8};
    case DITRUN_STORED_F8_E4M3:
    case DITRUN_STORED_F8_E5M2:
    case DITRUN_STORED_I8:
      return {1, 1};
    case DITRUN_STORED_Q8_0:
      return {32, 34};
    case DITRUN_STORED_Q4_0:
    case DITRUN_STORED_IQ4_NL:
      return {32, 18};
    case DITRUN_STORED_Q4_1:
      return {32, 20};
    case DITRUN_STORED_Q5_0:
      return {32, 22};
    case DITRUN_STORED_Q5_1:
      return {32, 24};
    case DITRUN_STORED_Q2_K:
      return {256, 84};
    case DITRUN_STORED_Q3_K:
      return {256, 110};
    case DITRUN_STORED_Q4_K:
      return {256, 144};
    case DITRUN_STORED_Q5_K:
      return {256, 176};
    case DITRUN_STORED_Q6_K:
      return {256, 210};
    case DITRUN_STORED_IQ4_XS:
      return {256, 136};
    default:
      return {0, 0};
  }
}

/** What a plain element must be aligned to; blocks are read byte by byte. */
DITRUN_BOTH constexpr int alignmentOf(int kind) {
  const Block block = blockOf(kind);
  return block.elements == 1 ? block.bytes : 1;
}

template <class To, class From>
DITRUN_BOTH To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

DITRUN_BOTH float half(uint32_t x) {
  const uint32_t magnitude = (x & 0x7fff) << 13;
  const float finite = bits<float>(magnitude) * 0x1p112f;
  const uint32_t word = (x & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000 : bits<uint32_t>(finite);
  return bits<float>(word | (x & 0x8000) << 16);
}
DITRUN_BOTH float halfAt(const uint8_t *at) { return half(at[0] | uint32_t(at[1]) << 8); }

DITRUN_BOTH float e4m3(uint32_t x) {
  const float finite = bits<float>((x & 0x7f) << 20) * 0x1p120f;
  const uint32_t word = (x & 0x7f) == 0x7f ? 0x7fc00000 : bits<uint32_t>(finite);
  return bits<float>(word | (x & 0x80) << 24);
}

/** IQ4's sixteen levels: kvalues_iq4nl. */
DITRUN_BOTH float level(int index) {
  // -127 -104 -83 -65 -49 -35 -22 -10 and 1 13 25 38 53 69 89 113, a byte each, the first lowest
  const uint64_t eight = index < 8 ? 0xf6eaddcfbfad9881u : 0x7159453526190d01u;
  return int8_t(eight >> index % 8 * 8);
}

/** The low nibbles of 16 bytes are elements 0 to 15 of a block, the high ones 16 to 31. */
DITRUN_BOTH int nibble(const uint8_t *quants, int element) { return quants[element % 16] >> (element / 16 * 4) & 15; }
/** The fifth bits of 32 elements, in order. */
DITRUN_BOTH int fifth(const uint8_t *high, int element) { return (high[element / 8] >> element % 8 & 1) << 4; }

/** Of group 0 to 7 of Q4_K and Q5_K: 6 bits of a scale and of a minimum, packed in 12 bytes (get_scale_min_k4). */
DITRUN_BOTH void sixBits(const uint8_t *packed, int group, float &scale, float &least) {
  if (group < 4) {
    scale = packed[group] & 63;
    least = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
    least = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
  }
}

/**
 * Element e of a block. Products of a scale and an integer are exact in float32: 11 bits of a half, at most 6 of a scale and 7 of a
 * quant. So only the sums round, once, and it does not matter whether they are fused with a product.
 */
template <int kind>
DITRUN_BOTH float elementOf(const uint8_t *b, int e) {
  if constexpr (kind == DITRUN_STORED_Q8_0) {
    return halfAt(b) * int8_t(b[2 + e]);
  } else if constexpr (kind == DITRUN_STORED_Q4_0) {
    return halfAt(b) * (nibble(b + 2, e) - 8);
  } else if constexpr (kind == DITRUN_STORED_Q4_1) {
    return halfAt(b) * nibble(b + 4, e) + halfAt(b + 2);
  } else if constexpr (kind == DITRUN_STORED_Q5_0) {
    return halfAt(b) * ((nibble(b + 6, e) | fifth(b + 2, e)) - 16);
  } else if constexpr (kind == DITRUN_STORED_Q5_1) {
    return halfAt(b) * (nibble(b + 8, e) | fifth(b + 4, e)) + halfAt(b + 2);
  } else if constexpr (kind == DITRUN_STORED_IQ4_NL) {
    return halfAt(b) * level(nibble(b + 2, e));
  } else if constexpr (kind == DITRUN_STORED_Q2_K) {
    const int scales = b[e / 16], quant = b[16 + e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
    return halfAt(b + 80) * (scales & 15) * quant - halfAt(b + 82) * (scales >> 4);
  } else if constexpr (kind == DITRUN_STORED_Q3_K) {
    const int i = e / 16, low = b[96 + i % 8] >> (i / 8 * 4) & 15, high = b[104 + i % 4] >> (i / 4 * 2) & 3;
    const int quant = b[32 + e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
    const int upper = b[e % 32] >> (e / 32) & 1;
    return halfAt(b + 108) * ((low | high << 4) - 32) * (quant + 4 * upper - 4);
  } else if constexpr (kind == DITRUN_STORED_Q4_K || kind == DITRUN_STORED_Q5_K) {
    const int group = e / 32;
    float scale, least;
    sixBits(b + 4, group, scale, least);
    const uint8_t *const quants = b + (kind == DITRUN_STORED_Q4_K ? 16 : 48);
    int quant = quants[e / 64 * 32 + e % 32] >> (group % 2 * 4) & 15;
    if constexpr (kind == DITRUN_STORED_Q5_K) quant |= (b[16 + e % 32] >> group & 1) << 4;
    return halfAt(b) * scale * quant - halfAt(b + 2) * least;
  } else if constexpr (kind == DITRUN_STORED_Q6_K) {
    const int half128 = e / 128, part = e % 128 / 32, l = e % 32;
    const int low = b[half128 * 64 + part % 2 * 32 + l] >> (part / 2 * 4) & 15;
    const int high = b[128 + half128 * 32 + l] >> (part * 2) & 3;
    return halfAt(b + 208) * int8_t(b[192 + e / 16]) * ((low | high << 4) - 32);
  } else {
    static_assert(kind == DITRUN_STORED_IQ4_XS);
    const int group = e / 32, high = (b[2] | b[3] << 8) >> (2 * group) & 3;
    const int low = b[4 + group / 2] >> (group % 2 * 4) & 15;
    return halfAt(b) * ((low | high << 4) - 32) * level(nibble(b + 8 + group * 16, e % 32));
  }
}

/** Element `column` of a stored row. F64 is rounded to float32. */
template <int kind>
DITRUN_BOTH float decodeOne(const uint8_t *row, int64_t column) {
  if constexpr (kind == DITRUN_STORED_F32) {
    return reinterpret_cast<const float *>(row)[column];
  } else if constexpr (kind == DITRUN_STORED_F16) {
    return half(reinterpret_cast<const uint16_t *>(row)[column]);
  } else if constexpr (kind == DITRUN_STORED_BF16) {
    return bits<float>(uint32_t(reinterpret_cast<const uint16_t *>(row)[column]) << 16);
  } else if constexpr (kind == DITRUN_STORED_F64) {
    return float(reinterpret_cast<const double *>(row)[column]);
  } else if constexpr (kind == DITRUN_STORED_F8_E4M3) {
    return e4m3(row[column]);
  } else if constexpr (kind == DITRUN_STORED_F8_E5M2) {
    return half(uint32_t(row[column]) << 8);
  } else if constexpr (kind == DITRUN_STORED_I8) {
    return int8_t(row[column]);
  } else {
    constexpr Block block = blockOf(kind);
    return elementOf<kind>(row + column / block.elements * block.bytes, int(column % block.elements));
  }
}

/** Calls run.operator()<kind>() for the kind known only now. @return false where there is no such kind. */
template <class Run>
bool withKind(int kind, const Run &run) {
  switch (kind) {
#define DITRUN_KIND(name)                            \
  case DITRUN_STORED_##name:                         \
    run.template operator()<DITRUN_STORED_##name>(); \
    return true;
    DITRUN_KIND(F32)
    DITRUN_KIND(F16)
    DITRUN_KIND(BF16)
    DITRUN_KIND(F64)
    DITRUN_KIND(F8_E4M3)
    DITRUN_KIND(F8_E5M2)
    DITRUN_KIND(I8)
    DITRUN_KIND(Q8_0)
    DITRUN_KIND(Q4_0)
    DITRUN_KIND(Q4_1)
    DITRUN_KIND(Q5_0)
    DITRUN_KIND(Q5_1)
    DITRUN_KIND(IQ4_NL)
    DITRUN_KIND(Q2_K)
    DITRUN_KIND(Q3_K)
    DITRUN_KIND(Q4_K)
    DITRUN_KIND(Q5_K)
    DITRUN_KIND(Q6_K)
    DITRUN_KIND(IQ4_XS)
#undef DITRUN_KIND
    default:
      return false;
  }
}

}  // namespace stored
