// Device memory with counting, and copies.
#include "runtime/memory.h"

#include <map>
#include <mutex>

static std::mutex memoryMutex;
static std::map<uint64_t, Allocation> allocations;  // by base address
static int64_t usedNow = 0, usedPeak = 0;

static void countLocked(int64_t bytes) {
  usedNow += bytes;
  if (usedNow > usedPeak) usedPeak = usedNow;
}

void countMemory(int64_t bytes) {
  std::lock_guard<std::mutex> lock(memoryMutex);
  countLocked(bytes);
}

bool findAllocation(uint64_t address, Allocation *found) {
  std::lock_guard<std::mutex> lock(memoryMutex);
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return false;
  const Allocation &candidate = std::prev(next)->second;
  if (address >= candidate.base + candidate.bytes) return false;
  *found = candidate;
  return true;
}

int ditrun_malloc(uint64_t bytes, int memory, uint64_t *address) {
  TRY(useDevice());
  if (!address || bytes == 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_malloc needs a size above 0 and a place for the address, got %llu bytes.",
                (unsigned long long)bytes);
  if (memory != DITRUN_DEVICE_MEMORY && memory != DITRUN_PEER_MEMORY)
    return fail(DITRUN_INVALID_ARGUMENT,
                "Memory kind %d is neither DITRUN_DEVICE_MEMORY (0) nor DITRUN_PEER_MEMORY (1).", memory);
  // CUDA exports whole 2 MiB blocks: an allocation that fills its own blocks starts at their base and shares none with
  // others.
  const uint64_t block = uint64_t(2) << 20;
  const uint64_t size = memory == DITRUN_PEER_MEMORY ? (bytes + block - 1) / block * block : bytes;
  void *pointer = nullptr;
  const cudaError_t error = cudaMalloc(&pointer, size);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t freeBytes = 0, totalBytes = 0;
    cudaMemGetInfo(&freeBytes, &totalBytes);
    return fail(DITRUN_OUT_OF_MEMORY,
                "The device has no room for %llu bytes: %zu of its %zu bytes are free and this process holds %lld.",
                (unsigned long long)size, freeBytes, totalBytes, (long long)usedNow);
  }
  if (error != cudaSuccess) return failCuda(error, "cudaMalloc");
  *address = reinterpret_cast<uint64_t>(pointer);
  std::lock_guard<std::mutex> lock(memoryMutex);
  allocations[*address] = Allocation{*address, size, memory};
  countLocked(int64_t(size));
  return DITRUN_OK;
}

int ditrun_free(uint64_t address) {
  if (address == 0) return DITRUN_OK;
  TRY(useDevice());
  uint64_t bytes = 0;
  {
    std::lock_guard<std::mutex> lock(memoryMutex);
    const auto found = allocations.find(address);
    if (found == allocations.end())
      return fail(DITRUN_INVALID_ARGUMENT,
                  "0x%llx is not the start of memory from ditrun_malloc, or was freed already.",
                  (unsigned long long)address);
    bytes = found->second.bytes;
    allocations.erase(found);
    countLocked(-int64_t(bytes));
  }
  CUDA_TRY(cudaFree(asPointer<void>(address)));
  return DITRUN_OK;
}

int ditrun_memory_used(uint64_t *now, uint64_t *peak) {
  std::lock_guard<std::mutex> lock(memoryMutex);
  if (now) *now = uint64_t(usedNow);
  if (peak) *peak = uint64_t(usedPeak);
  return DITRUN_OK;
}

int ditrun_upload(uint64_t destination, const void *source, uint64_t bytes, uint64_t stream) {
  TRY(useDevice());
  if (bytes > 0)
    CUDA_TRY(cudaMemcpyAsync(asPointer<void>(destination), source, bytes, cudaMemcpyHostToDevice, asStream(stream)));
  CUDA_TRY(cudaStreamSynchronize(asStream(stream)));
  return DITRUN_OK;
}

int ditrun_download(void *destination, uint64_t source, uint64_t bytes, uint64_t stream) {
  TRY(useDevice());
  if (bytes > 0)
    CUDA_TRY(cudaMemcpyAsync(destination, asPointer<void>(source), bytes, cudaMemcpyDeviceToHost, asStream(stream)));
  CUDA_TRY(cudaStreamSynchronize(asStream(stream)));
  return DITRUN_OK;
}

int ditrun_copy(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream) {
  TRY(useDevice());
  if (bytes > 0)
    CUDA_TRY(cudaMemcpyAsync(asPointer<void>(destination), asPointer<void>(source), bytes, cudaMemcpyDeviceToDevice,
                             asStream(stream)));
  return DITRUN_OK;
}

/** 16 bytes a thread. cudaMemcpy2D takes three times as long for rows of some hundred bytes, and a third longer for
 * rows of megabytes. */
__global__ void __launch_bounds__(256) copyRows(uint4 *destination, int64_t destinationPitch, const uint4 *source,
                                                int64_t sourcePitch, uint32_t runsOfRow, uint32_t runs) {
  const uint32_t run = blockIdx.x * 256 + threadIdx.x;
  if (run >= runs) return;
  const uint32_t row = run / runsOfRow, inRow = run % runsOfRow;
  destination[row * destinationPitch + inRow] = source[row * sourcePitch + inRow];
}

int ditrun_copy_2d(uint64_t destination, uint64_t destinationPitch, uint64_t source, uint64_t sourcePitch,
                   uint64_t rowBytes, uint64_t rows, uint64_t stream) {
  TRY(useDevice());
  if (rows > 1 && (destinationPitch < rowBytes || sourcePitch < rowBytes))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_copy_2d copies rows of %llu bytes, but the pitches are %llu and %llu.",
                (unsigned long long)rowBytes, (unsigned long long)destinationPitch, (unsigned long long)sourcePitch);
  if (rows == 0 || rowBytes == 0) return DITRUN_OK;
  constexpr uint64_t runBytes = sizeof(uint4), mostRuns = uint64_t(1) << 31;
  if ((destination | source | destinationPitch | sourcePitch | rowBytes) % runBytes == 0 &&
      rows <= mostRuns / (rowBytes / runBytes)) {
    const uint32_t runsOfRow = uint32_t(rowBytes / runBytes), runs = runsOfRow * uint32_t(rows);
    copyRows<<<(runs + 255) / 256, 256, 0, asStream(stream)>>>(
        asPointer<uint4>(destination), int64_t(destinationPitch / runBytes), asPointer<uint4>(source),
        int64_t(sourcePitch / runBytes), runsOfRow, runs);
    return launched("ditrun_copy_2d");
  }
  CUDA_TRY(cudaMemcpy2DAsync(asPointer<void>(destination), rows > 1 ? destinationPitch : rowBytes,
                             asPointer<void>(source), rows > 1 ? sourcePitch : rowBytes, rowBytes, rows,
                             cudaMemcpyDeviceToDevice, asStream(stream)));
  return DITRUN_OK;
}

int ditrun_fill_zero(uint64_t destination, uint64_t bytes, uint64_t stream) {
  TRY(useDevice());
  if (bytes > 0) CUDA_TRY(cudaMemsetAsync(asPointer<void>(destination), 0, bytes, asStream(stream)));
  return DITRUN_OK;
}
