// Random tensors from a counter: every rank of every layout makes its part of the same full tensor.
#include <cmath>

#include "scratch.h"
#include "stream.h"
#include "tensor.h"

namespace ditrun {
namespace {

struct Words {
  uint32_t word[4];
};

/** Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; SC 2011). */
Words philox(uint32_t key0, uint32_t key1, Words counter) {
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = Words{{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                     static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

/** 1 / sqrt(8 (65536² - 1) / 12), the standard deviation of a sum of eight uniform 16-bit integers, as float32. */
const float normalScale = static_cast<float>(1.0 / std::sqrt(8.0 * (65536.0 * 65536.0 - 1.0) / 12.0));

// Each operation below rounds once to float32 (this file is compiled without fused multiply-adds).
float element(const ditrun_random_args &a, uint64_t index) {
  const Words random = philox(static_cast<uint32_t>(a.seed), static_cast<uint32_t>(a.seed >> 32),
                              Words{{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), a.tensorId, 0}});
  if (a.distribution == DITRUN_UNIFORM) {
    const float unit = static_cast<float>(random.word[0] >> 8) * 0x1p-23f - 1.0f;  // exact
    return a.amplitude * unit + a.offset;
  }
  uint32_t sum = 0;
  for (const uint32_t word : random.word) sum += (word & 0xffff) + (word >> 16);
  const float centred = static_cast<float>(sum) - 262140.0f;  // exact: 8 * 32767.5
  return a.amplitude * centred * normalScale + a.offset;
}

void fill(const ditrun_random_args &a) {
#pragma omp parallel for schedule(static) if (static_cast<int64_t>(a.rows) * a.columns > parallelWork / 8)
  for (int64_t row = 0; row < a.rows; row++) {
    for (int64_t c0 = 0; c0 < a.columns; c0 += runLength) {
      float buffer[runLength];
      const int64_t length = std::min<int64_t>(runLength, a.columns - c0);
      const auto first = static_cast<uint64_t>((a.row0 + row) * a.fullColumns + a.column0 + c0);
      for (int64_t c = 0; c < length; c++) buffer[c] = element(a, first + static_cast<uint64_t>(c));
      writeRun(a.out, a.outDtype, row * a.ldo + c0, length, buffer);
    }
  }
}

}  // namespace
}  // namespace ditrun

int ditrun_fill_random(const ditrun_random_args *args, uint64_t stream) {
  using namespace ditrun;
  return guarded([&] {
    const char *const f = "ditrun_fill_random";
    require(args != nullptr, f, ": args is null.");
    const ditrun_random_args a = *args;
    require(a.rows > 0 && a.columns > 0, f, ": rows and columns are ", a.rows, " and ", a.columns,
            " but must be positive.");
    require(a.row0 >= 0 && a.column0 >= 0 && a.column0 + a.columns <= a.fullColumns, f, ": rows from ", a.row0,
            " and columns ", a.column0, " to ", a.column0 + a.columns, " do not lie in a tensor of ", a.fullColumns,
            " columns.");
    require(a.ldo >= a.columns, f, ": ldo is ", a.ldo, " but a row has ", a.columns, " elements.");
    require(a.distribution == DITRUN_UNIFORM || a.distribution == DITRUN_NORMAL, f, ": distribution is ",
            a.distribution, " but must be 0 (uniform) or 1 (normal).");
    requireDtype(f, "outDtype", a.outDtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "out", a.out, dtypeBytes(a.outDtype));
    submit(f, stream, [a](Stream &) { fill(a); });
  });
}
