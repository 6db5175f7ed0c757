// Rows between neighbours over shared memory, with the first word of each row of signals: one thread stands for a rank
// here.
#include <vector>

#include "peer/flags.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

using namespace ditrun;

int ditrun_peer_exchange(const ditrun_peer_exchange_args *args, uint64_t stream) {
  return guarded([&] {
    const char *const f = "ditrun_peer_exchange";
    require(args != nullptr && (args->neighbourCount <= 0 || args->neighbours != nullptr), f,
            ": args or neighbours is null.");
    require(args->neighbourCount >= 0 && args->neighbourCount <= DITRUN_MAX_NEIGHBOURS, f, ": neighbourCount is ",
            args->neighbourCount, " but may be 0 to ", DITRUN_MAX_NEIGHBOURS, ".");
    require(args->rows >= 0 && args->rowBytes >= 0, f, ": got ", args->rows, " rows of ", args->rowBytes, " bytes.");
    require(args->rows <= 1 || args->pitch >= args->rowBytes, f, ": the rows are ", args->pitch, " bytes apart but ",
            args->rowBytes, " long.");
    if (args->neighbourCount == 0 || args->rows == 0 || args->rowBytes == 0) return;
    const std::vector<ditrun_neighbour> neighbours(args->neighbours, args->neighbours + args->neighbourCount);
    const int64_t word = args->rowBytes % 16 == 0 ? 16 : args->rowBytes % 4 == 0 ? 4 : 1;
    require(args->pitch % word == 0, f, ": the rows are ", args->pitch, " bytes apart, which is no multiple of ", word,
            ", as ", args->rowBytes, " bytes a row need.");
    for (const ditrun_neighbour &neighbour : neighbours) {
      for (const uint64_t address : {neighbour.send, neighbour.receive, neighbour.theirEven, neighbour.theirOdd,
                                     neighbour.ownEven, neighbour.ownOdd}) {
        require(address != 0 && address % word == 0, f, ": a neighbour has the address ", address,
                ", which is 0 or no multiple of ", word, ", as ", args->rowBytes, " bytes a row need.");
      }
      for (const uint64_t signals : {neighbour.theirSignals, neighbour.ownSignals}) {
        requireAddress(f, "a neighbour's signals", signals, 4);
      }
    }
    submit(f, stream, [=, pitch = args->pitch, rowBytes = args->rowBytes, rows = args->rows](Stream &on) {
      const auto countOf = [](const ditrun_neighbour &neighbour) -> uint32_t & {
        return pointer<uint32_t>(neighbour.ownSignals)[DITRUN_PEER_BLOCKS];
      };
      for (const ditrun_neighbour &neighbour : neighbours) {
        const uint32_t count = ++countOf(neighbour);
        char *const slot = pointer<char>(count % 2 ? neighbour.theirOdd : neighbour.theirEven);
        for (int64_t row = 0; row < rows; row++) {
          std::memcpy(slot + row * rowBytes, pointer<const char>(neighbour.send + row * pitch),
                      static_cast<size_t>(rowBytes));
        }
        std::atomic_ref<uint32_t>(*pointer<uint32_t>(neighbour.theirSignals)).store(count, std::memory_order_release);
      }
      for (const ditrun_neighbour &neighbour : neighbours) {
        const uint32_t count = countOf(neighbour);
        // The difference, since counts wrap around.
        waitWord(*pointer<uint32_t>(neighbour.ownSignals), on,
                 [count](uint32_t theirs) { return static_cast<int32_t>(theirs - count) >= 0; });
        const char *const slot = pointer<const char>(count % 2 ? neighbour.ownOdd : neighbour.ownEven);
        for (int64_t row = 0; row < rows; row++) {
          std::memcpy(pointer<char>(neighbour.receive + row * pitch), slot + row * rowBytes,
                      static_cast<size_t>(rowBytes));
        }
      }
    });
  });
}
