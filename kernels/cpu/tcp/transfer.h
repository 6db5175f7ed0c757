// Messages between the ranks of a communicator, all directions at once.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/stream.h"
#include "tcp/communicator.h"

namespace ditrun {

/** What both sides of a message must agree on. NCCL itself would hang or mix up memory where they do not. */
enum class Call : uint32_t { message = 1, reduce = 2, gather = 3 };
struct Header {
  uint32_t magic = 0x31525444;  // "DTR1"
  Call call = Call::message;
  uint64_t bytes = 0;
  bool operator==(const Header &) const = default;
};
static_assert(sizeof(Header) == 16);

/** One side of one message. */
struct Transfer {
  int peer;
  bool sends;
  uint8_t *data;
  Header header;
};

/**
 * Moves all messages, those between two ranks in the order given, and returns once what is sent may be overwritten and
 * what is received is there. Throws DITRUN_PEER_ERROR where a rank is gone, DITRUN_INVALID_ARGUMENT where two ranks
 * disagree, and Stopped where the stream ends; the communicator is then of no more use.
 */
void move(Communicator &communicator, const std::vector<Transfer> &transfers, const Stream &stream);

}  // namespace ditrun
