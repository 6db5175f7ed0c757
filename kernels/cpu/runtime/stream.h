// A stream: a thread that runs queued work in order. An event names a point in it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "runtime/error.h"

namespace ditrun {

/** Thrown inside a stream's work when its stream is being destroyed. */
struct Stopped {};

/** A place in a stream that work elsewhere can wait for. Completes once; a failure before it goes to all who wait. */
class Point {
 public:
  using Time = std::chrono::steady_clock::time_point;
  void complete(const std::optional<Failure> &failure);
  /** Waits, and throws the failure if there is one; throws Stopped when `stop` becomes true. */
  void wait(const std::atomic<bool> &stop);
  /** When it completed; nothing if it has not. */
  std::optional<Time> completedAt();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Failure> failure_;
  std::optional<Time> time_;
};

class Stream {
 public:
  using Work = std::function<void(Stream &)>;
  Stream();
  /** Ends waits, finishes the kernel that runs, drops the rest, joins the thread. */
  ~Stream();
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;

  void push(Work work);
  /** Completes the point in stream order; with `clear`, what failed before it is then forgotten. */
  void pushPoint(std::shared_ptr<Point> point, bool clear);
  /** Waits for all queued work; throws what failed in it, once. */
  void synchronize();
  const std::atomic<bool> &stop() const { return stop_; }

 private:
  struct Task {
    Work work;
    std::shared_ptr<Point> point;
    bool clear = false;
  };
  void push(Task task);
  void loop();
  void run(Task &task);

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Task> queue_;
  std::atomic<bool> stop_{false};
  std::optional<Failure> failure_;  // of this thread only
  std::thread thread_;
};

/** Objects that callers know by number. A number is never used twice, nor by two kinds. */
uint64_t nextHandle();

template <class T>
class Table {
 public:
  explicit Table(const char *kind) : kind_(kind) {}
  uint64_t add(std::shared_ptr<T> object) {
    const uint64_t handle = nextHandle();
    std::lock_guard lock(mutex_);
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  std::shared_ptr<T> find(const char *function, uint64_t handle) {
    std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    require(found != objects_.end(), function, ": there is no ", kind_, " ", handle, " (never made, or destroyed).");
    return found->second;
  }
  std::shared_ptr<T> remove(const char *function, uint64_t handle) {
    std::shared_ptr<T> object = find(function, handle);
    std::lock_guard lock(mutex_);
    objects_.erase(handle);
    return object;
  }

 private:
  const char *kind_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<T>> objects_;
};

/** Streams by number; 0 is the module's own stream, made at its first use. */
std::shared_ptr<Stream> findStream(const char *function, uint64_t stream);

/** Queues work on the stream, or records it where the stream is being captured. */
void submit(const char *function, uint64_t stream, Stream::Work work);
/** As submit and synchronize in one: for the calls that block. Throws where the stream is being captured. */
void submitAndWait(const char *function, uint64_t stream, Stream::Work work);

}  // namespace ditrun
