#include "runtime/memory.h"

#include <cstdlib>
#include <cstring>

#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

struct Allocation {
  uint64_t bytes;
  int memory;
  PeerMemory peer;
};

struct Allocations {
  std::mutex mutex;
  std::unordered_map<uint64_t, Allocation> all;
  uint64_t now = 0;
  uint64_t peak = 0;
};
Allocations &allocations() {
  static Allocations *const instance = new Allocations;
  return *instance;
}

constexpr uint64_t alignment = 256;  // as cudaMalloc's

}  // namespace

PeerMemory findPeer(const char *function, uint64_t address) {
  std::lock_guard lock(allocations().mutex);
  const auto found = allocations().all.find(address);
  require(found != allocations().all.end(), function, ": no memory of this process starts at address ", address, ".");
  require(found->second.memory == DITRUN_PEER_MEMORY, function, ": the memory at address ", address,
          " was not allocated as peer memory (memory = ", int{DITRUN_PEER_MEMORY}, " in ditrun_malloc).");
  return found->second.peer;
}

}  // namespace ditrun

using namespace ditrun;

int ditrun_malloc(uint64_t bytes, int memory, uint64_t *address) {
  return guarded([&] {
    require(address != nullptr, "ditrun_malloc: address is null.");
    require(bytes > 0, "ditrun_malloc: bytes is 0.");
    require(memory == DITRUN_DEVICE_MEMORY || memory == DITRUN_PEER_MEMORY, "ditrun_malloc: memory is ", memory,
            " but must be 0 (device) or 1 (peer).");
    Allocation allocation{bytes, memory, {-1, 0}};
    uint64_t made = 0;
    if (memory == DITRUN_PEER_MEMORY) {
      made = allocatePeer(bytes, allocation.peer);
    } else {
      void *block = nullptr;
      if (posix_memalign(&block, alignment, bytes) != 0) {
        throw Failure(DITRUN_OUT_OF_MEMORY, sentence("ditrun_malloc: the host has no ", bytes, " bytes left."));
      }
      made = reinterpret_cast<uintptr_t>(block);
    }
    std::lock_guard lock(allocations().mutex);
    allocations().all.emplace(made, allocation);
    allocations().now += bytes;
    allocations().peak = std::max(allocations().peak, allocations().now);
    *address = made;
  });
}

int ditrun_free(uint64_t address) {
  return guarded([&] {
    Allocation allocation;
    {
      std::lock_guard lock(allocations().mutex);
      const auto found = allocations().all.find(address);
      require(found != allocations().all.end(), "ditrun_free: no memory of this process starts at address ", address,
              " (never allocated, or freed before).");
      allocation = found->second;
      allocations().all.erase(found);
      allocations().now -= allocation.bytes;
    }
    if (allocation.memory == DITRUN_PEER_MEMORY) {
      freePeer(address, allocation.peer);
    } else {
      std::free(pointer<void>(address));
    }
  });
}

int ditrun_memory_used(uint64_t *now, uint64_t *peak) {
  return guarded([&] {
    require(now != nullptr && peak != nullptr, "ditrun_memory_used: now or peak is null.");
    std::lock_guard lock(allocations().mutex);
    *now = allocations().now;
    *peak = allocations().peak;
  });
}

int ditrun_upload(uint64_t destination, const void *source, uint64_t bytes, uint64_t stream) {
  return guarded([&] {
    requireAddress("ditrun_upload", "destination", destination, 1);
    require(source != nullptr, "ditrun_upload: source is null.");
    submitAndWait("ditrun_upload", stream, [=](Stream &) { std::memcpy(pointer<void>(destination), source, bytes); });
  });
}

int ditrun_download(void *destination, uint64_t source, uint64_t bytes, uint64_t stream) {
  return guarded([&] {
    requireAddress("ditrun_download", "source", source, 1);
    require(destination != nullptr, "ditrun_download: destination is null.");
    submitAndWait("ditrun_download", stream,
                  [=](Stream &) { std::memcpy(destination, pointer<const void>(source), bytes); });
  });
}

int ditrun_copy(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream) {
  return guarded([&] {
    requireAddress("ditrun_copy", "destination", destination, 1);
    requireAddress("ditrun_copy", "source", source, 1);
    submit("ditrun_copy", stream,
           [=](Stream &) { std::memmove(pointer<void>(destination), pointer<const void>(source), bytes); });
  });
}

int ditrun_copy_2d(uint64_t destination, uint64_t destinationPitch, uint64_t source, uint64_t sourcePitch,
                   uint64_t rowBytes, uint64_t rows, uint64_t stream) {
  return guarded([&] {
    requireAddress("ditrun_copy_2d", "destination", destination, 1);
    requireAddress("ditrun_copy_2d", "source", source, 1);
    require(destinationPitch >= rowBytes && sourcePitch >= rowBytes, "ditrun_copy_2d: rowBytes is ", rowBytes,
            " but the pitches are ", destinationPitch, " and ", sourcePitch, "; neither may be smaller.");
    submit("ditrun_copy_2d", stream, [=](Stream &) {
      for (uint64_t row = 0; row < rows; row++) {
        std::memmove(pointer<void>(destination + row * destinationPitch),
                     pointer<const void>(source + row * sourcePitch), rowBytes);
      }
    });
  });
}

int ditrun_fill_zero(uint64_t destination, uint64_t bytes, uint64_t stream) {
  return guarded([&] {
    requireAddress("ditrun_fill_zero", "destination", destination, 1);
    submit("ditrun_fill_zero", stream, [=](Stream &) { std::memset(pointer<void>(destination), 0, bytes); });
  });
}
