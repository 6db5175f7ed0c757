// Threads that read pieces of files and decode them where they belong: there is no way to a device that is not memory
// already.
#include <system_error>
#include <thread>

#include "decode/decode.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"
#include "shared/read_queue.h"

namespace ditrun {
namespace {

using After = std::shared_ptr<Point>;

class Reader {
 public:
  Reader(int threads, uint64_t pieceBytes) : queue(pieceBytes) {
    try {
      for (int i = 0; i < threads; i++) threads_.emplace_back([this, pieceBytes] { carry(pieceBytes); });
    } catch (const std::system_error &error) {
      end();
      throw Failure(DITRUN_DEVICE_ERROR,
                    sentence("Of ", threads, " reading threads number ", threads_.size() + 1, " could not be started (",
                             error.code().message(), "): raise ulimit -u."));
    }
  }
  ~Reader() { end(); }
  Reader(const Reader &) = delete;
  Reader &operator=(const Reader &) = delete;

  reading::Queue<After> queue;

 private:
  void end() {
    queue.end();
    stop_.store(true);
    for (std::thread &thread : threads_) thread.join();
    threads_.clear();
  }

  void carry(uint64_t pieceBytes) {
    try {
      // Not touched before it is read to: a page that no piece reaches costs nothing.
      const std::unique_ptr<uint8_t, void (*)(void *)> slot(static_cast<uint8_t *>(std::aligned_alloc(64, pieceBytes)),
                                                            std::free);
      if (!slot) throw std::bad_alloc();
      while (const auto piece = queue.take()) {
        if (const auto problem = piece->read(slot.get())) return queue.fail(*problem);
        piece->job->after->wait(stop_);
        decodeRows(piece->argsAt(reinterpret_cast<uintptr_t>(slot.get()), dtypeBytes(piece->job->decode.outDtype)));
        queue.finish(*piece);
      }
    } catch (const Stopped &) {
    } catch (const Failure &failure) {
      queue.fail({failure.status, failure.what()});
    } catch (const std::bad_alloc &) {
      queue.fail({DITRUN_OUT_OF_MEMORY, "The host has no memory left for a reader's slots."});
    } catch (const std::exception &error) {
      queue.fail({DITRUN_DEVICE_ERROR, error.what()});
    }
  }

  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

Table<Reader> &readers() {
  static Table<Reader> *const instance = new Table<Reader>("reader");
  return *instance;
}

void require(const std::optional<reading::Problem> &problem) {
  if (problem) throw Failure(problem->status, problem->sentence);
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_reader_open(int threads, uint64_t pieceBytes, uint64_t *reader) {
  return guarded([&] {
    const char *const f = "ditrun_reader_open";
    require(reader != nullptr, f, ": reader is null.");
    require(threads > 0, f, ": threads is ", threads, " but must be positive.");
    require(pieceBytes >= DITRUN_READER_LEAST_PIECE && pieceBytes % 4096 == 0, f, ": pieceBytes is ", pieceBytes,
            " but must be a multiple of 4096 from ", DITRUN_READER_LEAST_PIECE, " on.");
    *reader = readers().add(std::make_shared<Reader>(threads, pieceBytes));
  });
}

int ditrun_reader_close(uint64_t reader) {
  return guarded([&] {
    const auto closed = readers().remove("ditrun_reader_close", reader);
    closed->queue.end();
  });
}

int ditrun_reader_submit(uint64_t reader, int file, uint64_t offset, const ditrun_decode_args *args,
                         const float *scales, int scaleCount, uint64_t after, uint64_t *ticket) {
  return guarded([&] {
    const char *const f = "ditrun_reader_submit";
    require(args != nullptr && ticket != nullptr, f, ": args or ticket is null.");
    const auto found = readers().find(f, reader);
    if (const auto why = reading::refusal(*args, true)) refuse(f, ": ", *why, ".");
    if (const auto why = reading::scalesRefusal(*args, scales, scaleCount)) refuse(f, ": ", *why, ".");
    const auto point = std::make_shared<Point>();
    findStream(f, after)->pushPoint(point, false);
    auto job = std::make_shared<reading::Job<After>>();
    job->file = file;
    job->offset = offset;
    job->decode = *args;
    job->scales.assign(scales, scales + scaleCount);
    job->after = point;
    require(found->queue.push(std::move(job), ticket));
  });
}

int ditrun_reader_wait(uint64_t reader, uint64_t ticket, uint64_t before, uint64_t *done) {
  return guarded([&] {
    const char *const f = "ditrun_reader_wait";
    require(done != nullptr, f, ": done is null.");
    const auto found = readers().find(f, reader);
    findStream(f, before);
    // What is queued from now on runs after this, and host memory is seen by all.
    require(found->queue.wait(ticket, done));
  });
}

int ditrun_reader_failure(uint64_t reader, uint64_t *ticket, uint64_t *offset, uint64_t *error) {
  return guarded([&] {
    const char *const f = "ditrun_reader_failure";
    require(ticket != nullptr && offset != nullptr && error != nullptr, f, ": ticket, offset or error is null.");
    const auto problem = readers().find(f, reader)->queue.problem();
    require(problem && problem->status == DITRUN_FILE_ERROR, f, ": this reader has not failed at a file.");
    *ticket = problem->ticket;
    *offset = problem->offset;
    *error = static_cast<uint64_t>(problem->error);
  });
}
