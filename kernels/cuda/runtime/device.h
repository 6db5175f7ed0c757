// The one device of this process, and what ditrun_device_open makes for it.
#pragma once
#include <cstdint>

#include "runtime/check.h"

/** Makes the opened device current for the calling thread (calls may come from any thread). DITRUN_INVALID_ARGUMENT
 * before open. */
int useDevice();

/** Facts that kernels and launches need; valid once useDevice() returned DITRUN_OK. */
struct DeviceFacts {
  int index;
  int major, minor;
  int multiprocessors;
};
const DeviceFacts &deviceFacts();

inline cudaStream_t asStream(uint64_t stream) { return reinterpret_cast<cudaStream_t>(stream); }
template <class T>
__host__ __device__ inline T *asPointer(uint64_t address) {
  return reinterpret_cast<T *>(address);
}

/** Counts memory that this module allocated or freed outside ditrun_malloc (workspaces). */
void countMemory(int64_t bytes);

/** The cuBLASLt library of this device: made by open, ended by close. Missing libraries are reported by the first GEMM.
 */
void gemmOpen();
void gemmClose();
/** Gives back what a stream held of the GEMM workspace. */
void gemmForgetStream(cudaStream_t stream);
/** Versions as text, or nullptr when the library cannot be opened. */
const char *cublasLtVersion();
const char *ncclVersion();

/** Whether this process has opened memory of another process on the same GPU: several ranks share it. */
bool sharesDevice();
