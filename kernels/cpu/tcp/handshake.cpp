#include "tcp/handshake.h"

#include <poll.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "runtime/error.h"

namespace ditrun {
namespace {

constexpr char magic[8] = {'d', 'i', 't', 'r', 'u', 'n', 'T', '1'};
constexpr auto mostHandshake = std::chrono::seconds(5);
/** Visitors at a time who have proved nothing yet, beside one for each rank. */
constexpr size_t mostStrangers = 64;

/** A visitor who is to be dropped. */
struct Rejected {};

template <class... Parts>
Digest proofOf(const Digest &secret, const char *role, const Parts &...parts) {
  const size_t roleBytes = std::strlen(role);
  std::vector<uint8_t> message(roleBytes + (sizeof parts + ...));
  std::memcpy(message.data(), role, roleBytes);
  uint8_t *at = message.data() + roleBytes;
  const auto append = [&at](const auto &part) {
    std::memcpy(at, &part, sizeof part);
    at += sizeof part;
  };
  (append(parts), ...);
  return hmacSha256(secret, message.data(), message.size());
}

Digest listenersProof(const Digest &secret, const Hello &hello, const Challenge &challenge) {
  return proofOf(secret, "listen", hello, challenge.nonce);
}

Digest visitorsProof(const Digest &secret, const Hello &hello, const Challenge &challenge, const Answer &answer) {
  return proofOf(secret, "connect", hello, challenge.nonce, answer.listens);
}

}  // namespace

Socket introduce(const Membership &own, int toRank, const Address &address, const Address &listens, Deadline deadline) {
  const std::string who = sentence("Rank ", toRank, " of a group of ", own.size);
  Socket socket = connectTo(address, deadline, who);
  introduce(own, socket, listens, deadline, sentence(who, " (", address.text(), ")"));
  return socket;
}

void introduce(const Membership &own, const Socket &socket, const Address &listens, Deadline deadline,
               const std::string &who) {
  Hello hello{};
  std::memcpy(hello.magic, magic, sizeof magic);
  hello.rank = uint32_t(own.rank);
  hello.size = uint32_t(own.size);
  hello.nonce = randomDigest();
  sendAll(socket, &hello, sizeof hello, deadline, who);
  Challenge challenge;
  receiveAll(socket, &challenge, sizeof challenge, deadline, who);
  if (!equalDigests(challenge.proof, listenersProof(own.secret, hello, challenge))) {
    throw Failure(DITRUN_PEER_ERROR,
                  sentence(who, " did not prove that it belongs to this group: another program listens there."));
  }
  Answer answer{listens, {}};
  answer.proof = visitorsProof(own.secret, hello, challenge, answer);
  sendAll(socket, &answer, sizeof answer, deadline, who);
}

Reception::Reception(const Membership &own, const Socket &listener) : own_(own), listener_(listener) {
  for (int rank = own.rank + 1; rank < own.size; rank++) missing_.insert(rank);
}

Member Reception::next(Deadline deadline) {
  for (;;) {
    std::vector<pollfd> wanted{{listener_.descriptor(), POLLIN, 0}};
    for (const Visitor &visitor : visitors_) wanted.push_back({visitor.socket.descriptor(), POLLIN, 0});
    const int wait = millisecondsUntil(std::min(deadline, std::chrono::steady_clock::now() + mostHandshake));
    if (poll(wanted.data(), wanted.size(), wait) < 0 && errno != EINTR) {
      throw Failure(DITRUN_DEVICE_ERROR, sentence("poll failed: ", std::strerror(errno), "."));
    }
    const Deadline now = std::chrono::steady_clock::now();
    size_t index = 1;
    for (auto visitor = visitors_.begin(); visitor != visitors_.end();) {
      const bool spoke = wanted[index++].revents != 0;
      try {
        if (spoke && hear(*visitor)) {
          Member member = memberOf(*visitor);
          visitors_.erase(visitor);
          return member;
        }
        if (now > visitor->deadline) throw Rejected{};
        ++visitor;
      } catch (const Rejected &) {
        visitor = visitors_.erase(visitor);
      }
    }
    if (now >= deadline) {
      std::string list;
      for (const int rank : missing_) list += (list.empty() ? "" : ", ") + std::to_string(rank);
      throw Failure(DITRUN_PEER_ERROR,
                    sentence("Of a group of ", own_.size, ", these ranks did not come in time: ", list, ". Rank ",
                             own_.rank, " waits at ", listener_.ownAddress().text(), "."));
    }
    if (wanted[0].revents != 0) admit();
  }
}

void Reception::admit() {
  Socket socket = acceptOne(listener_);
  if (!socket.open()) return;
  // The longest silent one makes room.
  if (visitors_.size() >= mostStrangers + size_t(own_.size)) visitors_.pop_front();
  visitors_.push_back({std::move(socket), std::chrono::steady_clock::now() + mostHandshake});
}

bool Reception::hear(Visitor &visitor) {
  // Never more than is due: what follows the answer belongs to whoever gets the connection.
  const bool greets = visitor.received < sizeof(Hello);
  const size_t due = greets ? sizeof(Hello) : sizeof(Hello) + sizeof(Answer);
  auto *const part =
      greets ? reinterpret_cast<uint8_t *>(&visitor.hello) : reinterpret_cast<uint8_t *>(&visitor.answer);
  const size_t place = greets ? visitor.received : visitor.received - sizeof(Hello);
  const ssize_t now = recv(visitor.socket.descriptor(), part + place, due - visitor.received, 0);
  if (now == 0 || (now < 0 && errno != EAGAIN && errno != EINTR)) throw Rejected{};
  if (now < 0) return false;
  visitor.received += size_t(now);
  if (visitor.received < due) return false;
  if (!greets) {
    const Digest proof = visitorsProof(own_.secret, visitor.hello, visitor.challenge, visitor.answer);
    if (!equalDigests(visitor.answer.proof, proof)) throw Rejected{};
    return true;
  }
  if (std::memcmp(visitor.hello.magic, magic, sizeof magic) != 0) throw Rejected{};
  visitor.challenge.nonce = randomDigest();
  visitor.challenge.proof = listenersProof(own_.secret, visitor.hello, visitor.challenge);
  // It fits into the connection's empty buffer.
  const ssize_t sent = send(visitor.socket.descriptor(), &visitor.challenge, sizeof visitor.challenge, MSG_NOSIGNAL);
  if (sent != ssize_t(sizeof visitor.challenge)) throw Rejected{};
  return false;
}

Member Reception::memberOf(Visitor &visitor) {
  const uint32_t rank = visitor.hello.rank, size = visitor.hello.size;
  if (size != uint32_t(own_.size)) {
    throw Failure(DITRUN_PEER_ERROR, sentence("Rank ", rank, " says that its group has ", size, " ranks, rank ",
                                              own_.rank, " says ", own_.size, ": their plans differ."));
  }
  if (missing_.erase(int(rank)) == 0) {
    throw Failure(DITRUN_PEER_ERROR, sentence("Two processes are rank ", rank, " of a group of ", own_.size, "."));
  }
  return {int(rank), std::move(visitor.socket), visitor.answer.listens};
}

}  // namespace ditrun
