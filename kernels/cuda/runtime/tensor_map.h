// The driver's encoder of tensor maps, which the bulk copy engine reads, without linking the driver.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

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

/** A tensor that the bulk copy engine moves in boxes. The contiguous dimension is the first one; sizes, strides and the
 * box count elements. */
template <int rank>
struct BoxedTensor {
  const char *name;  // for the sentence of a failure
  int dtype;         // of one byte: copied as it is
  uint64_t address;  // a multiple of 16 bytes, as are the strides
  int64_t sizes[rank], strides[rank - 1];
  int box[rank];
  CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
};

/** Of any rank; the other one has its dimensions checked by the compiler. */
int encodeTensorMap(CUtensorMap *map, const char *name, int dtype, uint64_t address, CUtensorMapL2promotion promotion,
                    int rank, const int64_t *sizes, const int64_t *strides, const int *box);

/**
 * Describes a tensor to the copy engine. A box's rows lie in shared memory swizzled over their whole length of 32, 64
 * or 128 bytes; what a box has beyond the tensor is zeros. @return a ditrun_status
 */
template <int rank>
int encodeTensorMap(CUtensorMap *map, const BoxedTensor<rank> &tensor) {
  return encodeTensorMap(map, tensor.name, tensor.dtype, tensor.address, tensor.promotion, rank, tensor.sizes,
                         tensor.strides, tensor.box);
}
