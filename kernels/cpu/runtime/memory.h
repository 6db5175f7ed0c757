// What the module has allocated, and the parts of it that other processes can open.
#pragma once

#include <cstdint>

namespace ditrun {

struct PeerMemory {
  int descriptor;
  uint64_t bytes;  // as mapped: whole pages
};

/** Anonymous shared memory without a name: it ends with the last process that holds it. Throws on failure. */
uint64_t allocatePeer(uint64_t bytes, PeerMemory &memory);
void freePeer(uint64_t address, const PeerMemory &memory);
/** The peer memory that starts at this address; throws when ditrun_malloc made none there. */
PeerMemory findPeer(const char *function, uint64_t address);

}  // namespace ditrun
