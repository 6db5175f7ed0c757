#include "communicator.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

namespace standin {

constexpr size_t capacity = 1 << 16;

/** A ring of bytes with one writer and one reader. */
struct Channel {
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> read;
  uint8_t data[capacity];

  void put(const uint8_t *from, size_t bytes) {
    const size_t at = written % capacity;
    const size_t first = std::min(bytes, capacity - at);
    std::memcpy(data + at, from, first);
    std::memcpy(data, from + first, bytes - first);
    written += bytes;
  }
  void take(uint8_t *to, size_t bytes) {
    const size_t at = read % capacity;
    const size_t first = std::min(bytes, capacity - at);
    std::memcpy(to, data + at, first);
    std::memcpy(to + first, data, bytes - first);
    read += bytes;
  }
};

struct Shared {
  std::atomic<int> joined[mostRanks];
  Channel channels[mostRanks * mostRanks];
};

namespace {

constexpr char magic[8] = {'s', 't', 'a', 'n', 'd', 'i', 'n', '1'};

struct Id {
  char magic[8];
  int32_t process, descriptor;
  int64_t number; /* among those of the process: a descriptor is used again */
};
static_assert(sizeof(Id) <= idBytes);

/** Descriptors of memory that this process made and whose ranks have not all come yet. */
std::mutex madeMutex;
std::vector<Id> made;
int64_t numbersGiven = 0;

struct flock byteOf(int rank) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

/** Looks a few times at once, then lets others run, then sleeps; now and then says that it is time to look at peers. */
class Patience {
 public:
  bool wait() {
    rounds_++;
    if (rounds_ < 64) return false;
    if (rounds_ < 256) std::this_thread::yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
    return rounds_ % 1024 == 0;
  }
  void moved() { rounds_ = 0; }

 private:
  uint64_t rounds_ = 0;
};

/** For tests: NCCL_STAND_IN_DIE=RANK:N kills the process of that RANK in the middle of its Nth operation. */
bool diesNow() {
  static const int64_t at = [] {
    const char *const rank = std::getenv("RANK");
    const char *const die = std::getenv("NCCL_STAND_IN_DIE");
    int victim = 0;
    long operation = 0;
    if (!rank || !die || std::sscanf(die, "%d:%ld", &victim, &operation) != 2 || victim != std::atoi(rank)) return -1L;
    return operation;
  }();
  static std::atomic<int64_t> operations{0};
  return ++operations == at;
}

/** Does what can be done now. @returns whether anything was. */
bool advance(Transfer &transfer) {
  Communicator &own = *transfer.communicator;
  Channel &channel = transfer.sends ? own.channel(own.rank, transfer.peer) : own.channel(transfer.peer, own.rank);
  const uint64_t held = channel.written - channel.read;
  if (!transfer.begun) {
    if (transfer.sends ? held > 0 : held < sizeof(Header)) return false;
    if (transfer.sends) {
      channel.put(reinterpret_cast<const uint8_t *>(&transfer.header), sizeof(Header));
    } else {
      Header theirs;
      channel.take(reinterpret_cast<uint8_t *>(&theirs), sizeof theirs);
      if (theirs != transfer.header) {
        throw Failure{invalidUsage, "Rank " + std::to_string(own.rank) + " expects " + std::to_string(transfer.header.bytes) +
                                        " bytes of rank " + std::to_string(transfer.peer) + " in call " +
                                        std::to_string(transfer.header.kind) + ", which sends " + std::to_string(theirs.bytes) +
                                        " in call " + std::to_string(theirs.kind)};
      }
    }
    transfer.begun = true;
    return true;
  }
  const uint64_t left = transfer.header.bytes - transfer.moved;
  const uint64_t now = std::min(left, transfer.sends ? capacity - held : held);
  if (now > 0) {
    if (transfer.sends) channel.put(transfer.data + transfer.moved, now);
    else channel.take(transfer.data + transfer.moved, now);
    transfer.moved += now;
  }
  transfer.done = transfer.moved == transfer.header.bytes && (!transfer.sends || channel.read == channel.written);
  return now > 0 || transfer.done;
}

/** Counts the operation on its communicators while it is in scope. Two at once on one have no order that all ranks share. */
class Busy {
 public:
  explicit Busy(const std::vector<Transfer> &transfers) {
    for (const Transfer &transfer : transfers) {
      if (std::find(all_.begin(), all_.end(), transfer.communicator) == all_.end()) all_.push_back(transfer.communicator);
    }
    bool alone = true;
    for (Communicator *each : all_) alone = ++each->busy == 1 && alone;
    if (alone) return;
    release();
    throw Failure{invalidUsage, "Two operations of one communicator run at the same time: their streams must wait for each other"};
  }
  ~Busy() { release(); }

 private:
  void release() {
    for (Communicator *each : all_) --each->busy;
    all_.clear();
  }
  std::vector<Communicator *> all_;
};

}  // namespace

void makeId(uint8_t *id) {
  const int file = memfd_create("nccl-stand-in", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) throw Failure{systemError, std::string("memfd_create: ") + std::strerror(errno)};
  Id all{};
  std::memcpy(all.magic, magic, sizeof magic);
  all.process = getpid();
  all.descriptor = file;
  std::lock_guard lock(madeMutex);
  all.number = ++numbersGiven;
  made.push_back(all);
  std::memset(id, 0, idBytes);
  std::memcpy(id, &all, sizeof all);
}

Communicator::Communicator(const uint8_t *id, int ranks, int ownRank) : size(ranks), rank(ownRank) {
  Id given;
  std::memcpy(&given, id, sizeof given);
  if (std::memcmp(given.magic, magic, sizeof magic) != 0) throw Failure{invalidArgument, "The unique id is not one of this library"};
  // A description of its own for each rank: the kernel lets go of its lock when the process ends, however it ends.
  const std::string path = "/proc/" + std::to_string(given.process) + "/fd/" + std::to_string(given.descriptor);
  file_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file_ < 0) throw Failure{systemError, path + ": " + std::strerror(errno)};
  struct flock lock = byteOf(rank);
  void *const mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED || fcntl(file_, F_OFD_SETLK, &lock) != 0) {
    const int reason = errno;
    if (mapped != MAP_FAILED) munmap(mapped, sizeof(Shared));
    close(file_);
    throw Failure{invalidUsage, "Rank " + std::to_string(rank) + " cannot join: " + std::strerror(reason)};
  }
  shared_ = static_cast<Shared *>(mapped);
  shared_->joined[rank] = 1;
  Patience patience;
  for (int peer = 0; peer < size;) {
    if (shared_->joined[peer]) peer++;
    else patience.wait();
  }
  if (given.process == getpid()) {
    std::lock_guard guard(madeMutex);
    const auto found = std::find_if(made.begin(), made.end(), [&](const Id &each) { return each.number == given.number; });
    if (found != made.end()) {
      close(found->descriptor);
      made.erase(found);
    }
  }
}

Communicator::~Communicator() {
  munmap(shared_, sizeof(Shared));
  close(file_);
}

Channel &Communicator::channel(int from, int to) const { return shared_->channels[from * mostRanks + to]; }

bool Communicator::gone(int peer) const {
  struct flock lock = byteOf(peer);
  return peer != rank && fcntl(file_, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

void move(std::vector<Transfer> &transfers) {
  const Busy busy(transfers);
  const bool dies = diesNow();
  Patience patience;
  std::vector<const Transfer *> waiting;
  for (bool done = false; !done;) {
    done = true;
    bool any = false;
    waiting.clear();
    for (Transfer &transfer : transfers) {
      if (transfer.done) continue;
      done = false;
      if (transfer.communicator->aborted) throw Failure{systemError, "The communicator was aborted"};
      // Messages between two ranks keep their order.
      const auto sameLine = [&](const Transfer *other) {
        return other->communicator == transfer.communicator && other->peer == transfer.peer && other->sends == transfer.sends;
      };
      if (std::any_of(waiting.begin(), waiting.end(), sameLine)) continue;
      any = advance(transfer) || any;
      if (!transfer.done) waiting.push_back(&transfer);
      if (dies && transfer.moved > 0) kill(getpid(), SIGKILL);
    }
    if (any) patience.moved();
    else if (!done && patience.wait()) {
      for (const Transfer &transfer : transfers) {
        if (!transfer.done && transfer.communicator->gone(transfer.peer)) transfer.communicator->background = remoteError;
      }
    }
  }
}

}  // namespace standin
