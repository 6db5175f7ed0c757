// Collectives through a library that has NCCL's calls for host memory, opened at run time. NCCL itself moves device
// memory only, so without DITRUN_CPU_NCCL there is none. Such a library has no streams: a call runs on the stream's
// thread and returns when it is done.
#include "peer/nccl.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

struct UniqueId {
  char internal[DITRUN_NCCL_ID_BYTES];
};
using Communicator = void *;
// As in NCCL 2's nccl.h.
enum : int { ncclSuccess = 0, ncclInProgress = 7 };
enum : int { ncclUint8 = 1, ncclFloat32 = 7, ncclBfloat16 = 9 };
enum : int { ncclSum = 0 };

struct Nccl {
  int status = DITRUN_OK;
  std::string problem;
  std::string version;
  int (*getVersion)(int *);
  int (*getUniqueId)(UniqueId *);
  int (*commInitRank)(Communicator *, int ranks, UniqueId id, int rank);
  int (*commDestroy)(Communicator);
  int (*commAbort)(Communicator);
  int (*commGetAsyncError)(Communicator, int *);
  const char *(*getErrorString)(int);
  const char *(*getLastError)(Communicator);
  int (*allReduce)(const void *, void *, size_t, int type, int operation, Communicator, void *stream);
  int (*allGather)(const void *, void *, size_t sendCount, int type, Communicator, void *stream);
  int (*send)(const void *, size_t, int type, int peer, Communicator, void *stream);
  int (*receive)(void *, size_t, int type, int peer, Communicator, void *stream);
  int (*groupStart)();
  int (*groupEnd)();
};

Nccl open() {
  Nccl made;
  const char *const file = std::getenv("DITRUN_CPU_NCCL");
  if (file == nullptr || *file == '\0') {
    made.status = DITRUN_UNSUPPORTED;
    made.problem = "NCCL needs the CUDA module; between CPU workers use peer memory (ring transport \"peer\").";
    return made;
  }
  void *const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    made.status = DITRUN_LIBRARY_MISSING;
    made.problem = sentence("DITRUN_CPU_NCCL=", file, " could not be opened: ", dlerror(), ".");
    return made;
  }
  const auto bind = [&]<class Function>(Function *&function, const char *name) {
    function = reinterpret_cast<Function *>(dlsym(library, name));
    if (function != nullptr || made.status != DITRUN_OK) return;
    made.status = DITRUN_LIBRARY_MISSING;
    made.problem = sentence("DITRUN_CPU_NCCL=", file, " has no ", name, ".");
  };
  bind(made.getVersion, "ncclGetVersion");
  bind(made.getUniqueId, "ncclGetUniqueId");
  bind(made.commInitRank, "ncclCommInitRank");
  bind(made.commDestroy, "ncclCommDestroy");
  bind(made.commAbort, "ncclCommAbort");
  bind(made.commGetAsyncError, "ncclCommGetAsyncError");
  bind(made.getErrorString, "ncclGetErrorString");
  bind(made.getLastError, "ncclGetLastError");
  bind(made.allReduce, "ncclAllReduce");
  bind(made.allGather, "ncclAllGather");
  bind(made.send, "ncclSend");
  bind(made.receive, "ncclRecv");
  bind(made.groupStart, "ncclGroupStart");
  bind(made.groupEnd, "ncclGroupEnd");
  int version = 0;
  if (made.status != DITRUN_OK || made.getVersion(&version) != ncclSuccess) return made;
  made.version = sentence(version / 10000, ".", version / 100 % 100, ".", version % 100);
  return made;
}

// Never destroyed: stream threads may outlive main.
const Nccl &opened() {
  static const Nccl *const instance = new Nccl(open());
  return *instance;
}

const Nccl &nccl() {
  const Nccl &library = opened();
  if (library.status != DITRUN_OK) throw Failure(library.status, library.problem);
  return library;
}

void requireSuccess(int result, const char *what) {
  if (result == ncclSuccess) return;
  throw Failure(DITRUN_PEER_ERROR,
                sentence(what, " failed: ", nccl().getErrorString(result), " (", nccl().getLastError(nullptr), ")."));
}

Communicator asCommunicator(const char *function, uint64_t comm) {
  require(comm != 0, function, ": comm is 0.");
  return pointer<void>(comm);
}

/** What NCCL met in the background; ncclSuccess where it is still at work. */
int backgroundOf(Communicator comm) {
  int result = ncclSuccess;
  requireSuccess(nccl().commGetAsyncError(comm, &result), "ncclCommGetAsyncError");
  return result == ncclInProgress ? ncclSuccess : result;
}

struct Message {
  uint64_t address;
  size_t bytes;
  int rank;
};

std::vector<Message> messages(const char *function, const uint64_t *addresses, const int64_t *bytes, const int *ranks,
                              int count) {
  require(count == 0 || (count > 0 && addresses && bytes && ranks), function, ": ", count,
          " messages without their lists.");
  std::vector<Message> all;
  for (int i = 0; i < count; i++) {
    require(bytes[i] >= 0 && (bytes[i] == 0 || addresses[i] != 0), function, ": message ", i, " has ", bytes[i],
            " bytes at address ", addresses[i], ".");
    all.push_back({addresses[i], static_cast<size_t>(bytes[i]), ranks[i]});
  }
  return all;
}

}  // namespace

const char *ncclVersion() { return opened().status == DITRUN_OK ? opened().version.c_str() : nullptr; }

}  // namespace ditrun

using namespace ditrun;

int ditrun_nccl_unique_id(uint8_t *id) {
  return guarded([&] {
    require(id != nullptr, "ditrun_nccl_unique_id: id is null.");
    UniqueId made;
    requireSuccess(nccl().getUniqueId(&made), "ncclGetUniqueId");
    std::memcpy(id, &made, sizeof made);
  });
}

int ditrun_nccl_init(const uint8_t *id, int rank, int size, uint64_t *comm) {
  return guarded([&] {
    require(id != nullptr && comm != nullptr && size > 0 && rank >= 0 && rank < size, "ditrun_nccl_init got rank ",
            rank, " of ", size, ".");
    UniqueId shared;
    std::memcpy(&shared, id, sizeof shared);
    Communicator made = nullptr;
    requireSuccess(nccl().commInitRank(&made, size, shared, rank), "ncclCommInitRank");
    *comm = reinterpret_cast<uintptr_t>(made);
  });
}

int ditrun_nccl_destroy(uint64_t comm) {
  return guarded([&] {
    if (comm == 0) return;
    // A communicator with an error would wait for peers that are gone.
    const bool failed = backgroundOf(asCommunicator("ditrun_nccl_destroy", comm)) != ncclSuccess;
    if (failed) requireSuccess(nccl().commAbort(pointer<void>(comm)), "ncclCommAbort");
    else requireSuccess(nccl().commDestroy(pointer<void>(comm)), "ncclCommDestroy");
  });
}

int ditrun_nccl_check(uint64_t comm) {
  return guarded([&] { requireSuccess(backgroundOf(asCommunicator("ditrun_nccl_check", comm)), "An NCCL operation"); });
}

int ditrun_nccl_all_reduce(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_all_reduce";
    Communicator const of = asCommunicator(f, comm);
    require(count >= 0, f, ": count is ", count, ".");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      const int type = dtype == DITRUN_F32 ? ncclFloat32 : ncclBfloat16;
      requireSuccess(nccl().allReduce(pointer<void>(x), pointer<void>(out), count, type, ncclSum, of, nullptr),
                     "ncclAllReduce");
    });
  });
}

int ditrun_nccl_all_gather(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_all_gather";
    Communicator const of = asCommunicator(f, comm);
    require(count >= 0, f, ": count is ", count, ".");
    requireDtype(f, "dtype", dtype, DITRUN_F32, DITRUN_BF16, DITRUN_E4M3, DITRUN_F16);
    requireAddress(f, "out", out, dtypeBytes(dtype));
    requireAddress(f, "x", x, dtypeBytes(dtype));
    submit(f, stream, [=](Stream &) {
      const size_t bytes = static_cast<size_t>(count) * dtypeBytes(dtype);
      requireSuccess(nccl().allGather(pointer<void>(x), pointer<void>(out), bytes, ncclUint8, of, nullptr),
                     "ncclAllGather");
    });
  });
}

int ditrun_nccl_exchange(uint64_t comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks,
                         int sendCount, const uint64_t *receives, const int64_t *receiveBytes, const int *fromRanks,
                         int receiveCount, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_nccl_exchange";
    Communicator const of = asCommunicator(f, comm);
    const std::vector<Message> out = messages(f, sends, sendBytes, toRanks, sendCount);
    const std::vector<Message> in = messages(f, receives, receiveBytes, fromRanks, receiveCount);
    submit(f, stream, [=](Stream &) {
      requireSuccess(nccl().groupStart(), "ncclGroupStart");
      int queued = ncclSuccess;
      const auto queue = [&](int result) { queued = queued == ncclSuccess ? result : queued; };
      for (const auto &[address, bytes, rank] : out)
        queue(nccl().send(pointer<void>(address), bytes, ncclUint8, rank, of, nullptr));
      for (const auto &[address, bytes, rank] : in)
        queue(nccl().receive(pointer<void>(address), bytes, ncclUint8, rank, of, nullptr));
      const int ended = nccl().groupEnd();  // also after a failure, or the thread stays inside the group
      requireSuccess(queued, "ncclSend or ncclRecv");
      requireSuccess(ended, "ncclGroupEnd");
    });
  });
}
