// Flags: 32-bit words in peer memory, written and awaited in stream order by the device's front end (no kernel runs).
#include <cuda.h>

#include <algorithm>
#include <vector>

#include "runtime/device.h"

/** cuStreamBatchMemOp of CUDA 12's interface, from the driver that is installed. */
static int batchMemOp(decltype(&cuStreamBatchMemOp) *function) {
  void *address = nullptr;
  cudaDriverEntryPointQueryResult found;
  CUDA_TRY(cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &address, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || !address)
    return fail(DITRUN_LIBRARY_MISSING,
                "The driver (libcuda.so.1) has no cuStreamBatchMemOp of CUDA 12: install a newer driver.");
  *function = reinterpret_cast<decltype(&cuStreamBatchMemOp)>(address);
  return DITRUN_OK;
}

static int queue(std::vector<CUstreamBatchMemOpParams> &operations, uint64_t stream) {
  decltype(&cuStreamBatchMemOp) submit = nullptr;
  TRY(batchMemOp(&submit));
  const size_t most = 128;  // the driver takes fewer than 256 operations a call
  for (size_t first = 0; first < operations.size(); first += most) {
    const size_t count = std::min(most, operations.size() - first);
    const CUresult result = submit(reinterpret_cast<CUstream>(stream), unsigned(count), operations.data() + first, 0);
    if (result != CUDA_SUCCESS)
      return fail(DITRUN_DEVICE_ERROR, "cuStreamBatchMemOp of %zu operations failed with CUresult %d.", count,
                  int(result));
  }
  return DITRUN_OK;
}

static int checkFlags(const char *what, const uint64_t *flags, int count) {
  if (count < 0 || (count > 0 && !flags))
    return fail(DITRUN_INVALID_ARGUMENT, "%s got %d flags at %p.", what, count, (const void *)flags);
  for (int i = 0; i < count; i++)
    if (flags[i] == 0 || flags[i] % 4 != 0)
      return fail(DITRUN_INVALID_ARGUMENT, "%s: flag %d has the address 0x%llx, which is no 32-bit word.", what, i,
                  (unsigned long long)flags[i]);
  return DITRUN_OK;
}

int ditrun_flags_write(const uint64_t *flags, int count, uint32_t value, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFlags("ditrun_flags_write", flags, count));
  std::vector<CUstreamBatchMemOpParams> operations(count);
  for (int i = 0; i < count; i++) {
    CUstreamBatchMemOpParams &operation = operations[i];
    operation = {};
    operation.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    operation.writeValue.address = flags[i];
    operation.writeValue.value = value;
    // The default write is fenced for the whole system: earlier work of the stream is visible first.
    operation.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
  }
  return queue(operations, stream);
}

int ditrun_flags_wait(const uint64_t *flags, int count, int reset, uint64_t stream) {
  TRY(useDevice());
  TRY(checkFlags("ditrun_flags_wait", flags, count));
  std::vector<CUstreamBatchMemOpParams> operations;
  for (int i = 0; i < count; i++) {
    CUstreamBatchMemOpParams wait{};
    wait.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    wait.waitValue.address = flags[i];
    wait.waitValue.value = 1;
    wait.waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    operations.push_back(wait);
    if (reset) {
      CUstreamBatchMemOpParams clear{};
      clear.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
      clear.writeValue.address = flags[i];
      clear.writeValue.value = 0;
      clear.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
      operations.push_back(clear);
    }
  }
  return queue(operations, stream);
}
