// 32-bit words in shared memory that order work across processes.
#pragma once

#include "runtime/stream.h"

namespace ditrun {

/** Looks at the word until it is `enough`, then sees everything written before it was set. Throws Stopped when the
 * stream ends. */
template <class Enough>
void waitWord(uint32_t &word, Stream &stream, Enough enough) {
  const std::atomic_ref<uint32_t> shared(word);
  // Many workers share few cores: look a few times, then let others run, then sleep for short whiles.
  constexpr int looks = 64;
  constexpr int yields = 64;
  for (int i = 0; !enough(shared.load(std::memory_order_acquire)); i++) {
    if (i < looks) continue;
    if (stream.stop().load(std::memory_order_relaxed)) throw Stopped{};
    if (i < looks + yields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(i < looks + yields + 100 ? 20 : 100));
    }
  }
}

/** Waits until *flag == 1, then sees everything written before it was set. Throws Stopped when the stream ends. */
void waitFlag(uint64_t flag, Stream &stream);

}  // namespace ditrun
