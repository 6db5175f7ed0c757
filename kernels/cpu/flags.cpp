#include "flags.h"

#include <vector>

#include "tensor.h"

namespace ditrun {

// Many workers share few cores: look a few times, then let others run, then sleep for short whiles.
void waitFlag(uint64_t flag, Stream &stream) {
  const std::atomic_ref<uint32_t> word(*pointer<uint32_t>(flag));
  constexpr int looks = 64;
  constexpr int yields = 64;
  for (int i = 0; word.load(std::memory_order_acquire) != 1; i++) {
    if (i < looks) continue;
    if (stream.stop().load(std::memory_order_relaxed)) throw Stopped{};
    if (i < looks + yields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(i < looks + yields + 100 ? 20 : 100));
    }
  }
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
