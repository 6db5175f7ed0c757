#include "peer/flags.h"

#include <vector>

#include "runtime/tensor.h"

namespace ditrun {

void waitFlag(uint64_t flag, Stream &stream) {
  waitWord(*pointer<uint32_t>(flag), stream, [](uint32_t value) { return value == 1; });
}

namespace {

std::vector<uint64_t> checkedFlags(const char *function, const uint64_t *flags, int count) {
  require(count >= 0, function, ": count is ", count, " but may not be negative.");
  require(count == 0 || flags != nullptr, function, ": flags is null.");
  std::vector<uint64_t> copy(flags, flags + count);
  for (const uint64_t flag : copy) requireAddress(function, "a flag", flag, 4);
  return copy;
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_flags_write(const uint64_t *flags, int count, uint32_t value, uint64_t stream) {
  return guarded([&] {
    submit("ditrun_flags_write", stream, [all = checkedFlags("ditrun_flags_write", flags, count), value](Stream &) {
      for (const uint64_t flag : all) {
        std::atomic_ref<uint32_t>(*pointer<uint32_t>(flag)).store(value, std::memory_order_release);
      }
    });
  });
}

int ditrun_flags_wait(const uint64_t *flags, int count, int reset, uint64_t stream) {
  return guarded([&] {
    submit("ditrun_flags_wait", stream, [all = checkedFlags("ditrun_flags_wait", flags, count), reset](Stream &on) {
      for (const uint64_t flag : all) {
        waitFlag(flag, on);
        if (reset != 0) std::atomic_ref<uint32_t>(*pointer<uint32_t>(flag)).store(0, std::memory_order_release);
      }
    });
  });
}
