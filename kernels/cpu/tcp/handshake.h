// How two ranks that hold the same secret find out that they do, before anything else is said.
//
//   who connects -> Hello: its rank, how many ranks there are, a random number
//   who listens  -> Challenge: a random number, and a proof over all that was said so far
//   who connects -> Answer: where it listens itself, and a proof over all of it
//
// A proof is HMAC-SHA-256 under the secret. Data travels as it is, neither hidden nor signed, as NCCL's does.
#pragma once

#include <list>
#include <set>

#include "tcp/hmac.h"
#include "tcp/socket.h"

namespace ditrun {

/** What all ranks of a communicator know of it. */
struct Membership {
  Digest secret;
  int rank, size;
};

struct Hello {
  char magic[8];
  uint32_t rank, size;
  Digest nonce;
};
struct Challenge {
  Digest nonce, proof;
};
struct Answer {
  Address listens;
  Digest proof;
};
static_assert(sizeof(Hello) == 48 && sizeof(Challenge) == 64 && sizeof(Answer) == 56);

/** A rank that has proved to be one. */
struct Member {
  int rank = -1;
  Socket socket;
  /** Where it accepts the ranks above it. */
  Address listens;
};

/** Connects to a rank that listens. Throws DITRUN_PEER_ERROR where it cannot be reached or has not the secret. */
Socket introduce(const Membership &own, int toRank, const Address &address, const Address &listens, Deadline deadline);
/** The same over a connection that stands. */
void introduce(const Membership &own, const Socket &socket, const Address &listens, Deadline deadline,
               const std::string &who);

/**
 * Receives the ranks above this one, each once, all handshakes at a time: a stranger who says nothing keeps nobody
 * waiting. Who has not the secret is dropped.
 */
class Reception {
 public:
  Reception(const Membership &own, const Socket &listener);
  /** Waits for the next rank. Throws DITRUN_PEER_ERROR that names the ranks missing at the deadline. */
  Member next(Deadline deadline);

 private:
  struct Visitor {
    Socket socket;
    Deadline deadline;
    Hello hello{};
    Challenge challenge{};
    Answer answer{};
    size_t received = 0;
  };
  void admit();
  /** Reads on. True once the visitor has said all and proved it; throws Rejected where it is to go. */
  bool hear(Visitor &visitor);
  Member memberOf(Visitor &visitor);

  const Membership &own_;
  const Socket &listener_;
  std::list<Visitor> visitors_;
  std::set<int> missing_;
};

}  // namespace ditrun
