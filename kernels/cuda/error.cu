#include "error.h"

#include <cstdarg>
#include <cstdio>

#include "check.h"

static thread_local char lastError[1024] = "";

int fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
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

const char *ditrun_last_error(void) { return lastError; }
int ditrun_abi_version(void) { return DITRUN_ABI_VERSION; }
const char *ditrun_module(void) { return "cuda"; }
