// Sums and gathers over shared memory. Ranks meet by the first row of their signals: one thread stands for a rank here.
#include <vector>

#include "peer/flags.h"
#include "runtime/parallel.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace ditrun {
namespace {

/** A group as this process sees it. */
struct Peers {
  std::vector<uint64_t> blocks, signals;
  int rank, ranks;

  Peers(const char *function, const uint64_t *blockOfRank, const uint64_t *signalsOfRank, int ownRank, int rankCount,
        int64_t alignment)
      : rank(ownRank), ranks(rankCount) {
    require(ranks >= 1 && ranks <= DITRUN_MAX_PEERS && rank >= 0 && rank < ranks, function, ": got rank ", rank, " of ",
            ranks, "; it takes 1 to ", DITRUN_MAX_PEERS, " ranks.");
    require(blockOfRank != nullptr && signalsOfRank != nullptr, function, ": blocks or signals is null.");
    blocks.assign(blockOfRank, blockOfRank + ranks);
    signals.assign(signalsOfRank, signalsOfRank + ranks);
    for (const uint64_t block : blocks) requireAddress(function, "a rank's block", block, alignment);
    for (const uint64_t words : signals) requireAddress(function, "a rank's signals", words, 4);
  }

  /** Waits until every peer has come as far: what each has read or written before is over for the others. */
  void meet(Stream &stream) const {
    uint32_t *const own = pointer<uint32_t>(signals[rank]);
    const uint32_t count = ++own[rank];
    for (int p = 0; p < ranks; p++) {
      if (p != rank)
        std::atomic_ref<uint32_t>(pointer<uint32_t>(signals[p])[rank]).store(count, std::memory_order_release);
    }
    for (int p = 0; p < ranks; p++) {
      // The difference, since counts wrap around.
      if (p != rank)
        waitWord(own[p], stream, [count](uint32_t theirs) { return static_cast<int32_t>(theirs - count) >= 0; });
    }
  }
};

struct Target {
  uint64_t out, base, bias, gate;
  int64_t columns;
  int dtype, biasDtype;
};

/** target[at + i] = base + gate · (Σ_p sources[p][first + i] + bias) for elements [at, at + count) of the target. */
void sumInto(const Target &target, int64_t at, const std::vector<uint64_t> &sources, int sourceDtype, int64_t first,
             int64_t count) {
  const int64_t runs = (count + runLength - 1) / runLength;
  parallelFor(runs, count > parallelWork, [&](int64_t run, int64_t) {
    const int64_t start = run * runLength;
    const int64_t length = std::min(runLength, count - start);
    float total[runLength] = {};
    float other[runLength];
    for (const uint64_t source : sources) {
      const float *const x = readRun(source, sourceDtype, first + start, length, other);
      for (int64_t i = 0; i < length; i++) total[i] += x[i];
    }
    for (int64_t i = 0; i < length && (target.bias != 0 || target.gate != 0); i++) {
      const int64_t column = (at + start + i) % target.columns;
      float bias = 0;
      if (target.bias != 0) copyRun(target.bias, target.biasDtype, column, 1, &bias);
      total[i] += bias;
      if (target.gate != 0) total[i] *= pointer<const float>(target.gate)[column];
    }
    if (target.base != 0) {
      const float *const x = readRun(target.base, target.dtype, at + start, length, other);
      for (int64_t i = 0; i < length; i++) total[i] += x[i];
    }
    writeRun(target.out, target.dtype, at + start, length, total);
  });
}

}  // namespace
}  // namespace ditrun

using namespace ditrun;

int ditrun_peer_sum(const ditrun_peer_sum_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_peer_sum";
    require(args != nullptr, f, ": args is null.");
    requireDtype(f, "dtype", args->dtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "biasDtype", args->biasDtype, DITRUN_F32, DITRUN_BF16);
    requireDtype(f, "sourceDtype", args->sourceDtype, DITRUN_F32, DITRUN_BF16);
    const int64_t first = args->first, count = args->count, total = args->total;
    require(first >= 0 && count >= 0 && first + count <= total, f, ": elements ", first, " to ", first + count,
            " do not lie in blocks of ", total, ".");
    if (count > 0) requireAddress(f, "out", args->out, dtypeBytes(args->dtype));
    requireOptional(f, "base", args->base, dtypeBytes(args->dtype));
    requireOptional(f, "bias", args->bias, dtypeBytes(args->biasDtype));
    requireOptional(f, "gate", args->gate, 4);
    const bool hasColumns = args->bias != 0 || args->gate != 0;
    require(!hasColumns || (args->columns > 0 && count % args->columns == 0), f, ": ", count,
            " elements are no whole rows of ", args->columns, " columns, which the bias or the gate has.");
    require(args->shots == 1 || args->shots == 2, f, ": shots is ", args->shots, " but must be 1 or 2.");
    require(
        args->shots == 1 || (first == 0 && count == total && (!hasColumns || args->columns % DITRUN_SHARE_UNIT == 0)),
        f, ": two shots take whole blocks and columns of whole units of ", DITRUN_SHARE_UNIT, "; got elements ", first,
        " to ", first + count, " of ", total, " and ", args->columns, " columns.");
    const Peers peers(f, args->blocks, args->signals, args->rank, args->ranks, dtypeBytes(args->sourceDtype));
    const Target target{args->out, args->base, args->bias, args->gate, args->columns, args->dtype, args->biasDtype};
    submit(f, stream, [=, sourceDtype = args->sourceDtype, shots = args->shots](Stream &on) {
      peers.meet(on);
      int64_t summed = 0;
      if (shots == 2) {
        const int64_t units = total / DITRUN_SHARE_UNIT;
        const auto startOf = [&](int rank) { return units * rank / peers.ranks * DITRUN_SHARE_UNIT; };
        const Target own{peers.blocks[peers.rank], 0, 0, 0, 1, sourceDtype, sourceDtype};
        sumInto(own, startOf(peers.rank), peers.blocks, sourceDtype, startOf(peers.rank),
                startOf(peers.rank + 1) - startOf(peers.rank));
        peers.meet(on);
        for (int p = 0; p < peers.ranks; p++) {
          sumInto(target, startOf(p), {peers.blocks[p]}, sourceDtype, startOf(p), startOf(p + 1) - startOf(p));
        }
        summed = units * DITRUN_SHARE_UNIT;
      }
      if (count > summed) sumInto(target, summed, peers.blocks, sourceDtype, first + summed, count - summed);
      peers.meet(on);
    });
  });
}

int ditrun_peer_gather(uint64_t out, const uint64_t *blocks, const int64_t *bytes, const uint64_t *signals, int rank,
                       int ranks, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_peer_gather";
    const Peers peers(f, blocks, signals, rank, ranks, 1);
    require(out != 0 && bytes != nullptr, f, ": out is ", out, " or bytes is null.");
    const std::vector<int64_t> lengths(bytes, bytes + ranks);
    for (const int64_t length : lengths) require(length >= 0, f, ": got a rank with ", length, " bytes.");
    submit(f, stream, [=](Stream &on) {
      peers.meet(on);
      char *to = pointer<char>(out);
      for (int p = 0; p < peers.ranks; p++) {
        std::memcpy(to, pointer<const char>(peers.blocks[p]), static_cast<size_t>(lengths[p]));
        to += lengths[p];
      }
      peers.meet(on);
    });
  });
}
