// Threads that carry pieces of files to the device: read into pinned memory, copied, decoded where they belong. While
// one slot of a thread is copied and decoded, it reads into the other.
#include <system_error>
#include <thread>
#include <unordered_map>

#include "decode/decode.h"
#include "runtime/numbers.cuh"
#include "shared/read_queue.h"

namespace {

/** An event that is destroyed with the last job that waits for it. */
using After = std::shared_ptr<CUevent_st>;

/** Where a thread reads to, and its copy on the device. */
struct Slot {
  uint8_t *host = nullptr;
  uint64_t device = 0;
  cudaEvent_t done = nullptr;  // with what was last queued of it
};

struct Carrier {
  cudaStream_t stream = nullptr;
  cudaEvent_t last = nullptr;  // all that was queued so far of pieces that are finished
  Slot slots[DITRUN_READER_SLOTS];
  uint8_t *pinned = nullptr;
  std::thread thread;
};

class Reader {
 public:
  Reader(int threads, uint64_t pieceBytes)
      : queue(pieceBytes), pieceBytes_(pieceBytes), carriers_(static_cast<size_t>(threads)) {}
  ~Reader() { close(); }
  Reader(const Reader &) = delete;
  Reader &operator=(const Reader &) = delete;

  /** Takes what the threads need, and starts them. */
  int open() {
    const uint64_t each = DITRUN_READER_SLOTS * pieceBytes_;
    TRY(ditrun_malloc(carriers_.size() * each, DITRUN_DEVICE_MEMORY, &device_));
    uint64_t next = device_;
    for (Carrier &carrier : carriers_) {
      CUDA_TRY(cudaStreamCreateWithFlags(&carrier.stream, cudaStreamNonBlocking));
      CUDA_TRY(cudaEventCreateWithFlags(&carrier.last, cudaEventDisableTiming));
      for (Slot &slot : carrier.slots) {
        CUDA_TRY(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming | cudaEventBlockingSync));
        slot.device = next;
        next += pieceBytes_;
      }
    }
    for (Carrier &carrier : carriers_) {
      try {
        carrier.thread = std::thread([this, &carrier] {
          if (carry(carrier) != DITRUN_OK) queue.fail({DITRUN_DEVICE_ERROR, ditrun_last_error()});
        });
      } catch (const std::system_error &error) {
        return fail(DITRUN_DEVICE_ERROR, "One of %zu reading threads could not be started (%s): raise ulimit -u.",
                    carriers_.size(), error.code().message().c_str());
      }
    }
    return DITRUN_OK;
  }

  /** Holds the stream until all that was queued of finished pieces is done. */
  int holdUntilDone(cudaStream_t stream) {
    for (const Carrier &carrier : carriers_) CUDA_TRY(cudaStreamWaitEvent(stream, carrier.last, cudaEventWaitDefault));
    return DITRUN_OK;
  }

  int close() {
    queue.end();
    int status = DITRUN_OK;
    const auto keep = [&](cudaError_t error, const char *what) {
      if (error != cudaSuccess && status == DITRUN_OK) status = failCuda(error, what);
    };
    for (Carrier &carrier : carriers_) {
      if (carrier.thread.joinable()) carrier.thread.join();
      if (carrier.stream) keep(cudaStreamSynchronize(carrier.stream), "cudaStreamSynchronize");
      for (Slot &slot : carrier.slots)
        if (slot.done) keep(cudaEventDestroy(slot.done), "cudaEventDestroy");
      if (carrier.last) keep(cudaEventDestroy(carrier.last), "cudaEventDestroy");
      if (carrier.stream) keep(cudaStreamDestroy(carrier.stream), "cudaStreamDestroy");
      if (carrier.pinned) keep(cudaFreeHost(carrier.pinned), "cudaFreeHost");
    }
    carriers_.clear();
    if (device_ != 0 && ditrun_free(device_) != DITRUN_OK && status == DITRUN_OK) status = DITRUN_DEVICE_ERROR;
    device_ = 0;
    return status;
  }

  reading::Queue<After> queue;

 private:
  /** Each pins its own memory, so that the first reads while the others still do. */
  int carry(Carrier &carrier) {
    TRY(useDevice());
    CUDA_TRY(cudaHostAlloc(reinterpret_cast<void **>(&carrier.pinned), DITRUN_READER_SLOTS * pieceBytes_,
                           cudaHostAllocDefault));
    for (int i = 0; i < DITRUN_READER_SLOTS; i++) carrier.slots[i].host = carrier.pinned + uint64_t(i) * pieceBytes_;
    for (int turn = 0;; turn = (turn + 1) % DITRUN_READER_SLOTS) {
      const auto piece = queue.take();
      if (!piece) return DITRUN_OK;
      Slot &slot = carrier.slots[turn];
      CUDA_TRY(cudaEventSynchronize(slot.done));
      if (const auto problem = piece->read(slot.host)) {
        queue.fail(*problem);
        return DITRUN_OK;
      }
      CUDA_TRY(cudaMemcpyAsync(asPointer<void>(slot.device), slot.host, size_t(piece->bytes()), cudaMemcpyHostToDevice,
                               carrier.stream));
      CUDA_TRY(cudaStreamWaitEvent(carrier.stream, piece->job->after.get(), cudaEventWaitDefault));
      TRY(launchDecode(piece->argsAt(slot.device, dtypeBytes(piece->job->decode.outDtype)), carrier.stream));
      CUDA_TRY(cudaEventRecord(slot.done, carrier.stream));
      CUDA_TRY(cudaEventRecord(carrier.last, carrier.stream));
      queue.finish(*piece);
    }
  }

  const uint64_t pieceBytes_;
  uint64_t device_ = 0;
  std::vector<Carrier> carriers_;
};

// Never destroyed: at exit a thread may still read, and the process ends it.
struct Readers {
  std::mutex mutex;
  std::unordered_map<uint64_t, std::shared_ptr<Reader>> open;
  uint64_t last = 0;
};
Readers &readers() {
  static Readers *const instance = new Readers;
  return *instance;
}

std::shared_ptr<Reader> findReader(uint64_t reader) {
  std::lock_guard lock(readers().mutex);
  const auto found = readers().open.find(reader);
  return found == readers().open.end() ? nullptr : found->second;
}

int noReader(const char *function, uint64_t reader) {
  return fail(DITRUN_INVALID_ARGUMENT, "%s: there is no reader %llu (never opened, or closed).", function,
              (unsigned long long)reader);
}

int failWith(const reading::Problem &problem) { return fail(problem.status, "%s", problem.sentence.c_str()); }

}  // namespace

int ditrun_reader_open(int threads, uint64_t pieceBytes, uint64_t *reader) {
  TRY(useDevice());
  if (!reader || threads <= 0 || pieceBytes < DITRUN_READER_LEAST_PIECE || pieceBytes % 4096 != 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_reader_open got %d threads and pieces of %llu bytes; it needs a thread or more, and a multiple "
                "of 4096 from %d on.",
                threads, (unsigned long long)pieceBytes, DITRUN_READER_LEAST_PIECE);
  const auto made = std::make_shared<Reader>(threads, pieceBytes);
  TRY(made->open());
  std::lock_guard lock(readers().mutex);
  readers().open.emplace(*reader = ++readers().last, made);
  return DITRUN_OK;
}

int ditrun_reader_close(uint64_t reader) {
  TRY(useDevice());
  const auto found = findReader(reader);
  if (!found) return noReader("ditrun_reader_close", reader);
  {
    std::lock_guard lock(readers().mutex);
    readers().open.erase(reader);
  }
  return found->close();
}

int ditrun_reader_submit(uint64_t reader, int file, uint64_t offset, const ditrun_decode_args *args,
                         const float *scales, int scaleCount, uint64_t after, uint64_t *ticket) {
  TRY(useDevice());
  if (!args || !ticket)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_reader_submit needs its arguments and a place for the ticket.");
  const auto found = findReader(reader);
  if (!found) return noReader("ditrun_reader_submit", reader);
  if (const auto why = reading::refusal(*args, true))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_reader_submit: %s.", why->c_str());
  if (const auto why = reading::scalesRefusal(*args, scales, scaleCount))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_reader_submit: %s.", why->c_str());
  cudaEvent_t event = nullptr;
  CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  const auto job = std::make_shared<reading::Job<After>>();
  job->after = After(event, [](cudaEvent_t done) { cudaEventDestroy(done); });
  CUDA_TRY(cudaEventRecord(event, asStream(after)));
  job->file = file;
  job->offset = offset;
  job->decode = *args;
  job->scales.assign(scales, scales + scaleCount);
  if (const auto problem = found->queue.push(job, ticket)) return failWith(*problem);
  return DITRUN_OK;
}

int ditrun_reader_wait(uint64_t reader, uint64_t ticket, uint64_t before, uint64_t *done) {
  TRY(useDevice());
  const auto found = findReader(reader);
  if (!found) return noReader("ditrun_reader_wait", reader);
  if (!done) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_reader_wait needs a place for the last ticket.");
  if (const auto problem = found->queue.wait(ticket, done)) return failWith(*problem);
  return found->holdUntilDone(asStream(before));
}

int ditrun_reader_failure(uint64_t reader, uint64_t *ticket, uint64_t *offset, uint64_t *error) {
  const auto found = findReader(reader);
  if (!found) return noReader("ditrun_reader_failure", reader);
  const auto problem = found->queue.problem();
  if (!ticket || !offset || !error || !problem || problem->status != DITRUN_FILE_ERROR)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_reader_failure needs three places, and a reader that failed at a file.");
  *ticket = problem->ticket;
  *offset = problem->offset;
  *error = uint64_t(problem->error);
  return DITRUN_OK;
}
