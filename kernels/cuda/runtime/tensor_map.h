// The driver's encoder of tensor maps, which the bulk copy engine reads, without linking the driver.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

using EncodeTiled = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                 const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/** The driver's cuTensorMapEncodeTiled, or null where it has none. */
inline EncodeTiled tensorMapEncoder() {
  static const EncodeTiled found = [] {
    void *symbol = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &result) !=
            cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
      return static_cast<EncodeTiled>(nullptr);
    return reinterpret_cast<EncodeTiled>(symbol);
  }();
  return found;
}

/** Whether this thread's device is a Hopper data-centre GPU (9.0) whose driver can encode tensor maps. */
inline bool deviceHasWgmma() {
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0 && tensorMapEncoder() != nullptr;
}
