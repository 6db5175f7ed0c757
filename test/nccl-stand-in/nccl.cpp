// NCCL's calls, as nccl.h declares them, on host memory between processes of one host: for tests of what calls NCCL. A call
// returns when its work is done, so that the stream argument means nothing: the CPU module calls it on the stream's own thread.
// Stricter than NCCL where a mistake would hang or depend on luck: see Header, move and Busy.
#include <cstring>
#include <memory>
#include <thread>

#include "communicator.h"

using namespace standin;

namespace {

enum Type : int { uint8 = 1, float32 = 7, bfloat16 = 9 };
enum Kind : uint64_t { message = 1, reduced = 2, gathered = 3 };
constexpr int version = 22809;

struct UniqueId {
  uint8_t internal[idBytes];
};

thread_local std::string lastError;
thread_local int groupDepth = 0;
thread_local std::vector<Transfer> group;

template <class Body> int guarded(Body &&body) {
  try {
    body();
    return success;
  } catch (const Failure &failure) {
    lastError = failure.sentence;
    return failure.result;
  }
}

size_t sizeOf(int type) {
  switch (type) {
    case uint8: return 1;
    case bfloat16: return 2;
    case float32: return 4;
    default: throw Failure{invalidArgument, "The stand-in moves uint8, float32 and bfloat16, not type " + std::to_string(type)};
  }
}

float fromBf16(uint16_t bits) {
  const uint32_t word = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

/** To nearest even; sums of finite numbers only. */
uint16_t toBf16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

/** total += x, rounded to the type at once: as NCCL's rings do, sum for sum. */
void accumulate(uint8_t *total, const uint8_t *x, size_t count, int type) {
  for (size_t i = 0; i < count; i++) {
    if (type == float32) {
      reinterpret_cast<float *>(total)[i] += reinterpret_cast<const float *>(x)[i];
    } else {
      uint16_t *const sum = reinterpret_cast<uint16_t *>(total) + i;
      *sum = toBf16(fromBf16(*sum) + fromBf16(reinterpret_cast<const uint16_t *>(x)[i]));
    }
  }
}

void requireAlone(const char *call) {
  if (groupDepth > 0) throw Failure{invalidUsage, std::string(call) + " in a group: the stand-in groups messages only"};
}

/** What every rank sends to every other, with room for what comes. */
std::vector<Transfer> toAll(Communicator &own, const void *x, size_t bytes, Kind kind, const std::vector<uint8_t *> &places) {
  std::vector<Transfer> transfers;
  uint8_t *const sent = static_cast<uint8_t *>(const_cast<void *>(x));
  for (int peer = 0; peer < own.size; peer++) {
    if (peer == own.rank) continue;
    transfers.push_back({&own, peer, true, sent, {kind, bytes}});
    transfers.push_back({&own, peer, false, places[peer], {kind, bytes}});
  }
  return transfers;
}

void queue(const Transfer &transfer) {
  if (transfer.peer < 0 || transfer.peer >= transfer.communicator->size) {
    throw Failure{invalidArgument, "There is no rank " + std::to_string(transfer.peer)};
  }
  group.push_back(transfer);
  if (groupDepth > 0) return;
  std::vector<Transfer> alone;
  alone.swap(group);
  move(alone);
}

}  // namespace

#define NCCL_API extern "C" __attribute__((visibility("default")))

NCCL_API int ncclGetVersion(int *out) {
  *out = version;
  return success;
}

NCCL_API const char *ncclGetErrorString(int result) {
  switch (result) {
    case success: return "no error";
    case invalidArgument: return "invalid argument";
    case invalidUsage: return "invalid usage";
    case remoteError: return "remote process exited or there was a network error";
    default: return "unhandled system error";
  }
}

NCCL_API const char *ncclGetLastError(Communicator *) { return lastError.c_str(); }

NCCL_API int ncclGetUniqueId(UniqueId *id) {
  return guarded([&] { makeId(id->internal); });
}

NCCL_API int ncclCommInitRank(Communicator **made, int size, UniqueId id, int rank) {
  return guarded([&] {
    if (size < 1 || size > mostRanks || rank < 0 || rank >= size) throw Failure{invalidArgument, "no such rank"};
    *made = std::make_unique<Communicator>(id.internal, size, rank).release();
  });
}

NCCL_API int ncclCommDestroy(Communicator *communicator) {
  return guarded([&] {
    if (communicator->busy > 0) throw Failure{invalidUsage, "ncclCommDestroy while an operation is under way"};
    delete communicator;
  });
}

NCCL_API int ncclCommAbort(Communicator *communicator) {
  communicator->aborted = true;
  while (communicator->busy > 0) std::this_thread::yield();
  delete communicator;
  return success;
}

NCCL_API int ncclCommGetAsyncError(Communicator *communicator, int *result) {
  *result = communicator->background;
  return success;
}

NCCL_API int ncclAllReduce(const void *x, void *out, size_t count, int type, int operation, Communicator *own, void *) {
  return guarded([&] {
    requireAlone("ncclAllReduce");
    if (operation != 0 || type == uint8) throw Failure{invalidArgument, "The stand-in sums float32 and bfloat16"};
    const size_t bytes = count * sizeOf(type);
    std::vector<std::vector<uint8_t>> received(own->size, std::vector<uint8_t>(bytes));
    std::memcpy(received[own->rank].data(), x, bytes);
    std::vector<uint8_t *> places;
    for (auto &each : received) places.push_back(each.data());
    std::vector<Transfer> transfers = toAll(*own, received[own->rank].data(), bytes, reduced, places);
    move(transfers);
    for (int peer = 1; peer < own->size; peer++) accumulate(received[0].data(), received[peer].data(), count, type);
    std::memcpy(out, received[0].data(), bytes);
  });
}

NCCL_API int ncclAllGather(const void *x, void *out, size_t count, int type, Communicator *own, void *) {
  return guarded([&] {
    requireAlone("ncclAllGather");
    const size_t bytes = count * sizeOf(type);
    std::vector<uint8_t *> places;
    for (int peer = 0; peer < own->size; peer++) places.push_back(static_cast<uint8_t *>(out) + peer * bytes);
    std::memmove(places[own->rank], x, bytes);
    std::vector<Transfer> transfers = toAll(*own, places[own->rank], bytes, gathered, places);
    move(transfers);
  });
}

NCCL_API int ncclSend(const void *x, size_t count, int type, int peer, Communicator *own, void *) {
  uint8_t *const data = static_cast<uint8_t *>(const_cast<void *>(x));
  return guarded([&] { queue({own, peer, true, data, {message, count * sizeOf(type)}}); });
}

NCCL_API int ncclRecv(void *out, size_t count, int type, int peer, Communicator *own, void *) {
  return guarded([&] { queue({own, peer, false, static_cast<uint8_t *>(out), {message, count * sizeOf(type)}}); });
}

NCCL_API int ncclGroupStart() {
  groupDepth++;
  return success;
}

NCCL_API int ncclGroupEnd() {
  if (groupDepth == 0 || --groupDepth > 0) return groupDepth > 0 ? success : invalidUsage;
  return guarded([&] {
    std::vector<Transfer> all;
    all.swap(group);
    move(all);
  });
}
