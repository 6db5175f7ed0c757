#include "tcp/communicator.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tcp/handshake.h"

namespace ditrun {
namespace {

struct Id {
  char magic[8];
  Address door;
  Digest secret;
};
static_assert(sizeof(Id) <= DITRUN_NCCL_ID_BYTES);
constexpr char idMagic[8] = {'d', 'i', 't', 'r', 'u', 'n', 'I', '1'};

/** Doors of this process whose communicators have not been joined yet. */
struct Door {
  Digest secret;
  Socket listener;
};
struct Doors {
  std::mutex mutex;
  std::vector<Door> open;
};
Doors &doors() {
  static Doors *const instance = new Doors;
  return *instance;
}

Socket takeDoor(const Digest &secret) {
  std::lock_guard lock(doors().mutex);
  auto &open = doors().open;
  const auto found =
      std::find_if(open.begin(), open.end(), [&](const Door &door) { return equalDigests(door.secret, secret); });
  require(found != open.end(), "ditrun_nccl_init: rank 0 must join in the process that made the id, and once.");
  Socket listener = std::move(found->listener);
  open.erase(found);
  return listener;
}

Deadline joinDeadline() {
  const char *const text = std::getenv("DITRUN_TIMEOUT");
  const double seconds = text == nullptr ? 0 : std::strtod(text, nullptr);
  const std::chrono::duration<double> patience(seconds > 0 ? std::min(seconds, 1e6) : 60);
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<Deadline::duration>(patience);
}

Address withoutPort(Address address) {
  address.port = 0;
  return address;
}

}  // namespace

void makeCommunicatorId(uint8_t *id) {
  Id made{};
  std::memcpy(made.magic, idMagic, sizeof idMagic);
  made.secret = randomDigest();
  Socket listener = listenAt(reachableAddress());
  made.door = listener.ownAddress();
  std::memset(id, 0, DITRUN_NCCL_ID_BYTES);
  std::memcpy(id, &made, sizeof made);
  std::lock_guard lock(doors().mutex);
  doors().open.push_back({made.secret, std::move(listener)});
}

Communicator::Communicator(const uint8_t *id, int ownRank, int ranks)
    : rank(ownRank), size(ranks), sockets_(size_t(ranks)), addresses_(size_t(ranks)) {
  Id given;
  std::memcpy(&given, id, sizeof given);
  require(std::memcmp(given.magic, idMagic, sizeof idMagic) == 0,
          "ditrun_nccl_init: the id is none of the CPU module.");
  alarm_ = Socket(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!alarm_.open()) throw Failure(DITRUN_DEVICE_ERROR, sentence("eventfd failed: ", std::strerror(errno), "."));
  const Membership own{given.secret, rank, size};
  const Deadline deadline = joinDeadline();
  const size_t directoryBytes = sizeof(Address) * size_t(size);

  Socket listener;
  const auto receive = [&] {
    Reception reception(own, listener);
    for (int missing = size - 1 - rank; missing > 0; missing--) {
      Member member = reception.next(deadline);
      if (rank == 0) addresses_[size_t(member.rank)] = member.listens;
      sockets_[size_t(member.rank)] = std::move(member.socket);
    }
  };
  if (rank == 0) {
    listener = takeDoor(given.secret);
    receive();
    addresses_[0] = given.door;
    for (int peer = 1; peer < size; peer++) {
      sendAll(sockets_[size_t(peer)], addresses_.data(), directoryBytes, deadline, nameOf(peer));
    }
  } else {
    const std::string root = sentence("Rank 0 of a group of ", size);
    sockets_[0] = connectTo(given.door, deadline, root);
    // The others reach this rank where the first one does.
    listener = listenAt(withoutPort(sockets_[0].ownAddress()));
    introduce(own, sockets_[0], listener.ownAddress(), deadline, sentence(root, " (", given.door.text(), ")"));
    receiveAll(sockets_[0], addresses_.data(), directoryBytes, deadline, sentence(root, " (", given.door.text(), ")"));
    for (int peer = 1; peer < rank; peer++) {
      const Address &address = addresses_[size_t(peer)];
      sockets_[size_t(peer)] = introduce(own, peer, address, listener.ownAddress(), deadline);
    }
    receive();
  }
  for (int peer = 0; peer < size; peer++) {
    if (peer != rank) prepareForMessages(sockets_[size_t(peer)]);
  }
}

std::string Communicator::nameOf(int peer) const {
  return sentence("Rank ", peer, " of a group of ", size, " (", addresses_[size_t(peer)].text(), ")");
}

std::unique_lock<std::mutex> Communicator::begin() {
  std::unique_lock lock(operation_, std::try_to_lock);
  require(lock.owns_lock(),
          "Two operations of one communicator run at the same time: their streams must wait for each other.");
  if (const auto known = failure()) throw *known;
  return lock;
}

void Communicator::failed(const Failure &failure) {
  std::lock_guard lock(state_);
  if (!failure_) failure_ = failure;
}

std::optional<Failure> Communicator::failure() const {
  std::lock_guard lock(state_);
  return failure_;
}

void Communicator::leave() {
  std::unique_lock operation(operation_, std::try_to_lock);
  if (!operation.owns_lock()) {
    require(failure().has_value(), "ditrun_nccl_destroy: an operation of the communicator is still under way.");
    const uint64_t one = 1;
    if (write(alarm_.descriptor(), &one, sizeof one) != ssize_t(sizeof one)) {
      throw Failure(DITRUN_DEVICE_ERROR, sentence("eventfd cannot be written: ", std::strerror(errno), "."));
    }
    operation.lock();
  }
  failed(Failure(DITRUN_PEER_ERROR, "The communicator was destroyed."));
  sockets_.clear();
  sockets_.resize(size_t(size));
}

}  // namespace ditrun
