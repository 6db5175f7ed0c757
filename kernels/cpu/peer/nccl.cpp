// What NCCL does between GPUs, over TCP and on host memory: kernels/cpu/tcp. An operation runs on its stream's thread.
#include <memory>
#include <vector>

#include "runtime/scratch.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"
#include "tcp/transfer.h"

namespace ditrun {
namespace {

/** Bytes up to which a sum is made by every rank of all summands: more would cross the network than in two steps. */
constexpr int64_t mostAtOnce = 1 << 15;

// Never destroyed: stream threads may outlive main.
Table<Communicator> &communicators() {
  static auto *const instance = new Table<Communicator>("communicator");
  return *instance;
}

uint8_t *bytesAt(uint64_t address) { return pointer<uint8_t>(address); }

std::vector<Transfer> messages(const char *function, const Communicator &communicator, bool sends,
                               const uint64_t *addresses, const int64_t *bytes, const int *ranks, int count) {
  require(count == 0 || (count > 0 && addresses && bytes && ranks), function, ": ", count,
          " messages without their lists.");
  std::vector<Transfer> all;
  for (int i = 0; i < count; i++) {
    require(bytes[i] >= 0 && (bytes[i] == 0 || addresses[i] != 0), function, ": message ", i, " has ", bytes[i],
            " bytes at address ", addresses[i], ".");
    require(ranks[i] >= 0 && ranks[i] < communicator.size, function, ": message ", i, " is for rank ", ranks[i],
            " of a group of ", communicator.size, ".");
    all.push_back({ranks[i], sends, bytesAt(addresses[i]), {.bytes = uint64_t(bytes[i])}});
  }
  return all;
}

/** One piece of memory of each rank: this rank sends its own to all, and receives theirs. */
struct Shares {
  std::vector<uint8_t *> places;
  std::vector<uint64_t> bytes;
};
void gather(Communicator &own, const Shares &shares, Call call, const Stream &stream) {
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < own.size; peer++) {
    if (peer == own.rank) continue;
    transfers.push_back(
        {peer, true, shares.places[size_t(own.rank)], {.call = call, .bytes = shares.bytes[size_t(own.rank)]}});
    transfers.push_back(
        {peer, false, shares.places[size_t(peer)], {.call = call, .bytes = shares.bytes[size_t(peer)]}});
  }
  move(own, transfers, stream);
}

/** out = Σ sources in the order given, in float32, rounded once. */
void sum(uint64_t out, const std::vector<uint64_t> &sources, int64_t count, int dtype) {
  for (int64_t first = 0; first < count; first += runLength) {
    const int64_t length = std::min(runLength, count - first);
    float total[runLength] = {};
    float other[runLength];
    for (const uint64_t source : sources) {
      const float *const x = readRun(source, dtype, first, length, other);
      for (int64_t i = 0; i < length; i++) total[i] += x[i];
    }
    writeRun(out, dtype, first, length, total);
  }
}

/**
 * Each rank sums one share of the elements, and sends the sums to all. All of few elements are one share that every
 * rank sums for itself. Either way each sum is made in rank order, so every rank has the same bits.
 */
void allReduce(Communicator &own, uint64_t out, uint64_t x, int64_t count, int dtype, const Stream &stream) {
  const int64_t width = dtypeBytes(dtype);
  const bool atOnce = count * width <= mostAtOnce;
  const auto startOf = [&](int rank) { return count * rank / own.size; };
  const int64_t ownFirst = atOnce ? 0 : startOf(own.rank);
  const int64_t ownCount = atOnce ? count : startOf(own.rank + 1) - ownFirst;
  const int64_t ownBytes = ownCount * width;
  const uint64_t received = reinterpret_cast<uintptr_t>(scratch((own.size * ownBytes + 3) / 4));
  std::vector<uint64_t> sources;
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < own.size; peer++) {
    if (peer == own.rank) {
      sources.push_back(x + uint64_t(ownFirst * width));
      continue;
    }
    const int64_t first = atOnce ? 0 : startOf(peer);
    const int64_t theirs = atOnce ? count : startOf(peer + 1) - first;
    sources.push_back(received + uint64_t(peer * ownBytes));
    transfers.push_back(
        {peer, true, bytesAt(x) + first * width, {.call = Call::reduce, .bytes = uint64_t(theirs * width)}});
    transfers.push_back({peer, false, bytesAt(sources.back()), {.call = Call::reduce, .bytes = uint64_t(ownBytes)}});
  }
  move(own, transfers, stream);
  sum(out + uint64_t(ownFirst * width), sources, ownCount, dtype);
  if (atOnce) return;
  Shares shares;
  for (int rank = 0; rank < own.size; rank++) {
    shares.places.push_back(bytesAt(out) + startOf(rank) * width);
    shares.bytes.push_back(uint64_t((startOf(rank + 1) - startOf(rank)) * width));
  }
  gather(own, shares, Call::gather, stream);
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_nccl_unique_id(uint8_t *id) {
  return guarded([&] {
    require(id != nullptr, "ditrun_nccl_unique_id: id is null.");
    makeCommunicatorId(id);
  });
}

int ditrun_nccl_init(const uint8_t *id, int rank, int size, uint64_t *comm) {
  return guarded([&] {
    require(id != nullptr && comm != nullptr && size > 0 && rank >= 0 && rank < size, "ditrun_nccl_init got rank ",
            rank, " of ", size, ".");
    *comm = communicators().add(std::make_shared<Communicator>(id, rank, size));
  });
}

int ditrun_nccl_destroy(uint64_t comm) {
  return guarded([&] {
    if (comm == 0) return;
    communicators().find("ditrun_nccl_destroy", comm)->leave();
    communicators().remove("ditrun_nccl_destroy", comm);
  });
}

int ditrun_nccl_check(uint64_t comm) {
  return guarded([&] {
    if (const auto failure = communicators().find("ditrun_nccl_check", comm)->failure()) throw *failure;
  });
}

int ditrun_nccl_all_reduce(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_all_reduce";
    const auto of = communicators().find(f, comm);
    require(count >= 0, f, ": count is ", count, ".");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16, DITRUN_F16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &on) { allReduce(*of, out, x, count, dtype, on); });
  });
}

int ditrun_nccl_all_gather(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_all_gather";
    const auto of = communicators().find(f, comm);
    require(count >= 0, f, ": count is ", count, ".");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &on) {
      const uint64_t bytes = uint64_t(count) * uint64_t(dtypeBytes(dtype));
      Shares shares;
      for (int rank = 0; rank < of->size; rank++) shares.places.push_back(bytesAt(out) + uint64_t(rank) * bytes);
      shares.bytes.assign(size_t(of->size), bytes);
      std::memmove(shares.places[size_t(of->rank)], bytesAt(x), bytes);
      gather(*of, shares, Call::gather, on);
    });
  });
}

int ditrun_nccl_exchange(uint64_t comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks,
                         int sendCount, const uint64_t *receives, const int64_t *receiveBytes, const int *fromRanks,
                         int receiveCount, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_exchange";
    const auto of = communicators().find(f, comm);
    std::vector<Transfer> all = messages(f, *of, true, sends, sendBytes, toRanks, sendCount);
    for (const Transfer &each : messages(f, *of, false, receives, receiveBytes, fromRanks, receiveCount)) {
      all.push_back(each);
    }
    submit(f, stream, [=](Stream &on) { move(*of, all, on); });
  });
}
