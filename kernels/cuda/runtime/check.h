// Checks of CUDA calls and kernel launches.
#pragma once
#include <cuda_runtime.h>

#include "runtime/error.h"

/** Reports a CUDA error with its name: DITRUN_OUT_OF_MEMORY or DITRUN_DEVICE_ERROR. */
int failCuda(cudaError_t error, const char *what);

/** The status of the kernel launch just made by this thread. */
int launched(const char *kernel);

/** Returns from the calling function when a CUDA runtime call fails; the call itself is named in the sentence. */
#define CUDA_TRY(call)                                                     \
  do {                                                                     \
    const cudaError_t cudaTryError = (call);                               \
    if (cudaTryError != cudaSuccess) return failCuda(cudaTryError, #call); \
  } while (0)

/** Returns from the calling function when a function of this module does not return DITRUN_OK. */
#define TRY(call)                                 \
  do {                                            \
    const int tryStatus = (call);                 \
    if (tryStatus != DITRUN_OK) return tryStatus; \
  } while (0)
