// Messages between the processes of one communicator, through shared memory that has no name in the file system.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace standin {

/** As nccl.h numbers them. */
enum Result : int { success = 0, systemError = 2, invalidArgument = 4, invalidUsage = 5, remoteError = 6 };

/** Thrown inside; a call returns the result and keeps the sentence for ncclGetLastError. */
struct Failure {
  Result result;
  std::string sentence;
};

constexpr int mostRanks = 32;
constexpr size_t idBytes = 128;

struct Shared;
struct Channel;

/** What both sides of a message must agree on. NCCL itself would hang or mix up memory where they do not. */
struct Header {
  uint64_t kind;
  uint64_t bytes;
  bool operator==(const Header &) const = default;
};

/** One process's end of a communicator. */
class Communicator {
 public:
  /** Blocks until all ranks have come, as ncclCommInitRank does. */
  Communicator(const uint8_t *id, int size, int rank);
  ~Communicator();
  Communicator(const Communicator &) = delete;
  Communicator &operator=(const Communicator &) = delete;

  const int size, rank;
  /** Ends what waits, now and later. */
  std::atomic<bool> aborted{false};
  /** What ncclCommGetAsyncError tells. */
  std::atomic<int> background{success};
  /** Operations that are under way. */
  std::atomic<int> busy{0};

  Channel &channel(int from, int to) const;
  /** Whether the process of a rank has ended, or has destroyed its communicator. */
  bool gone(int peer) const;

 private:
  int file_ = -1;
  Shared *shared_ = nullptr;
};

/** One side of one message. */
struct Transfer {
  Communicator *communicator;
  int peer;
  bool sends;
  uint8_t *data;
  Header header;
  uint64_t moved = 0;
  bool begun = false;
  bool done = false;
};

/** Makes the memory of a communicator and writes to id how other processes of this host find it. */
void makeId(uint8_t *id);

/**
 * Moves all messages, those between the same two ranks in order, and returns once each has been taken by its receiver: a send
 * waits for its receive. Where a peer is gone it waits on, as NCCL's kernels do, until the communicator is aborted.
 */
void move(std::vector<Transfer> &transfers);

}  // namespace standin
