// Loops over several threads. Each thread that runs kernels has a team of its own, as long as it lives.
#pragma once

#include <cstdint>

namespace ditrun {

/** Work, in elements touched or multiplied, below which waking other threads costs more than it saves. */
constexpr int64_t parallelWork = 1 << 15;

/** Threads of a loop, the calling one included: OMP_NUM_THREADS, else the cores that this process may use. */
int64_t threadCount();

/** Calls run(body, first, last, thread) for stretches of at most `chunk` until [0, count) is done; thread <
 * threadCount(). */
void runInParallel(int64_t count, int64_t chunk, void (*run)(const void *, int64_t, int64_t, int64_t),
                   const void *body);

/**
 * Calls body(i, thread) for each i of [0, count): in order where `worthIt` is false, else on all threads of the team.
 * Threads take `chunk` numbers at a time; 0 stands for a quarter of a thread's share. The body does not throw.
 */
template <class Body>
void parallelFor(int64_t count, bool worthIt, const Body &body, int64_t chunk = 0) {
  const auto stretch = [](const void *context, int64_t first, int64_t last, int64_t thread) {
    const Body &inner = *static_cast<const Body *>(context);
    for (int64_t i = first; i < last; i++) inner(i, thread);
  };
  if (!worthIt || count < 2 || threadCount() == 1) return stretch(&body, 0, count, 0);
  const int64_t shares = 4 * threadCount();
  runInParallel(count, chunk > 0 ? chunk : (count + shares - 1) / shares, stretch, &body);
}

}  // namespace ditrun
