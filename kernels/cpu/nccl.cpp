#include "error.h"

namespace {

int unsupported(const char *function) {
  return ditrun::remember(DITRUN_UNSUPPORTED,
                          ditrun::sentence(function, ": NCCL needs the CUDA module; between CPU workers use peer memory "
                                                     "(ring transport \"peer\")."));
}

}  // namespace

int ditrun_nccl_unique_id(uint8_t *) { return unsupported("ditrun_nccl_unique_id"); }
int ditrun_nccl_init(const uint8_t *, int, int, uint64_t *) { return unsupported("ditrun_nccl_init"); }
int ditrun_nccl_destroy(uint64_t) { return unsupported("ditrun_nccl_destroy"); }
int ditrun_nccl_check(uint64_t) { return unsupported("ditrun_nccl_check"); }
int ditrun_nccl_all_reduce(uint64_t, uint64_t, uint64_t, int64_t, int, uint64_t) {
  return unsupported("ditrun_nccl_all_reduce");
}
int ditrun_nccl_all_gather(uint64_t, uint64_t, uint64_t, int64_t, int, uint64_t) {
  return unsupported("ditrun_nccl_all_gather");
}
int ditrun_nccl_reduce_scatter(uint64_t, uint64_t, uint64_t, int64_t, int, uint64_t) {
  return unsupported("ditrun_nccl_reduce_scatter");
}
int ditrun_nccl_broadcast(uint64_t, uint64_t, int64_t, int, uint64_t) { return unsupported("ditrun_nccl_broadcast"); }
int ditrun_nccl_exchange(uint64_t, const uint64_t *, const int64_t *, const int *, int, const uint64_t *, const int64_t *,
                         const int *, int, uint64_t) {
  return unsupported("ditrun_nccl_exchange");
}
