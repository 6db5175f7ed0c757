// Memory shared with other processes of this host: CUDA IPC handles, opened once per process and counted.
#include <sys/random.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "runtime/memory.h"

// What the 128 bytes of a handle hold.
struct PeerHandle {
  char magic[8];
  uint64_t process;  // random, so that a process knows its own handles whatever the pid name spaces are
  uint64_t base;     // the exporter's address of the allocation
  uint64_t offset, bytes;
  int32_t pid;
  int32_t reserved;
  cudaIpcMemHandle_t ipc;
  cudaUUID_t device;
};
static_assert(sizeof(PeerHandle) <= DITRUN_HANDLE_BYTES);
static const char handleMagic[8] = {'d', 'i', 't', 'r', 'u', 'n', 'C', '1'};

struct Opened {
  uint64_t base;
  int count;
  bool own;         // exported by this process: nothing to close
  bool sameDevice;  // another process's memory on this process's GPU
};
static std::mutex peersMutex;
static std::map<std::string, Opened> openedAllocations;       // by exporter and CUDA's handle
static std::multimap<uint64_t, std::string> openedAddresses;  // what ditrun_peer_open returned

static uint64_t thisProcess() {
  static const uint64_t token = [] {
    uint64_t value = 0;
    if (getrandom(&value, sizeof value, 0) != sizeof value)
      value = uint64_t(getpid()) << 32 ^ reinterpret_cast<uint64_t>(&value);
    return value;
  }();
  return token;
}

static int deviceUuid(cudaUUID_t *uuid) {
  cudaDeviceProp properties;
  CUDA_TRY(cudaGetDeviceProperties(&properties, deviceFacts().index));
  *uuid = properties.uuid;
  return DITRUN_OK;
}

bool sharesDevice() {
  std::lock_guard<std::mutex> lock(peersMutex);
  for (const auto &entry : openedAllocations)
    if (entry.second.sameDevice) return true;
  return false;
}

int ditrun_peer_export(uint64_t address, uint8_t *handle) {
  TRY(useDevice());
  Allocation allocation;
  if (!handle || !findAllocation(address, &allocation) || allocation.memory != DITRUN_PEER_MEMORY)
    return fail(
        DITRUN_INVALID_ARGUMENT,
        "0x%llx does not lie in memory that ditrun_malloc made as DITRUN_PEER_MEMORY, so it cannot be exported.",
        (unsigned long long)address);
  PeerHandle exported{};
  memcpy(exported.magic, handleMagic, sizeof handleMagic);
  exported.process = thisProcess();
  exported.base = allocation.base;
  exported.offset = address - allocation.base;
  exported.bytes = allocation.bytes;
  exported.pid = getpid();
  TRY(deviceUuid(&exported.device));
  CUDA_TRY(cudaIpcGetMemHandle(&exported.ipc, asPointer<void>(allocation.base)));
  memset(handle, 0, DITRUN_HANDLE_BYTES);
  memcpy(handle, &exported, sizeof exported);
  return DITRUN_OK;
}

int ditrun_peer_open(const uint8_t *handle, uint64_t *address) {
  TRY(useDevice());
  if (!handle || !address)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_open needs a handle and a place for the address.");
  PeerHandle exported;
  memcpy(&exported, handle, sizeof exported);
  if (memcmp(exported.magic, handleMagic, sizeof handleMagic) != 0)
    return fail(DITRUN_PEER_ERROR,
                "These bytes are no handle of the CUDA module: every worker of a job must use the same kernel module.");

  std::lock_guard<std::mutex> lock(peersMutex);
  // The runtime refuses to open one allocation twice in a process, so each is opened once and counted.
  std::string key(reinterpret_cast<const char *>(&exported.process), sizeof exported.process);
  key.append(reinterpret_cast<const char *>(&exported.ipc), sizeof exported.ipc);
  auto found = openedAllocations.find(key);
  if (found == openedAllocations.end()) {
    Opened opened{exported.base, 0, exported.process == thisProcess(), false};
    if (!opened.own) {
      cudaUUID_t here;
      TRY(deviceUuid(&here));
      opened.sameDevice = memcmp(&here, &exported.device, sizeof here) == 0;
      void *base = nullptr;
      const cudaError_t error = cudaIpcOpenMemHandle(&base, exported.ipc, cudaIpcMemLazyEnablePeerAccess);
      if (error != cudaSuccess) {
        cudaGetLastError();
        return fail(DITRUN_PEER_ERROR,
                    "The %llu bytes that process %d exported could not be opened on device %d: %s: %s (has that "
                    "process ended, or do the devices lack peer access?).",
                    (unsigned long long)exported.bytes, exported.pid, deviceFacts().index, cudaGetErrorName(error),
                    cudaGetErrorString(error));
      }
      opened.base = reinterpret_cast<uint64_t>(base);
    }
    found = openedAllocations.emplace(key, opened).first;
  }
  found->second.count++;
  *address = found->second.base + exported.offset;
  openedAddresses.emplace(*address, key);
  return DITRUN_OK;
}

int ditrun_peer_close(uint64_t address) {
  TRY(useDevice());
  std::lock_guard<std::mutex> lock(peersMutex);
  const auto found = openedAddresses.find(address);
  if (found == openedAddresses.end())
    return fail(DITRUN_INVALID_ARGUMENT, "0x%llx did not come from ditrun_peer_open, or was closed already.",
                (unsigned long long)address);
  const auto allocation = openedAllocations.find(found->second);
  openedAddresses.erase(found);
  if (--allocation->second.count > 0) return DITRUN_OK;
  const Opened opened = allocation->second;
  openedAllocations.erase(allocation);
  if (!opened.own) CUDA_TRY(cudaIpcCloseMemHandle(asPointer<void>(opened.base)));
  return DITRUN_OK;
}
