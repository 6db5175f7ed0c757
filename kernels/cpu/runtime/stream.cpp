#include "runtime/stream.h"

namespace ditrun {

void Point::complete(const std::optional<Failure> &failure) {
  {
    std::lock_guard lock(mutex_);
    if (time_) return;
    failure_ = failure;
    time_ = std::chrono::steady_clock::now();
  }
  changed_.notify_all();
}

void Point::wait(const std::atomic<bool> &stop) {
  std::unique_lock lock(mutex_);
  // The stop flag has no condition variable of its own: it is looked at every few milliseconds.
  while (!time_) {
    if (stop.load(std::memory_order_relaxed)) throw Stopped{};
    changed_.wait_for(lock, std::chrono::milliseconds(5));
  }
  if (failure_) throw *failure_;
}

std::optional<Point::Time> Point::completedAt() {
  std::lock_guard lock(mutex_);
  return time_;
}

Stream::Stream() : thread_([this] { loop(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  arrived_.notify_all();
  thread_.join();
  const Failure destroyed(DITRUN_DEVICE_ERROR, "The stream was destroyed before it reached this point.");
  for (Task &task : queue_) {
    if (task.point) task.point->complete(destroyed);
  }
}

void Stream::push(Work work) { push(Task{std::move(work), nullptr, false}); }

void Stream::pushPoint(std::shared_ptr<Point> point, bool clear) { push(Task{nullptr, std::move(point), clear}); }

void Stream::push(Task task) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
  }
  arrived_.notify_one();
}

void Stream::synchronize() {
  static const std::atomic<bool> never{false};
  const auto point = std::make_shared<Point>();
  pushPoint(point, true);
  point->wait(never);
}

void Stream::loop() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return stop_.load() || !queue_.empty(); });
      if (stop_.load()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    run(task);
  }
}

// After a failure the work that follows is skipped until someone is told: its inputs are not what it expects.
void Stream::run(Task &task) {
  if (task.point) {
    task.point->complete(failure_);
    if (task.clear) failure_.reset();
    return;
  }
  if (failure_) return;
  try {
    task.work(*this);
  } catch (const Stopped &) {
    failure_ = Failure(DITRUN_DEVICE_ERROR, "The stream was destroyed while it waited.");
  } catch (const Failure &failure) {
    failure_ = failure;
  } catch (const std::bad_alloc &) {
    failure_ = Failure(DITRUN_OUT_OF_MEMORY, "The host has no memory left for the CPU module's own buffers.");
  } catch (const std::exception &error) {
    failure_ = Failure(DITRUN_DEVICE_ERROR, error.what());
  }
}

uint64_t nextHandle() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace ditrun
