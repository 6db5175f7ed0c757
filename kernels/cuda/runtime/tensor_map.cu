#include "runtime/tensor_map.h"

#include <string>

#include "runtime/error.h"
#include "runtime/numbers.cuh"

namespace {

constexpr int highestRank = 5;  // of the copy engine

CUtensorMapDataType typeOf(int dtype) {
  switch (dtype) {
    case DITRUN_F32:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case DITRUN_BF16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case DITRUN_F16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_UINT8;
  }
}

/** `[2, 32760, 1536]`, as tensors are written: the contiguous dimension last. */
std::string listed(const int64_t *values, int count) {
  std::string text;
  for (int i = count - 1; i >= 0; --i) text += std::to_string(values[i]) + (i > 0 ? ", " : "");
  return "[" + text + "]";
}

}  // namespace

int encodeTensorMap(CUtensorMap *map, const char *name, int dtype, uint64_t address, CUtensorMapL2promotion promotion,
                    int rank, const int64_t *sizes, const int64_t *strides, const int *box) {
  const int bytes = dtypeBytes(dtype);
  cuuint64_t size[highestRank], stride[highestRank];
  cuuint32_t boxes[highestRank], steps[highestRank];
  for (int i = 0; i < rank; ++i) {
    size[i] = static_cast<cuuint64_t>(sizes[i]);
    boxes[i] = static_cast<cuuint32_t>(box[i]);
    steps[i] = 1;
    if (i + 1 < rank) stride[i] = static_cast<cuuint64_t>(strides[i] * bytes);
  }
  const int rowBytes = box[0] * bytes;
  const CUtensorMapSwizzle swizzle = rowBytes == 32   ? CU_TENSOR_MAP_SWIZZLE_32B
                                     : rowBytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                      : CU_TENSOR_MAP_SWIZZLE_128B;
  const CUresult result = tensorMapEncoder()(
      map, typeOf(dtype), static_cast<cuuint32_t>(rank), reinterpret_cast<void *>(address), size, stride, boxes, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return DITRUN_OK;
  return fail(DITRUN_DEVICE_ERROR,
              "The driver refused (CUresult %d) a tensor map of %s: %s at 0x%llx, sizes %s, strides %s.",
              static_cast<int>(result), name, dtypeName(dtype), static_cast<unsigned long long>(address),
              listed(sizes, rank).c_str(), listed(strides, rank - 1).c_str());
}
