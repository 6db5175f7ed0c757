#include "tcp/socket.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/error.h"

namespace ditrun {
namespace {

/** As the system's calls take it. */
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);
  sockaddr *get() { return reinterpret_cast<sockaddr *>(&storage); }
};

SocketAddress systemAddress(const Address &address) {
  SocketAddress made;
  if (address.family == 4) {
    auto *const in = reinterpret_cast<sockaddr_in *>(&made.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(address.port);
    std::memcpy(&in->sin_addr, address.bytes, sizeof in->sin_addr);
    made.length = sizeof *in;
  } else {
    auto *const in = reinterpret_cast<sockaddr_in6 *>(&made.storage);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(address.port);
    std::memcpy(&in->sin6_addr, address.bytes, sizeof in->sin6_addr);
    made.length = sizeof *in;
  }
  return made;
}

Address plainAddress(const SocketAddress &given) {
  Address address;
  if (given.storage.ss_family == AF_INET) {
    const auto *const in = reinterpret_cast<const sockaddr_in *>(&given.storage);
    address.family = 4;
    address.port = ntohs(in->sin_port);
    std::memcpy(address.bytes, &in->sin_addr, sizeof in->sin_addr);
  } else {
    const auto *const in = reinterpret_cast<const sockaddr_in6 *>(&given.storage);
    address.family = 6;
    address.port = ntohs(in->sin6_port);
    std::memcpy(address.bytes, &in->sin6_addr, sizeof in->sin6_addr);
  }
  return address;
}

[[noreturn]] void failWith(int status, const std::string &what, int reason) {
  throw Failure(status, sentence(what, ": ", std::strerror(reason), "."));
}

void setOption(const Socket &socket, int level, int option, int value) {
  if (setsockopt(socket.descriptor(), level, option, &value, sizeof value) != 0) {
    failWith(DITRUN_DEVICE_ERROR, "A TCP socket could not be set up", errno);
  }
}

/** Waits for the events; false once the deadline has passed. */
bool waitFor(const Socket &socket, short events, Deadline deadline) {
  pollfd wanted{socket.descriptor(), events, 0};
  for (;;) {
    const int ready = poll(&wanted, 1, millisecondsUntil(deadline));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) failWith(DITRUN_DEVICE_ERROR, "poll failed", errno);
  }
}

Socket makeSocket(const Address &address) {
  const int family = address.family == 4 ? AF_INET : AF_INET6;
  Socket made(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.open()) failWith(DITRUN_DEVICE_ERROR, "A TCP socket could not be made", errno);
  return made;
}

/** Calls `step` (send or recv, at the place that is left) until all bytes have moved. */
template <class Step>
void moveAll(const Socket &socket, size_t bytes, short events, Deadline deadline, const std::string &who, Step step) {
  for (size_t moved = 0; moved < bytes;) {
    if (!waitFor(socket, events, deadline)) {
      throw Failure(DITRUN_PEER_ERROR, sentence(who, " said nothing in time."));
    }
    const ssize_t now = step(moved);
    if (now > 0) {
      moved += size_t(now);
    } else if (now == 0) {
      throw Failure(DITRUN_PEER_ERROR, sentence(who, " closed the connection."));
    } else if (errno != EAGAIN && errno != EINTR) {
      failWith(DITRUN_PEER_ERROR, who + " cannot be reached any more", errno);
    }
  }
}

}  // namespace

std::string Address::text() const {
  char buffer[INET6_ADDRSTRLEN] = "";
  inet_ntop(family == 4 ? AF_INET : AF_INET6, bytes, buffer, sizeof buffer);
  return family == 4 ? sentence(buffer, ":", port) : sentence("[", buffer, "]:", port);
}

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

Socket &Socket::operator=(Socket &&other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Address Socket::ownAddress() const {
  SocketAddress found;
  if (getsockname(descriptor_, found.get(), &found.length) != 0)
    failWith(DITRUN_PEER_ERROR, "getsockname failed", errno);
  return plainAddress(found);
}

Address Socket::peerAddress() const {
  SocketAddress found;
  if (getpeername(descriptor_, found.get(), &found.length) != 0)
    failWith(DITRUN_PEER_ERROR, "getpeername failed", errno);
  return plainAddress(found);
}

Socket listenAt(const Address &address) {
  Socket listener = makeSocket(address);
  SocketAddress at = systemAddress(address);
  if (bind(listener.descriptor(), at.get(), at.length) != 0 || listen(listener.descriptor(), SOMAXCONN) != 0) {
    failWith(DITRUN_DEVICE_ERROR, sentence("This process cannot listen at ", address.text()), errno);
  }
  return listener;
}

Socket connectTo(const Address &address, Deadline deadline, const std::string &who) {
  Socket made = makeSocket(address);
  SocketAddress at = systemAddress(address);
  int reason = connect(made.descriptor(), at.get(), at.length) == 0 ? 0 : errno;
  if (reason == EINPROGRESS) {
    reason = ETIMEDOUT;
    socklen_t length = sizeof reason;
    if (waitFor(made, POLLOUT, deadline)) getsockopt(made.descriptor(), SOL_SOCKET, SO_ERROR, &reason, &length);
  }
  if (reason == 0) return made;
  failWith(DITRUN_PEER_ERROR,
           sentence(who, " cannot be reached at ", address.text(),
                    "; NCCL_SOCKET_IFNAME names the interface that it listens on"),
           reason);
}

Socket acceptOne(const Socket &listener) {
  return Socket(accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

void sendAll(const Socket &socket, const void *data, size_t bytes, Deadline deadline, const std::string &who) {
  const auto *const from = static_cast<const uint8_t *>(data);
  moveAll(socket, bytes, POLLOUT, deadline, who,
          [&](size_t moved) { return send(socket.descriptor(), from + moved, bytes - moved, MSG_NOSIGNAL); });
}

void receiveAll(const Socket &socket, void *data, size_t bytes, Deadline deadline, const std::string &who) {
  auto *const to = static_cast<uint8_t *>(data);
  moveAll(socket, bytes, POLLIN, deadline, who,
          [&](size_t moved) { return recv(socket.descriptor(), to + moved, bytes - moved, 0); });
}

void prepareForMessages(const Socket &socket) {
  setOption(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  // A process that is stopped is no reason to give up: its system still answers.
  setOption(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(socket, IPPROTO_TCP, TCP_KEEPIDLE, 4);
  setOption(socket, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  setOption(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

int millisecondsUntil(Deadline deadline) {
  const auto left = deadline - std::chrono::steady_clock::now();
  const auto whole = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return int(std::clamp<decltype(whole)>(whole, 0, 1 << 30));
}

}  // namespace ditrun
