// Memory shared between processes of one host. It is a memfd: no name is left behind when a process is killed. A peer
// opens it through /proc/PID/fd/N, which needs the same user, and checks that it got the very file that was exported.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/memory.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

struct Handle {
  char magic[8];
  uint32_t process;
  int32_t descriptor;
  uint64_t bytes;
  uint64_t device, inode;
};
static_assert(sizeof(Handle) <= DITRUN_HANDLE_BYTES);
constexpr char handleMagic[8] = {'d', 'i', 't', 'r', 'u', 'n', 'C', '1'};

struct Mappings {
  std::mutex mutex;
  std::unordered_map<uint64_t, uint64_t> bytesAt;
};
Mappings &mappings() {
  static Mappings *const instance = new Mappings;
  return *instance;
}

uint64_t map(int descriptor, uint64_t bytes) {
  void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  return mapped == MAP_FAILED ? 0 : reinterpret_cast<uintptr_t>(mapped);
}

/** Closes on leaving the scope. */
struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

}  // namespace

uint64_t allocatePeer(uint64_t bytes, PeerMemory &memory) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t whole = (bytes + page - 1) / page * page;
  const auto fail = [&](const char *what) {
    const int reason = errno;
    throw Failure(reason == ENOMEM || reason == ENOSPC ? DITRUN_OUT_OF_MEMORY : DITRUN_DEVICE_ERROR,
                  sentence("ditrun_malloc: ", bytes, " bytes of peer memory could not be made: ", what,
                           " failed: ", std::strerror(reason), "."));
  };
  Descriptor file{memfd_create("ditrun", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (file.number < 0) fail("memfd_create");
  if (ftruncate(file.number, static_cast<off_t>(whole)) != 0) fail("ftruncate");
  // Nobody can shrink it under a peer that reads it.
  if (fcntl(file.number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("fcntl(F_ADD_SEALS)");
  const uint64_t address = map(file.number, whole);
  if (address == 0) fail("mmap");
  memory = PeerMemory{file.number, whole};
  file.number = -1;
  return address;
}

void freePeer(uint64_t address, const PeerMemory &memory) {
  munmap(pointer<void>(address), memory.bytes);
  close(memory.descriptor);
}

}  // namespace ditrun

using namespace ditrun;

int ditrun_peer_export(uint64_t address, uint8_t *handle) {
  return guarded([&] {
    require(handle != nullptr, "ditrun_peer_export: handle is null.");
    const PeerMemory memory = findPeer("ditrun_peer_export", address);
    struct stat status {};
    if (fstat(memory.descriptor, &status) != 0) {
      throw Failure(DITRUN_DEVICE_ERROR, sentence("ditrun_peer_export: fstat failed: ", std::strerror(errno), "."));
    }
    Handle made{};
    std::memcpy(made.magic, handleMagic, sizeof handleMagic);
    made.process = static_cast<uint32_t>(getpid());
    made.descriptor = memory.descriptor;
    made.bytes = memory.bytes;
    made.device = status.st_dev;
    made.inode = status.st_ino;
    std::memset(handle, 0, DITRUN_HANDLE_BYTES);
    std::memcpy(handle, &made, sizeof made);
  });
}

int ditrun_peer_open(const uint8_t *handle, uint64_t *address) {
  return guarded([&] {
    require(handle != nullptr && address != nullptr, "ditrun_peer_open: handle or address is null.");
    Handle given;
    std::memcpy(&given, handle, sizeof given);
    require(std::memcmp(given.magic, handleMagic, sizeof handleMagic) == 0,
            "ditrun_peer_open: these bytes are no handle of the CPU module; was it exported by the CUDA module?");
    const std::string path = sentence("/proc/", given.process, "/fd/", given.descriptor);
    const Descriptor file{open(path.c_str(), O_RDWR | O_CLOEXEC)};
    const int reason = errno;
    const auto unreachable = [&](const auto &...why) {
      throw Failure(DITRUN_PEER_ERROR, sentence("ditrun_peer_open: the memory of process ", given.process,
                                                " could not be opened: ", why..., "."));
    };
    if (file.number < 0 && (reason == EACCES || reason == EPERM)) {
      unreachable(std::strerror(reason), "; workers must run as one user in one container");
    }
    if (file.number < 0)
      unreachable("the process has ended, freed it, or runs on another host (", std::strerror(reason), ")");
    struct stat status {};
    if (fstat(file.number, &status) != 0) unreachable("fstat failed: ", std::strerror(errno));
    if (status.st_dev != given.device || status.st_ino != given.inode ||
        static_cast<uint64_t>(status.st_size) != given.bytes) {
      unreachable("its descriptor ", given.descriptor,
                  " is another file now; the process that exported it has freed it or has ended");
    }
    const uint64_t mapped = map(file.number, given.bytes);
    if (mapped == 0) unreachable("mmap failed: ", std::strerror(errno));
    std::lock_guard lock(mappings().mutex);
    mappings().bytesAt.emplace(mapped, given.bytes);
    *address = mapped;
  });
}

int ditrun_peer_close(uint64_t address) {
  return guarded([&] {
    std::lock_guard lock(mappings().mutex);
    const auto found = mappings().bytesAt.find(address);
    require(found != mappings().bytesAt.end(), "ditrun_peer_close: no peer memory was opened at address ", address,
            " (or it was closed before).");
    munmap(pointer<void>(address), found->second);
    mappings().bytesAt.erase(found);
  });
}
