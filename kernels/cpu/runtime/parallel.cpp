#include "runtime/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/error.h"

namespace ditrun {
namespace {

int64_t wantedThreads() {
  const char *const named = std::getenv("OMP_NUM_THREADS");
  const long number = named == nullptr ? 0 : std::strtol(named, nullptr, 10);
  if (number > 0) return number;
  cpu_set_t cores;
  const int usable = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 0;
  return usable > 0 ? usable : std::max(1u, std::thread::hardware_concurrency());
}

/** A loop that is being run. Threads take stretches of it until there are none. */
struct Loop {
  const int64_t count;
  const int64_t chunk;
  void (*const run)(const void *, int64_t, int64_t, int64_t);
  const void *const body;
  std::atomic<int64_t> next{0};

  bool hasMore() const { return next.load(std::memory_order_relaxed) < count; }
  void take(int64_t thread) noexcept {
    for (int64_t first; (first = next.fetch_add(chunk, std::memory_order_relaxed)) < count;) {
      run(body, first, std::min(first + chunk, count), thread);
    }
  }
};

/** The threads that help one other thread. They sleep between loops, since workers share cores. */
class Team {
 public:
  Team() {
    try {
      for (int64_t thread = 1; thread < threadCount(); thread++)
        helpers_.emplace_back([this, thread] { help(thread); });
    } catch (const std::system_error &error) {
      end();
      throw Failure(
          DITRUN_DEVICE_ERROR,
          sentence("Of ", threadCount(), " threads of a loop, number ", helpers_.size() + 2, " could not be started (",
                   error.code().message(), "): raise ulimit -u, or lower OMP_NUM_THREADS."));
    }
  }
  ~Team() { end(); }
  Team(const Team &) = delete;
  Team &operator=(const Team &) = delete;

  void run(Loop &loop) {
    {
      std::lock_guard lock(mutex_);
      loop_ = &loop;
    }
    wake_.notify_all();
    loop.take(0);
    // A helper that has not woken by now finds nothing to do, and is not waited for.
    std::unique_lock lock(mutex_);
    loop_ = nullptr;
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void end() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    for (std::thread &helper : helpers_) helper.join();
  }

  void help(int64_t thread) {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return ending_ || (loop_ != nullptr && loop_->hasMore()); });
      if (ending_) return;
      Loop &loop = *loop_;
      busy_++;
      lock.unlock();
      loop.take(thread);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Loop *loop_ = nullptr;
  int busy_ = 0;
  bool ending_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace

int64_t threadCount() {
  static const int64_t count = wantedThreads();
  return count;
}

void runInParallel(int64_t count, int64_t chunk, void (*run)(const void *, int64_t, int64_t, int64_t),
                   const void *body) {
  thread_local Team team;
  Loop loop{count, chunk, run, body};
  team.run(loop);
}

}  // namespace ditrun
