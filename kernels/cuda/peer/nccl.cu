// NCCL collectives, through libnccl.so.2 opened at run time. Declarations as in NCCL 2's nccl.h.
#include <cstring>
#include <mutex>

#include "runtime/device.h"
#include "runtime/library.h"
#include "runtime/numbers.cuh"

struct NcclUniqueId {
  char internal[DITRUN_NCCL_ID_BYTES];
};
using NcclComm = void *;
enum : int { ncclSuccess = 0, ncclInProgress = 7 };
enum : int { ncclUint8 = 1, ncclFloat16 = 6, ncclFloat32 = 7, ncclBfloat16 = 9 };
enum : int { ncclSum = 0 };

struct Nccl {
  Library library;
  bool ready = false;
  std::string version;
  int (*getVersion)(int *);
  int (*getUniqueId)(NcclUniqueId *);
  int (*commInitRank)(NcclComm *, int ranks, NcclUniqueId id, int rank);
  int (*commDestroy)(NcclComm);
  int (*commAbort)(NcclComm);
  int (*commGetAsyncError)(NcclComm, int *);
  const char *(*getErrorString)(int);
  const char *(*getLastError)(NcclComm);
  int (*allReduce)(const void *, void *, size_t, int type, int operation, NcclComm, cudaStream_t);
  int (*allGather)(const void *, void *, size_t sendCount, int type, NcclComm, cudaStream_t);
  int (*send)(const void *, size_t, int type, int peer, NcclComm, cudaStream_t);
  int (*receive)(void *, size_t, int type, int peer, NcclComm, cudaStream_t);
  int (*groupStart)();
  int (*groupEnd)();
};
static Nccl nccl;

static bool openNccl() {
  static std::once_flag once;
  std::call_once(once, [] {
    Library &library = nccl.library;
    library = openLibrary("DITRUN_NCCL", {"libnccl.so.2"}, "NCCL");
    if (!library.handle) return;
    if (!(library.bind(nccl.getVersion, "ncclGetVersion") && library.bind(nccl.getUniqueId, "ncclGetUniqueId") &&
          library.bind(nccl.commInitRank, "ncclCommInitRank") && library.bind(nccl.commDestroy, "ncclCommDestroy") &&
          library.bind(nccl.commAbort, "ncclCommAbort") &&
          library.bind(nccl.commGetAsyncError, "ncclCommGetAsyncError") &&
          library.bind(nccl.getErrorString, "ncclGetErrorString") &&
          library.bind(nccl.getLastError, "ncclGetLastError") && library.bind(nccl.allReduce, "ncclAllReduce") &&
          library.bind(nccl.allGather, "ncclAllGather") && library.bind(nccl.send, "ncclSend") &&
          library.bind(nccl.receive, "ncclRecv") && library.bind(nccl.groupStart, "ncclGroupStart") &&
          library.bind(nccl.groupEnd, "ncclGroupEnd")))
      return;
    int version = 0;
    if (nccl.getVersion(&version) != ncclSuccess) {
      library.problem = "ncclGetVersion failed.";
      return;
    }
    nccl.version = std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
                   std::to_string(version % 100);
    nccl.ready = true;
  });
  return nccl.ready;
}

const char *ncclVersion() { return openNccl() ? nccl.version.c_str() : nullptr; }

static int useNccl() {
  TRY(useDevice());
  return openNccl() ? DITRUN_OK : fail(DITRUN_LIBRARY_MISSING, "%s", nccl.library.problem.c_str());
}

static int failNccl(int result, const char *what) {
  return fail(DITRUN_PEER_ERROR, "%s failed: %s (%s).", what, nccl.getErrorString(result), nccl.getLastError(nullptr));
}

#define NCCL_TRY(call)                                                 \
  do {                                                                 \
    const int ncclResult = (call);                                     \
    if (ncclResult != ncclSuccess) return failNccl(ncclResult, #call); \
  } while (0)

/** NCCL's number for a dtype that is summed. */
static int summedType(const char *what, int dtype, int *type) {
  if (dtype != DITRUN_F32 && dtype != DITRUN_BF16 && dtype != DITRUN_F16)
    return fail(DITRUN_INVALID_ARGUMENT, "%s sums f32, bf16 or f16, not %s (dtype %d).", what, dtypeName(dtype), dtype);
  *type = dtype == DITRUN_F32 ? ncclFloat32 : dtype == DITRUN_BF16 ? ncclBfloat16 : ncclFloat16;
  return DITRUN_OK;
}

static NcclComm asComm(uint64_t comm) { return reinterpret_cast<NcclComm>(comm); }

static int checkComm(const char *what, uint64_t comm, int64_t count) {
  if (comm != 0 && count >= 0) return DITRUN_OK;
  return fail(DITRUN_INVALID_ARGUMENT, "%s got communicator 0x%llx and a count of %lld.", what,
              (unsigned long long)comm, (long long)count);
}

int ditrun_nccl_unique_id(uint8_t *id) {
  if (!id) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_nccl_unique_id needs 128 bytes for the id.");
  if (!openNccl()) return fail(DITRUN_LIBRARY_MISSING, "%s", nccl.library.problem.c_str());
  NcclUniqueId made;
  NCCL_TRY(nccl.getUniqueId(&made));
  memcpy(id, &made, sizeof made);
  return DITRUN_OK;
}

int ditrun_nccl_init(const uint8_t *id, int rank, int size, uint64_t *comm) {
  TRY(useNccl());
  if (!id || !comm || size <= 0 || rank < 0 || rank >= size)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_nccl_init got rank %d of %d.", rank, size);
  NcclUniqueId shared;
  memcpy(&shared, id, sizeof shared);
  NcclComm made = nullptr;
  NCCL_TRY(nccl.commInitRank(&made, size, shared, rank));
  *comm = reinterpret_cast<uint64_t>(made);
  return DITRUN_OK;
}

int ditrun_nccl_destroy(uint64_t comm) {
  if (comm == 0) return DITRUN_OK;
  TRY(useNccl());
  // A communicator with an error would wait for peers that are gone.
  int background = ncclSuccess;
  NCCL_TRY(nccl.commGetAsyncError(asComm(comm), &background));
  if (background != ncclSuccess && background != ncclInProgress) NCCL_TRY(nccl.commAbort(asComm(comm)));
  else NCCL_TRY(nccl.commDestroy(asComm(comm)));
  return DITRUN_OK;
}

int ditrun_nccl_check(uint64_t comm) {
  TRY(useNccl());
  TRY(checkComm("ditrun_nccl_check", comm, 0));
  int background = ncclSuccess;
  NCCL_TRY(nccl.commGetAsyncError(asComm(comm), &background));
  if (background == ncclSuccess || background == ncclInProgress) return DITRUN_OK;
  return failNccl(background, "An NCCL operation");
}

int ditrun_nccl_all_reduce(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  TRY(useNccl());
  TRY(checkComm("ditrun_nccl_all_reduce", comm, count));
  int type = 0;
  TRY(summedType("ditrun_nccl_all_reduce", dtype, &type));
  NCCL_TRY(nccl.allReduce(asPointer<void>(x), asPointer<void>(out), size_t(count), type, ncclSum, asComm(comm),
                          asStream(stream)));
  return DITRUN_OK;
}

int ditrun_nccl_all_gather(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream) {
  TRY(useNccl());
  TRY(checkComm("ditrun_nccl_all_gather", comm, count));
  if (dtypeBytes(dtype) == 0) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_nccl_all_gather knows no dtype %d.", dtype);
  NCCL_TRY(nccl.allGather(asPointer<void>(x), asPointer<void>(out), size_t(count) * dtypeBytes(dtype), ncclUint8,
                          asComm(comm), asStream(stream)));
  return DITRUN_OK;
}

static int queueExchange(NcclComm comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks,
                         int sendCount, const uint64_t *receives, const int64_t *receiveBytes, const int *fromRanks,
                         int receiveCount, cudaStream_t stream) {
  for (int i = 0; i < sendCount; i++)
    NCCL_TRY(nccl.send(asPointer<void>(sends[i]), size_t(sendBytes[i]), ncclUint8, toRanks[i], comm, stream));
  for (int i = 0; i < receiveCount; i++)
    NCCL_TRY(
        nccl.receive(asPointer<void>(receives[i]), size_t(receiveBytes[i]), ncclUint8, fromRanks[i], comm, stream));
  return DITRUN_OK;
}

int ditrun_nccl_exchange(uint64_t comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks,
                         int sendCount, const uint64_t *receives, const int64_t *receiveBytes, const int *fromRanks,
                         int receiveCount, uint64_t stream) {
  TRY(useNccl());
  TRY(checkComm("ditrun_nccl_exchange", comm, 0));
  if (sendCount < 0 || receiveCount < 0 || (sendCount > 0 && !(sends && sendBytes && toRanks)) ||
      (receiveCount > 0 && !(receives && receiveBytes && fromRanks)))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_nccl_exchange got %d sends and %d receives without their lists.",
                sendCount, receiveCount);
  NCCL_TRY(nccl.groupStart());
  const int queued = queueExchange(asComm(comm), sends, sendBytes, toRanks, sendCount, receives, receiveBytes,
                                   fromRanks, receiveCount, asStream(stream));
  const int ended = nccl.groupEnd();  // also after a failure, or the thread stays inside the group
  TRY(queued);
  NCCL_TRY(ended);
  return DITRUN_OK;
}
