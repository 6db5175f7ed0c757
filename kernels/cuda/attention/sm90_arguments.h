// From the arguments to the parameters of the Hopper attention kernels: what they take as it is, and tensor maps.
#pragma once

#include <cmath>
#include <cstdint>

#include "ditrun.h"
#include "runtime/error.h"
#include "runtime/tensor_map.h"

/** Fills in all but tensor maps, blocks and scales of e4m3. */
template <class Parameters>
void takeArguments(Parameters &p, const ditrun_attention_args &args) {
  p.o = reinterpret_cast<void *>(args.o);
  p.lse = reinterpret_cast<float *>(args.lse);
  p.previousO = reinterpret_cast<const float *>(args.previousO);
  p.previousLse = reinterpret_cast<const float *>(args.previousLse);
  p.waitNanoseconds = reinterpret_cast<unsigned long long *>(args.waitNanoseconds);
  p.oStride = args.oStride;
  p.queries = args.queries;
  p.heads = args.heads;
  p.blockCount = args.blockCount;
  p.scaleLog2 = args.scale * 1.4426950408889634f;
}

inline bool rowsAligned(uint64_t address, int64_t stride) {
  return address % 16 == 0 && stride % 8 == 0 && stride >= 0;
}

/** Describes a [rows, heads · headDim] matrix of bf16 or f16 read in boxes of boxRows rows and one swizzled row of
 * columns. */
inline int encodeRows(CUtensorMap *map, CUtensorMapDataType type, const char *name, uint64_t address, int64_t stride,
                      int rows, int width, int boxRows, int boxColumns) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(2 * stride)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUtensorMapSwizzle swizzle = boxColumns == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B;
  const CUresult result = tensorMapEncoder()(map, type, 2, reinterpret_cast<void *>(address), sizes, strides, box,
                                             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return fail(
        DITRUN_DEVICE_ERROR,
        "The driver refused (CUresult %d) a tensor map of %s: address 0x%llx, %d rows of %d elements, row stride %lld.",
        static_cast<int>(result), name, static_cast<unsigned long long>(address), rows, width,
        static_cast<long long>(stride));
  return DITRUN_OK;
}

inline bool bytesAligned(uint64_t address, int64_t stride) {
  return address % 16 == 0 && stride % 16 == 0 && stride >= 0;
}

/** Describes a [rows, width] matrix of bytes read in boxes of boxRows rows and boxColumns (32, 64 or 128) columns,
 * swizzled. */
inline int encodeBytes(CUtensorMap *map, const char *name, uint64_t address, int64_t stride, int64_t rows,
                       int64_t width, int boxRows, int boxColumns) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUtensorMapSwizzle swizzle = boxColumns == 32   ? CU_TENSOR_MAP_SWIZZLE_32B
                                     : boxColumns == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                        : CU_TENSOR_MAP_SWIZZLE_128B;
  const CUresult result = tensorMapEncoder()(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, reinterpret_cast<void *>(address),
                                             sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return fail(DITRUN_DEVICE_ERROR,
                "The driver refused (CUresult %d) a tensor map of %s in e4m3: address 0x%llx, %lld rows of %lld "
                "elements, row stride %lld.",
                static_cast<int>(result), name, static_cast<unsigned long long>(address), static_cast<long long>(rows),
                static_cast<long long>(width), static_cast<long long>(stride));
  return DITRUN_OK;
}

/** Fills in tensor maps, blocks and all that is taken as it is. S is the kernel's Shape; type is bf16 or f16. */
template <class S, class Parameters>
int takeRows(Parameters &p, const ditrun_attention_args &args, CUtensorMapDataType type) {
  const int width = args.heads * S::headDim;
  int status = encodeRows(&p.q, type, "q", args.q, args.qStride, args.queries, width, S::queries, S::columns);
  p.tiles = 0;
  for (int i = 0; i < args.blockCount && status == DITRUN_OK; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    status = encodeRows(&p.k[i], type, "k", block.k, block.kStride, block.length, width, S::Tile::keys, S::columns);
    if (status == DITRUN_OK)
      status = encodeRows(&p.v[i], type, "v", block.v, block.vStride, block.length, width, S::Tile::keys, S::columns);
    p.flags[i] = reinterpret_cast<const uint32_t *>(block.flag);
    p.length[i] = block.length;
    p.tiles += (block.length + S::Tile::keys - 1) / S::Tile::keys;
  }
  takeArguments(p, args);
  return status;
}

/** Whether a kernel of 16-bit rows takes these arguments: this dtype, head dimension 32, 64 or 128 (128 to e4m3), rows
 * that the copy engine can address (16-byte aligned starts and strides), scale > 0, and a device of compute
 * capability 9.0. */
inline bool rowsFit(const ditrun_attention_args &args, int dtype) {
  if (args.relativeBias != 0) return false;
  const bool toE4m3 = dtype == DITRUN_BF16 && args.headDim == 128 && args.oDtype == DITRUN_E4M3;
  if (args.dtype != dtype || (args.oDtype != DITRUN_BF16 && args.oDtype != DITRUN_F32 && !toE4m3)) return false;
  if (args.headDim != 32 && args.headDim != 64 && args.headDim != 128) return false;
  if (!(args.scale > 0.0f) || !std::isfinite(args.scale) || args.queries <= 0 || args.heads <= 0 || args.heads > 65535)
    return false;
  if (args.blockCount < 1 || args.blockCount > DITRUN_MAX_KV_BLOCKS || args.blocks == nullptr) return false;
  if (!rowsAligned(args.q, args.qStride) || args.o % 8 != 0 || args.oStride % 2 != 0) return false;
  if ((args.previousO == 0) != (args.previousLse == 0) || args.previousO % 8 != 0) return false;
  for (int i = 0; i < args.blockCount; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    if (block.length <= 0 || !rowsAligned(block.k, block.kStride) || !rowsAligned(block.v, block.vStride)) return false;
  }
  return deviceHasWgmma();
}
