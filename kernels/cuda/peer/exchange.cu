// Rows between neighbours in one launch: each block pushes its part of the rows into a slot of the neighbour's memory,
// signals the neighbour's block of the same index, and moves what that block has pushed here into place. Blocks wait
// for no block of their own grid (peer/peer_sum.cu says why that matters).
#include <algorithm>

#include "runtime/device.h"
#include "ptx/fence.cuh"

namespace {

constexpr int exchangeThreads = 512;

struct Exchange {
  ditrun_neighbour neighbours[DITRUN_MAX_NEIGHBOURS];
  int64_t pitch;
  int wordsOfRow, words;  // words: of all rows
  int neighbourCount;
};

/** Word `index` of rows that are `pitch` bytes apart. */
template <class Word>
__device__ Word *inRows(uint64_t rows, const Exchange &exchange, int index) {
  return asPointer<Word>(rows + index / exchange.wordsOfRow * exchange.pitch) + index % exchange.wordsOfRow;
}

/** copy(index) for this thread's words, which are its block's on both sides. */
template <class Copy>
__device__ void forOwnWords(int words, Copy copy) {
  const int threads = gridDim.x * exchangeThreads;
  for (int index = blockIdx.x * exchangeThreads + threadIdx.x; index < words; index += threads) copy(index);
}

template <class Word>
__global__ void __launch_bounds__(exchangeThreads) exchangeRows(const __grid_constant__ Exchange exchange) {
  uint32_t counts[DITRUN_MAX_NEIGHBOURS];  // of the calls with this neighbour, this one included
#pragma unroll
  for (int n = 0; n < DITRUN_MAX_NEIGHBOURS; n++) {
    if (n >= exchange.neighbourCount) continue;
    const ditrun_neighbour &neighbour = exchange.neighbours[n];
    counts[n] = asPointer<uint32_t>(neighbour.ownSignals)[DITRUN_PEER_BLOCKS + blockIdx.x] + 1;
    Word *slot = asPointer<Word>(counts[n] % 2 ? neighbour.theirOdd : neighbour.theirEven);
    forOwnWords(exchange.words, [&](int index) { slot[index] = *inRows<Word>(neighbour.send, exchange, index); });
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < DITRUN_MAX_NEIGHBOURS; n++) {
    if (n >= exchange.neighbourCount || threadIdx.x != n) continue;
    const ditrun_neighbour &neighbour = exchange.neighbours[n];
    uint32_t *const own = asPointer<uint32_t>(neighbour.ownSignals) + blockIdx.x;
    ptx::storeReleaseSystem(asPointer<uint32_t>(neighbour.theirSignals) + blockIdx.x, counts[n]);
    // The difference, since counts wrap around. Processes that share a GPU take turns on it: then it may be a long
    // wait.
    for (int looks = 0; int32_t(ptx::loadAcquireSystem(own) - counts[n]) < 0; looks++)
      if (looks > 4096) __nanosleep(500);
    own[DITRUN_PEER_BLOCKS] = counts[n];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < DITRUN_MAX_NEIGHBOURS; n++) {
    if (n >= exchange.neighbourCount) continue;
    const ditrun_neighbour &neighbour = exchange.neighbours[n];
    const Word *slot = asPointer<Word>(counts[n] % 2 ? neighbour.ownOdd : neighbour.ownEven);
    forOwnWords(exchange.words,
                [&](int index) { *inRows<Word>(neighbour.receive, exchange, index) = __ldcg(slot + index); });
  }
}

}  // namespace

int ditrun_peer_exchange(const ditrun_peer_exchange_args *args, uint64_t stream) {
  TRY(useDevice());
  if (!args || (args->neighbourCount > 0 && !args->neighbours))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_exchange got no arguments or no neighbours.");
  const int64_t bytes = args->rows * args->rowBytes;
  if (args->neighbourCount < 0 || args->neighbourCount > DITRUN_MAX_NEIGHBOURS)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_exchange takes 0 to %d neighbours, not %d.",
                DITRUN_MAX_NEIGHBOURS, args->neighbourCount);
  if (args->rows < 0 || args->rowBytes < 0 || bytes > INT32_MAX || (args->rows > 1 && args->pitch < args->rowBytes))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_peer_exchange got %d rows of %lld bytes, %lld apart (2 GiB at most).",
                args->rows, (long long)args->rowBytes, (long long)args->pitch);
  if (args->neighbourCount == 0 || bytes == 0) return DITRUN_OK;
  // From what both sides of a pair know, since a block moves on what the other side's block of its index has pushed.
  const int word = args->rowBytes % 16 == 0 ? 16 : args->rowBytes % 4 == 0 ? 4 : 1;
  Exchange exchange{};
  for (int n = 0; n < args->neighbourCount; n++) {
    const ditrun_neighbour &neighbour = args->neighbours[n];
    for (const uint64_t address : {neighbour.send, neighbour.receive, neighbour.theirEven, neighbour.theirOdd,
                                   neighbour.ownEven, neighbour.ownOdd})
      if (address == 0 || (address | args->pitch) % word != 0)
        return fail(DITRUN_INVALID_ARGUMENT,
                    "ditrun_peer_exchange: the address 0x%llx of neighbour %d or the pitch %lld is no multiple of %d, "
                    "as %lld bytes a row need.",
                    (unsigned long long)address, n, (long long)args->pitch, word, (long long)args->rowBytes);
    if (!neighbour.theirSignals || !neighbour.ownSignals || (neighbour.theirSignals | neighbour.ownSignals) % 4 != 0)
      return fail(DITRUN_INVALID_ARGUMENT,
                  "ditrun_peer_exchange: the signals of neighbour %d have the addresses 0x%llx and 0x%llx, which are "
                  "no 32-bit words.",
                  n, (unsigned long long)neighbour.theirSignals, (unsigned long long)neighbour.ownSignals);
    exchange.neighbours[n] = neighbour;
  }
  exchange.pitch = args->pitch;
  exchange.wordsOfRow = int(args->rowBytes / word);
  exchange.words = int(bytes / word);
  exchange.neighbourCount = args->neighbourCount;
  const int grid =
      int(std::clamp<int64_t>((bytes / 16 + exchangeThreads - 1) / exchangeThreads, 1, DITRUN_PEER_BLOCKS));
  const auto kernel = word == 16 ? exchangeRows<uint4> : word == 4 ? exchangeRows<uint32_t> : exchangeRows<uint8_t>;
  kernel<<<grid, exchangeThreads, 0, asStream(stream)>>>(exchange);
  return launched("ditrun_peer_exchange");
}
