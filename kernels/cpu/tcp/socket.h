// TCP sockets between ranks: addresses, connections, and bytes before a deadline.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace ditrun {

using Deadline = std::chrono::steady_clock::time_point;

/** An address of IPv4 or IPv6 as it travels. Both sides are little-endian. */
struct Address {
  uint8_t family = 0;  // 4 or 6
  uint8_t unused = 0;
  uint16_t port = 0;
  uint32_t unusedToo = 0;
  uint8_t bytes[16] = {};

  /** `10.0.0.1:4242` or `[fd00::1]:4242`. */
  std::string text() const;
};
static_assert(sizeof(Address) == 24);

/** A descriptor that is closed with its owner. */
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket();
  Socket(Socket &&other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  Socket &operator=(Socket &&other) noexcept;
  int descriptor() const { return descriptor_; }
  bool open() const { return descriptor_ >= 0; }
  /** Of this side and of the other. Throw where the connection is gone. */
  Address ownAddress() const;
  Address peerAddress() const;

 private:
  int descriptor_ = -1;
};

/**
 * Where other ranks reach this process, with port 0. It is on the interface that NCCL_SOCKET_IFNAME names as NCCL reads
 * it (prefixes, `=` for whole names, `^` for all but these); without it, loopback. NCCL_SOCKET_FAMILY chooses AF_INET
 * or AF_INET6, else IPv4 is preferred. Throws where no interface fits.
 */
Address reachableAddress();

/** Listens at the address, on a free port where its port is 0. */
Socket listenAt(const Address &address);

/** Throws DITRUN_PEER_ERROR with `who`, the address and the reason. */
Socket connectTo(const Address &address, Deadline deadline, const std::string &who);

/** Accepts one connection; a Socket that is not open where none waits. */
Socket acceptOne(const Socket &listener);

/** Moves all the bytes. Throws DITRUN_PEER_ERROR with `who` where the connection ends or the deadline passes. */
void sendAll(const Socket &socket, const void *data, size_t bytes, Deadline deadline, const std::string &who);
void receiveAll(const Socket &socket, void *data, size_t bytes, Deadline deadline, const std::string &who);

/** Small messages leave at once, and a host that vanishes is noticed within 10 s. */
void prepareForMessages(const Socket &socket);

/** Milliseconds until then, for poll: 0 once it has passed. */
int millisecondsUntil(Deadline deadline);

}  // namespace ditrun
