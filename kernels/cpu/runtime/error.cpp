#include "runtime/error.h"

#include <mutex>

namespace ditrun {
namespace {

thread_local std::string ownSentence;
thread_local std::string returnedSentence;

// The latest failure of any thread. A caller that waits on a helper thread (an asynchronous foreign call, say) asks for
// the sentence from another thread than the one that failed. Never destroyed: stream threads may outlive main.
struct Latest {
  std::mutex mutex;
  std::string sentence;
};
Latest &latest() {
  static Latest *const instance = new Latest;
  return *instance;
}

}  // namespace

int remember(int status, const std::string &text) noexcept {
  try {
    ownSentence = text;
    std::lock_guard lock(latest().mutex);
    latest().sentence = text;
  } catch (const std::exception &) {
    // Only a failed allocation of the sentence itself comes here; the status still says what happened.
    ownSentence.clear();
  }
  return status;
}

void forget() noexcept { ownSentence.clear(); }

}  // namespace ditrun

/** The sentence of this thread's last call if that failed, otherwise of the latest failure on any thread. */
const char *ditrun_last_error(void) {
  using namespace ditrun;
  if (!ownSentence.empty()) return ownSentence.c_str();
  std::lock_guard lock(latest().mutex);
  try {
    returnedSentence = latest().sentence;
  } catch (const std::exception &) {
    return "The host has no memory left, not even to say what failed.";
  }
  return returnedSentence.c_str();
}
