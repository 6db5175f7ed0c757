// The connections between the ranks of a group: one between every two.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <vector>

#include "runtime/error.h"
#include "tcp/socket.h"

namespace ditrun {

/** Opens the door of a communicator and writes to id (DITRUN_NCCL_ID_BYTES) where it is and the secret that opens it.
 */
void makeCommunicatorId(uint8_t *id);

class Communicator {
 public:
  /**
   * Joins. Rank 0 is in the process that made the id. Blocks until all ranks have come, DITRUN_TIMEOUT seconds at most
   * (60 unless set). Throws DITRUN_PEER_ERROR where one cannot be reached or does not come.
   */
  Communicator(const uint8_t *id, int rank, int size);
  Communicator(const Communicator &) = delete;
  Communicator &operator=(const Communicator &) = delete;

  const int rank, size;

  const Socket &socketOf(int peer) const { return sockets_[size_t(peer)]; }
  /** Rank and address, for people. */
  std::string nameOf(int peer) const;
  /** A descriptor that becomes readable once what is under way is to end. */
  const Socket &alarm() const { return alarm_; }

  /** Held by the operation under way. Throws where there is one already, or where one has failed. */
  std::unique_lock<std::mutex> begin();
  /** The connections are in the middle of a message and of no use from here on. */
  void failed(const Failure &failure);
  std::optional<Failure> failure() const;
  /** Ends what is under way if something has failed, else nothing may be; closes the connections. */
  void leave();

 private:
  std::vector<Socket> sockets_;
  std::vector<Address> addresses_;
  Socket alarm_;
  std::mutex operation_;
  mutable std::mutex state_;
  std::optional<Failure> failure_;
};

}  // namespace ditrun
