#include "tcp/transfer.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>

namespace ditrun {
namespace {

/** Bytes that one call moves at most, so that all directions get their turns. */
constexpr size_t turnBytes = 1 << 20;
constexpr int lookMilliseconds = 100;
/** Repetitions and probes in a row that nobody has answered, after which a host counts as lost: 6 to 8 s on a fast
 * network. */
constexpr int mostUnanswered = 5;

/** The messages from this rank to a peer or from it, in order. */
class Line {
 public:
  Line(const Communicator &communicator, int peer, bool sends)
      : communicator_(communicator), peer_(peer), sends_(sends) {}

  void add(const Transfer &transfer) { messages_.push_back({transfer, sends_ ? transfer.header : Header{}}); }
  bool done() const { return first_ == messages_.size(); }
  int peer() const { return peer_; }
  short events() const { return sends_ ? POLLOUT : POLLIN; }
  int descriptor() const { return communicator_.socketOf(peer_).descriptor(); }

  /** Moves what can be moved without waiting. */
  void step() {
    std::array<iovec, 32> parts;
    size_t count = 0, total = 0;
    for (size_t i = first_; i < messages_.size() && count + 2 <= parts.size() && total < turnBytes; i++) {
      auto &[transfer, header] = messages_[i];
      const uint64_t skip = i == first_ ? moved_ : 0;
      const uint64_t ofHeader = std::min<uint64_t>(skip, sizeof(Header));
      const auto add = [&](uint8_t *from, uint64_t bytes) {
        const size_t taken = std::min<uint64_t>(bytes, turnBytes - std::min(total, turnBytes));
        if (taken == 0) return;
        parts[count++] = {from, taken};
        total += taken;
      };
      add(reinterpret_cast<uint8_t *>(&header) + ofHeader, sizeof(Header) - ofHeader);
      add(transfer.data + (skip - ofHeader), transfer.header.bytes - (skip - ofHeader));
    }
    msghdr all{};
    all.msg_iov = parts.data();
    all.msg_iovlen = count;
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const ssize_t now = sends_ ? sendmsg(descriptor(), &all, flags) : recvmsg(descriptor(), &all, flags);
    if (now < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (now < 0) gone(std::strerror(errno));
    if (now == 0) gone("its process has ended or has left the group");
    account(uint64_t(now));
  }

  /** Throws where what was sent has not been answered for long. */
  void checkAlive() const {
    tcp_info info{};
    socklen_t length = sizeof info;
    if (getsockopt(descriptor(), IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return;
    // The system of a process that is stopped answers both.
    const bool repeats = info.tcpi_unacked > 0 && info.tcpi_retransmits >= mostUnanswered;
    if (repeats || info.tcpi_probes >= mostUnanswered) gone("its host does not answer any more");
  }

 private:
  struct Message {
    Transfer transfer;
    Header header;  // that is sent, or that has come
  };

  void account(uint64_t bytes) {
    while (bytes > 0) {
      const auto &[transfer, header] = messages_[first_];
      const uint64_t whole = sizeof(Header) + transfer.header.bytes;
      const uint64_t taken = std::min(bytes, whole - moved_);
      const bool headerIsHere = moved_ < sizeof(Header) && moved_ + taken >= sizeof(Header);
      if (headerIsHere && header != transfer.header) disagree(transfer.header, header);
      moved_ += taken;
      bytes -= taken;
      if (moved_ < whole) return;
      moved_ = 0;
      first_++;
    }
  }

  [[noreturn]] void gone(const std::string &why) const {
    throw Failure(DITRUN_PEER_ERROR, sentence(communicator_.nameOf(peer_), " is gone: ", why, "."));
  }

  [[noreturn]] void disagree(const Header &expected, const Header &found) const {
    refuse("Rank ", communicator_.rank, " expects ", expected.bytes, " bytes of rank ", peer_, " in call ",
           uint32_t(expected.call), ", but it sends ", found.bytes, " bytes in call ", uint32_t(found.call),
           ": the two do not run the same program.");
  }

  const Communicator &communicator_;
  int peer_;
  bool sends_;
  std::vector<Message> messages_;
  size_t first_ = 0;
  /** Of the first message, its header counted. */
  uint64_t moved_ = 0;
};

/** What a rank sends itself is copied. */
void moveOwn(const std::vector<Transfer> &transfers, int rank) {
  std::vector<const Transfer *> sent, received;
  for (const Transfer &transfer : transfers) {
    if (transfer.peer == rank) (transfer.sends ? sent : received).push_back(&transfer);
  }
  const bool paired = std::equal(sent.begin(), sent.end(), received.begin(), received.end(),
                                 [](const auto *one, const auto *other) { return one->header == other->header; });
  require(paired, "Rank ", rank, " does not receive what it sends itself.");
  for (size_t i = 0; i < sent.size(); i++) std::memmove(received[i]->data, sent[i]->data, sent[i]->header.bytes);
}

void moveLines(const Communicator &communicator, std::deque<Line> &lines, const Stream &stream) {
  std::vector<pollfd> wanted;
  std::vector<Line *> waiting;
  for (auto looked = std::chrono::steady_clock::now();;) {
    wanted.assign(1, {communicator.alarm().descriptor(), POLLIN, 0});
    waiting.clear();
    for (Line &line : lines) {
      if (line.done()) continue;
      wanted.push_back({line.descriptor(), line.events(), 0});
      waiting.push_back(&line);
    }
    if (waiting.empty()) return;
    if (poll(wanted.data(), wanted.size(), lookMilliseconds) < 0 && errno != EINTR) {
      throw Failure(DITRUN_DEVICE_ERROR, sentence("poll failed: ", std::strerror(errno), "."));
    }
    if (wanted[0].revents != 0) throw Failure(DITRUN_PEER_ERROR, "The communicator was aborted.");
    if (stream.stop().load(std::memory_order_relaxed)) throw Stopped{};
    for (size_t i = 0; i < waiting.size(); i++) {
      if (wanted[i + 1].revents != 0) waiting[i]->step();
    }
    const auto now = std::chrono::steady_clock::now();
    if (now - looked < std::chrono::seconds(1)) continue;
    looked = now;
    for (const Line *line : waiting) line->checkAlive();
  }
}

}  // namespace

void move(Communicator &communicator, const std::vector<Transfer> &transfers, const Stream &stream) {
  const auto operation = communicator.begin();
  const auto mark = [&communicator](const Failure &failure) { communicator.failed(failure); };
  try {
    moveOwn(transfers, communicator.rank);
    std::deque<Line> lines;
    for (const Transfer &transfer : transfers) {
      const int peer = transfer.peer;
      require(peer >= 0 && peer < communicator.size, "A group of ", communicator.size, " has no rank ", peer, ".");
      if (peer == communicator.rank) continue;
      const short events = transfer.sends ? POLLOUT : POLLIN;
      const auto same = [&](const Line &line) { return line.peer() == peer && line.events() == events; };
      auto line = std::find_if(lines.begin(), lines.end(), same);
      if (line == lines.end()) lines.emplace_back(communicator, peer, transfer.sends).add(transfer);
      else line->add(transfer);
    }
    moveLines(communicator, lines, stream);
  } catch (const Failure &failure) {
    mark(failure);
    throw;
  } catch (const Stopped &) {
    mark(Failure(DITRUN_PEER_ERROR, "A stream was destroyed in the middle of a message."));
    throw;
  }
}

}  // namespace ditrun
