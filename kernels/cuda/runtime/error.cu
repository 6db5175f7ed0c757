#include "runtime/error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "runtime/check.h"

// The latest failure of any thread: whoever asks often waited for a call that another thread made.
static std::mutex lastErrorMutex;
static char lastError[1024] = "";

int fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::lock_guard<std::mutex> lock(lastErrorMutex);
  vsnprintf(lastError, sizeof lastError, format, arguments);
  va_end(arguments);
  return status;
}

int failCuda(cudaError_t error, const char *what) {
  cudaGetLastError();  // a launch failure that is not sticky must not be met again by the next call
  const int status = error == cudaErrorMemoryAllocation ? DITRUN_OUT_OF_MEMORY : DITRUN_DEVICE_ERROR;
  return fail(status, "%s failed with %s: %s.", what, cudaGetErrorName(error), cudaGetErrorString(error));
}

int launched(const char *kernel) {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? DITRUN_OK : failCuda(error, kernel);
}

const char *ditrun_last_error(void) {
  static thread_local char sentence[sizeof lastError];
  std::lock_guard<std::mutex> lock(lastErrorMutex);
  return strcpy(sentence, lastError);
}
int ditrun_abi_version(void) { return DITRUN_ABI_VERSION; }
const char *ditrun_module(void) { return "cuda"; }
