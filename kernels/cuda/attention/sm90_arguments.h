// From the arguments to the parameters of the Hopper attention kernels: what they take as it is, and tensor maps.
#pragma once

#include <cmath>
#include <cstdint>

#include "ditrun.h"
#include "runtime/check.h"
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

/** A [rows, width] matrix of this dtype in boxes of boxRows rows and one swizzled row of boxColumns columns. */
inline BoxedTensor<2> matrixInBoxes(const char *name, int dtype, uint64_t address, int64_t stride, int64_t rows,
                                    int64_t width, int boxRows, int boxColumns) {
  return {name, dtype, address, {width, rows}, {stride}, {boxColumns, boxRows}};
}

inline bool bytesAligned(uint64_t address, int64_t stride) {
  return address % 16 == 0 && stride % 16 == 0 && stride >= 0;
}

/** Fills in tensor maps, blocks and all that is taken as it is. S is the kernel's Shape; dtype is bf16 or f16. */
template <class S, class Parameters>
int takeRows(Parameters &p, const ditrun_attention_args &args, int dtype) {
  const int width = args.heads * S::headDim;
  const auto encode = [&](CUtensorMap *map, const char *name, uint64_t address, int64_t stride, int rows, int boxRows) {
    return encodeTensorMap(map, matrixInBoxes(name, dtype, address, stride, rows, width, boxRows, S::columns));
  };
  TRY(encode(&p.q, "q", args.q, args.qStride, args.queries, S::queries));
  p.tiles = 0;
  for (int i = 0; i < args.blockCount; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    TRY(encode(&p.k[i], "k", block.k, block.kStride, block.length, S::Tile::keys));
    TRY(encode(&p.v[i], "v", block.v, block.vStride, block.length, S::Tile::keys));
    p.flags[i] = reinterpret_cast<const uint32_t *>(block.flag);
    p.length[i] = block.length;
    p.tiles += (block.length + S::Tile::keys - 1) / S::Tile::keys;
  }
  takeArguments(p, args);
  return DITRUN_OK;
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
