// Sums and gathers over peer memory: one launch in which the ranks meet, read each other's blocks over NVLink, and meet
// again.
//
// Block b of a launch meets only block b of each peer, through words of its own, so no block waits for another of its
// own grid, and grids that are larger than what is resident still end: blocks start in the order of their index, so the
// lowest one not done runs on every rank. A rank may be one meeting ahead of another at most, for it cannot pass the
// next one alone.
#include <algorithm>

#include "runtime/device.h"
#include "runtime/numbers.cuh"
#include "ptx/fence.cuh"

static_assert(vectorWidth == DITRUN_SHARE_UNIT);

constexpr int peerThreads = 512;
/** 16-byte loads from peers that a thread has on the way at a time. */
constexpr int loadsInFlight = 4;

namespace {

/** A group as this process sees it. */
struct Peers {
  uint32_t *signals[DITRUN_MAX_PEERS];
  void *blocks[DITRUN_MAX_PEERS];
  int rank, ranks;
};

/** How many meetings this block has been at: its own word of its own signals, which no peer writes. */
__device__ uint32_t *countOf(const Peers &peers) {
  return peers.signals[peers.rank] + blockIdx.x * peers.ranks + peers.rank;
}

/**
 * Waits until this block of every peer has come as far. What the block's threads have read or written is then over for
 * the peers, and the other way round. Every thread of the block calls it, with its own copy of the count.
 */
__device__ void meet(const Peers &peers, uint32_t &count) {
  count++;
  __syncthreads();
  const int peer = threadIdx.x;
  if (peer < peers.ranks && peer != peers.rank) {
    const int word = blockIdx.x * peers.ranks;
    ptx::storeReleaseSystem(peers.signals[peer] + word + peers.rank, count);
    const uint32_t *theirs = peers.signals[peers.rank] + word + peer;
    // The difference, since counts wrap around. Processes that share a GPU take turns on it: then it may be a long
    // wait.
    for (int looks = 0; int32_t(ptx::loadAcquireSystem(theirs) - count) < 0; looks++)
      if (looks > 4096) __nanosleep(500);
  }
  __syncthreads();
}

/** 8 elements past the first-level cache, where a peer's earlier values might linger. */
__device__ Packed loadPeer(const void *block, int64_t index, bool isBf16) {
  Packed packed;
  const char *address = static_cast<const char *>(block) + index * (isBf16 ? 2 : 4);
  packed.low = __ldcg(reinterpret_cast<const uint4 *>(address));
  packed.high = isBf16 ? make_uint4(0, 0, 0, 0) : __ldcg(reinterpret_cast<const uint4 *>(address) + 1);
  return packed;
}

__device__ void addTo(float (&total)[vectorWidth], const Packed &packed, bool isBf16) {
  float values[vectorWidth];
  unpack(packed, isBf16, values);
#pragma unroll
  for (int j = 0; j < vectorWidth; j++) total[j] += values[j];
}

/** out = base + gate · (what is summed + bias). */
struct Target {
  void *out;
  const void *base, *bias;
  const float *gate;
  int columns;
  bool isBf16, biasBf16;

  __device__ Packed loadBase(int64_t index) const { return base ? loadPacked(base, index, isBf16) : Packed{}; }

  __device__ void store(int64_t index, float (&total)[vectorWidth], const Packed &packedBase) const {
    float values[vectorWidth];
    const int64_t column = bias || gate ? index % columns : 0;
    if (bias) {
      load8(bias, column, biasBf16, values);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) total[j] += values[j];
    }
    if (gate) {
      load8(gate, column, false, values);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) total[j] *= values[j];
    }
    if (base) addTo(total, packedBase, isBf16);
    store8(out, index, isBf16, total);
  }
};

/** target[i] = Σ_p blocks[p][first + i] for whole vectors, `width` ranks' loads on the way at a time, of several
 * vectors. */
template <int width, bool sourcesBf16>
__device__ void sumVectors(const Peers &peers, const Target &target, int64_t first, int64_t vectors) {
  constexpr int loads = width * (sourcesBf16 ? 1 : 2), unroll = loads < loadsInFlight ? loadsInFlight / loads : 1;
  const int64_t threads = int64_t(gridDim.x) * peerThreads;
  for (int64_t start = int64_t(blockIdx.x) * peerThreads + threadIdx.x; start < vectors; start += unroll * threads) {
    float total[unroll][vectorWidth] = {};
    Packed base[unroll];
    for (int group = 0; group < peers.ranks; group += width) {
      Packed held[unroll][width];
#pragma unroll
      for (int u = 0; u < unroll; u++) {
        if (start + u * threads >= vectors) continue;
#pragma unroll
        for (int p = 0; p < width; p++)
          if (group + p < peers.ranks)
            held[u][p] = loadPeer(peers.blocks[group + p], first + (start + u * threads) * vectorWidth, sourcesBf16);
        if (group == 0) base[u] = target.loadBase((start + u * threads) * vectorWidth);
      }
#pragma unroll
      for (int u = 0; u < unroll; u++)
#pragma unroll
        for (int p = 0; p < width; p++)
          if (start + u * threads < vectors && group + p < peers.ranks) addTo(total[u], held[u][p], sourcesBf16);
    }
#pragma unroll
    for (int u = 0; u < unroll; u++)
      if (start + u * threads < vectors) target.store((start + u * threads) * vectorWidth, total[u], base[u]);
  }
}

/**
 * target[i] = every share's sum, from the rank that made it; position by position of all shares, so that what is read
 * from peers and what is read and written here are on the way together. firstOf[p] is the first vector of rank p's
 * share.
 */
template <int width, bool sourcesBf16>
__device__ void readShares(const Peers &peers, const Target &target, const int64_t *firstOf) {
  // the base comes as well
  constexpr int loads = width * (sourcesBf16 ? 2 : 4), unroll = loads < loadsInFlight ? loadsInFlight / loads : 1;
  const int64_t threads = int64_t(gridDim.x) * peerThreads,
                longest = (firstOf[peers.ranks] + peers.ranks - 1) / peers.ranks;
  // Position i of a share is this block's in both shots: the meeting between them was between blocks of this index
  // only.
  for (int64_t start = int64_t(blockIdx.x) * peerThreads + threadIdx.x; start < longest; start += unroll * threads) {
    for (int group = 0; group < peers.ranks; group += width) {
      Packed held[unroll][width], base[unroll][width];
      const auto vectorOf = [&](int u, int p) { return firstOf[group + p] + start + u * threads; };
      const auto exists = [&](int u, int p) {
        return group + p < peers.ranks && vectorOf(u, p) < firstOf[group + p + 1];
      };
#pragma unroll
      for (int u = 0; u < unroll; u++)
#pragma unroll
        for (int p = 0; p < width; p++) {
          if (!exists(u, p)) continue;
          held[u][p] = loadPeer(peers.blocks[group + p], vectorOf(u, p) * vectorWidth, sourcesBf16);
          base[u][p] = target.loadBase(vectorOf(u, p) * vectorWidth);
        }
#pragma unroll
      for (int u = 0; u < unroll; u++)
#pragma unroll
        for (int p = 0; p < width; p++) {
          if (!exists(u, p)) continue;
          float total[vectorWidth];
          unpack(held[u][p], sourcesBf16, total);
          target.store(vectorOf(u, p) * vectorWidth, total, base[u][p]);
        }
    }
  }
}

template <int width, bool sourcesBf16>
__global__ void __launch_bounds__(peerThreads, 1)
    peerSum(const __grid_constant__ Peers peers, const __grid_constant__ Target target, int64_t first, int64_t count,
            int64_t vectors, int shots) {
  __shared__ int64_t firstOf[DITRUN_MAX_PEERS + 1];  // each rank's share of the vectors
  if (threadIdx.x <= peers.ranks) firstOf[threadIdx.x] = vectors * threadIdx.x / peers.ranks;
  uint32_t *const counter = countOf(peers);
  uint32_t meetings = *counter;
  meet(peers, meetings);
  if (shots == 1) {
    sumVectors<width, sourcesBf16>(peers, target, first, vectors);
  } else {
    const int64_t shareFirst = firstOf[peers.rank] * vectorWidth;
    const Target own{static_cast<char *>(peers.blocks[peers.rank]) + shareFirst * (sourcesBf16 ? 2 : 4),
                     nullptr,
                     nullptr,
                     nullptr,
                     1,
                     sourcesBf16,
                     false};
    sumVectors<width, sourcesBf16>(peers, own, shareFirst, firstOf[peers.rank + 1] - firstOf[peers.rank]);
    meet(peers, meetings);
    readShares<(width < 4 ? width : 4), sourcesBf16>(peers, target, firstOf);
  }
  const int dtype = target.isBf16 ? DITRUN_BF16 : DITRUN_F32, sourceDtype = sourcesBf16 ? DITRUN_BF16 : DITRUN_F32;
  for (int64_t i = vectors * vectorWidth + int64_t(blockIdx.x) * peerThreads + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * peerThreads) {
    float value = 0.0f;
    for (int p = 0; p < peers.ranks; p++) value += loadOne(peers.blocks[p], first + i, sourceDtype);
    if (target.bias) value += loadOne(target.bias, i % target.columns, target.biasBf16 ? DITRUN_BF16 : DITRUN_F32);
    if (target.gate) value *= target.gate[i % target.columns];
    if (target.base) value += loadOne(target.base, i, dtype);
    storeOne(target.out, i, dtype, value);
  }
  meet(peers, meetings);
  if (threadIdx.x == 0) *counter = meetings;
}

/** Where each rank's bytes begin in what is gathered; the last one is the end. */
struct Extents {
  int64_t start[DITRUN_MAX_PEERS + 1];
};

/** Position by position of all parts, so that this rank's own, which takes no link, is copied beside those that come
 * over the links. */
template <class Word, int width>
__global__ void __launch_bounds__(peerThreads) peerGather(char *out, const __grid_constant__ Peers peers,
                                                          const __grid_constant__ Extents extents, int64_t longest) {
  constexpr int unroll = loadsInFlight / width;
  uint32_t *const counter = countOf(peers);
  uint32_t meetings = *counter;
  meet(peers, meetings);
  const int64_t threads = int64_t(gridDim.x) * peerThreads;
  for (int64_t start = int64_t(blockIdx.x) * peerThreads + threadIdx.x; start < longest; start += unroll * threads) {
    for (int group = 0; group < peers.ranks; group += width) {
      Word held[unroll][width];
      const auto exists = [&](int u, int p) {
        return group + p < peers.ranks &&
               (start + u * threads) * int64_t(sizeof(Word)) < extents.start[group + p + 1] - extents.start[group + p];
      };
#pragma unroll
      for (int u = 0; u < unroll; u++)
#pragma unroll
        for (int p = 0; p < width; p++)
          if (exists(u, p))
            held[u][p] = __ldcg(static_cast<const Word *>(peers.blocks[group + p]) + start + u * threads);
#pragma unroll
      for (int u = 0; u < unroll; u++)
#pragma unroll
        for (int p = 0; p < width; p++)
          if (exists(u, p)) reinterpret_cast<Word *>(out + extents.start[group + p])[start + u * threads] = held[u][p];
    }
  }
  meet(peers, meetings);
  if (threadIdx.x == 0) *counter = meetings;
}

template <class Word>
constexpr auto gatherFor(int ranks) {
  return ranks <= 2 ? peerGather<Word, 2> : peerGather<Word, 4>;
}

int checkPeers(const char *what, const uint64_t *blocks, const uint64_t *signals, int rank, int ranks,
               int blockAlignment, Peers *peers) {
  if (ranks < 1 || ranks > DITRUN_MAX_PEERS || rank < 0 || rank >= ranks)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got rank %d of %d: it takes 1 to %d ranks.", what, rank, ranks,
                DITRUN_MAX_PEERS);
  if (!blocks || !signals) return fail(DITRUN_INVALID_ARGUMENT, "%s got no list of blocks or of signals.", what);
  peers->rank = rank;
  peers->ranks = ranks;
  for (int p = 0; p < ranks; p++) {
    if (signals[p] == 0 || signals[p] % 4 != 0)
      return fail(DITRUN_INVALID_ARGUMENT,
                  "%s: the signals of rank %d have the address 0x%llx, which is no 32-bit word.", what, p,
                  (unsigned long long)signals[p]);
    if (blocks[p] == 0 || blocks[p] % blockAlignment != 0)
      return fail(DITRUN_INVALID_ARGUMENT,
                  "%s: the block of rank %d has the address 0x%llx, which is not a multiple of %d.", what, p,
                  (unsigned long long)blocks[p], blockAlignment);
    peers->signals[p] = asPointer<uint32_t>(signals[p]);
    peers->blocks[p] = asPointer<void>(blocks[p]);
  }
  return DITRUN_OK;
}

/** The same on every rank, since blocks meet by their index: from what all of them know. */
int peerGrid(int64_t vectors) {
  return int(std::clamp<int64_t>((vectors + peerThreads - 1) / peerThreads, 1, DITRUN_PEER_BLOCKS));
}

int checkSum(const ditrun_peer_sum_args &args) {
  const char *const what = "ditrun_peer_sum";
  if (!isFloat(args.dtype) || !isFloat(args.sourceDtype) || !isFloat(args.biasDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, not %s from %s with a bias of %s.", what,
                dtypeName(args.dtype), dtypeName(args.sourceDtype), dtypeName(args.biasDtype));
  if (args.first < 0 || args.count < 0 || args.first + args.count > args.total)
    return fail(DITRUN_INVALID_ARGUMENT, "%s: elements %lld to %lld do not lie in blocks of %lld.", what,
                (long long)args.first, (long long)(args.first + args.count), (long long)args.total);
  if (args.count > 0 && (!args.out || (args.out | args.base) % dtypeBytes(args.dtype) != 0 ||
                         args.bias % dtypeBytes(args.biasDtype) != 0))
    return fail(DITRUN_INVALID_ARGUMENT, "%s got out 0x%llx, base 0x%llx and bias 0x%llx for elements of %s.", what,
                (unsigned long long)args.out, (unsigned long long)args.base, (unsigned long long)args.bias,
                dtypeName(args.dtype));
  if (args.gate % 4 != 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got the gate 0x%llx, which is not float32.", what,
                (unsigned long long)args.gate);
  if ((args.bias || args.gate) && (args.columns <= 0 || args.count % args.columns != 0))
    return fail(DITRUN_INVALID_ARGUMENT, "%s got a bias or a gate of %d columns for %lld elements.", what, args.columns,
                (long long)args.count);
  if (args.shots != 1 && args.shots != 2)
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes 1 or 2 shots, not %d.", what, args.shots);
  return DITRUN_OK;
}

}  // namespace

int ditrun_peer_sum(const ditrun_peer_sum_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_sum got no arguments.");
  TRY(checkSum(*args));
  Peers peers{};
  TRY(checkPeers("ditrun_peer_sum", args->blocks, args->signals, args->rank, args->ranks, dtypeBytes(args->sourceDtype),
                 &peers));
  bool vectorized = aligned16(args->out) && aligned16(args->base) && aligned16(args->bias) && aligned16(args->gate) &&
                    args->first % vectorWidth == 0 &&
                    ((!args->bias && !args->gate) || args->columns % vectorWidth == 0);
  for (int p = 0; p < args->ranks; p++) vectorized = vectorized && aligned16(args->blocks[p]);
  if (args->shots == 2 && (!vectorized || args->first != 0 || args->count != args->total))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_peer_sum: two shots take the whole of blocks that start, like out, base, bias and gate, at "
                "multiples of 16 bytes, and columns of whole units of %d; "
                "got elements %lld to %lld of %lld and %d columns.",
                vectorWidth, (long long)args->first, (long long)(args->first + args->count), (long long)args->total,
                args->columns);
  const bool sourcesBf16 = args->sourceDtype == DITRUN_BF16;
  const auto kernel = args->ranks <= 2   ? sourcesBf16 ? peerSum<2, true> : peerSum<2, false>
                        : args->ranks <= 4 ? sourcesBf16 ? peerSum<4, true> : peerSum<4, false>
                        : sourcesBf16 ? peerSum<8, true>
                                         : peerSum<8, false>;
  const Target target{asPointer<void>(args->out),
                      asPointer<void>(args->base),
                      asPointer<void>(args->bias),
                      asPointer<float>(args->gate),
                      args->columns,
                      args->dtype == DITRUN_BF16,
                      args->biasDtype == DITRUN_BF16};
  const int grid = peerGrid(args->total / vectorWidth / (args->shots == 2 ? args->ranks : 1));
  kernel<<<grid, peerThreads, 0, asStream(stream)>>>(peers, target, args->first, args->count,
                                                     vectorized ? args->count / vectorWidth : 0, args->shots);
  return launched("ditrun_peer_sum");
}

int ditrun_peer_gather(uint64_t out, const uint64_t *blocks, const int64_t *bytes, const uint64_t *signals, int rank,
                       int ranks, uint64_t stream) {
  TRY(useDevice());
  Peers peers{};
  TRY(checkPeers("ditrun_peer_gather", blocks, signals, rank, ranks, 1, &peers));
  if (!out || !bytes)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_gather got out 0x%llx and the list of bytes %p.",
                (unsigned long long)out, (const void *)bytes);
  Extents extents{};
  int64_t longest = 0;
  uint64_t bits = out;  // of every address and length, to see what they are multiples of
  for (int p = 0; p < ranks; p++) {
    if (bytes[p] < 0)
      return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_gather got %lld bytes of rank %d.", (long long)bytes[p], p);
    extents.start[p + 1] = extents.start[p] + bytes[p];
    longest = std::max(longest, bytes[p]);
    bits |= blocks[p] | uint64_t(bytes[p]);
  }
  const int word = bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : 1;
  const auto kernel = word == 16  ? gatherFor<uint4>(ranks)
                      : word == 4 ? gatherFor<uint32_t>(ranks)
                                  : gatherFor<uint8_t>(ranks);
  kernel<<<peerGrid(longest / 16), peerThreads, 0, asStream(stream)>>>(asPointer<char>(out), peers, extents,
                                                                       longest / word);
  return launched("ditrun_peer_gather");
}
