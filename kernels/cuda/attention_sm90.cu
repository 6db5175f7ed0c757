// Host side of the Hopper attention kernel: argument checks, tensor maps, launch.
#include "attention_sm90.cuh"

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>

#include "attention_sm90_arguments.h"
#include "attention_sm90_short.cuh"
#include "error.h"
#include "tensor_map.h"

namespace {

using attention::Parameters;
using attention::Shape;

bool aligned(uint64_t address, int64_t stride) { return address % 16 == 0 && stride % 8 == 0 && stride >= 0; }

/** Describes a [rows, heads · headDim] bf16 matrix read in boxes of boxRows rows and one swizzled row of columns. */
int encode(CUtensorMap *map, const char *name, uint64_t address, int64_t stride, int rows, int width, int boxRows,
           int boxColumns) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(2 * stride)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(boxColumns), static_cast<cuuint32_t>(boxRows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUtensorMapSwizzle swizzle = boxColumns == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B;
  const CUresult result = tensorMapEncoder()(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, reinterpret_cast<void *>(address), sizes,
                                    strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return fail(DITRUN_DEVICE_ERROR,
                "The driver refused (CUresult %d) a tensor map of %s: address 0x%llx, %d rows of %d elements, row stride %lld.",
                static_cast<int>(result), name, static_cast<unsigned long long>(address), rows, width,
                static_cast<long long>(stride));
  return DITRUN_OK;
}

/** What both kernels take. */
template <int headDim>
int fill(Parameters &p, const ditrun_attention_args &args) {
  using S = Shape<headDim>;
  const int width = args.heads * headDim;
  int status = encode(&p.q, "q", args.q, args.qStride, args.queries, width, S::queries, S::columns);
  p.tiles = 0;
  for (int i = 0; i < args.blockCount && status == DITRUN_OK; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    status = encode(&p.k[i], "k", block.k, block.kStride, block.length, width, S::Tile::keys, S::columns);
    if (status == DITRUN_OK)
      status = encode(&p.v[i], "v", block.v, block.vStride, block.length, width, S::Tile::keys, S::columns);
    p.flags[i] = reinterpret_cast<const uint32_t *>(block.flag);
    p.length[i] = block.length;
    p.tiles += (block.length + S::Tile::keys - 1) / S::Tile::keys;
  }
  take_arguments(p, args);
  return status;
}

uint32_t half_bits(float x) { return __half_as_ushort(__float2half_rn(x)); }

template <int headDim>
int query_tiles(const ditrun_attention_args &args) {
  return (args.queries + Shape<headDim>::queries - 1) / Shape<headDim>::queries;
}

template <int headDim, typename Output>
cudaError_t launch(Parameters &p, const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  if constexpr (S::Tile::mufuEighths < 8) {
    // exp2_fixed wants scores whose factor c is near 2^-10: Q takes the power of two that makes it so, exactly.
    const int exponent = std::clamp(std::ilogb(p.scaleLog2 * (4.0f / 3.0f)) + 10, -100, 100);
    p.scaleLog2 = std::ldexp(p.scaleLog2, -exponent);
    p.queryScale = attention::both(static_cast<uint32_t>(127 + exponent) << 7);
    p.fixed.scale = attention::both(half_bits(p.scaleLog2));
    p.fixed.rootScale = attention::both(half_bits(attention::kFixedRoot * p.scaleLog2));
  }
  const auto kernel = attention::attention_kernel<headDim, Output>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error != cudaSuccess) return error;
  kernel<<<dim3(query_tiles<headDim>(args), args.heads), S::threads, S::sharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int headDim>
cudaError_t launch_short(const Parameters &p, const ditrun_attention_args &args, cudaStream_t stream) {
  using S = attention::ShortShape<headDim>;
  const auto kernel = attention::attention_short_kernel<headDim>;
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const int64_t tiles = static_cast<int64_t>(query_tiles<headDim>(args)) * args.heads;
  kernel<<<static_cast<unsigned>(std::min<int64_t>(multiprocessors, tiles)), S::threads, S::sharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int headDim>
int run(const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  Parameters p;
  int status = fill<headDim>(p, args);
  const bool copied = args.oDtype == DITRUN_BF16 && args.previousO == 0 && aligned(args.o, args.oStride);
  const bool fewKeys = copied && p.tiles <= S::Tile::fewTiles;
  if (fewKeys && status == DITRUN_OK)
    status = encode(&p.output, "o", args.o, args.oStride, args.queries, args.heads * headDim, 64, S::columns);
  if (status != DITRUN_OK) return status;
  const cudaError_t error = fewKeys                        ? launch_short<headDim>(p, args, stream)
                            : args.oDtype == DITRUN_F32 ? launch<headDim, float>(p, args, stream)
                                                        : launch<headDim, __nv_bfloat16>(p, args, stream);
  if (error != cudaSuccess)
    return fail(DITRUN_DEVICE_ERROR, "The sm_90 attention kernel (head dimension %d, %d queries, %d heads) did not start: %s.",
                headDim, args.queries, args.heads, cudaGetErrorString(error));
  return DITRUN_OK;
}

}  // namespace

bool attention_sm90_fits(const ditrun_attention_args &args) {
  if (args.relativeBias != 0) return false;
  if (args.dtype != DITRUN_BF16 || (args.oDtype != DITRUN_BF16 && args.oDtype != DITRUN_F32)) return false;
  if (args.headDim != 32 && args.headDim != 64 && args.headDim != 128) return false;
  if (!(args.scale > 0.0f) || !std::isfinite(args.scale) || args.queries <= 0 || args.heads <= 0 || args.heads > 65535) return false;
  if (args.blockCount < 1 || args.blockCount > DITRUN_MAX_KV_BLOCKS || args.blocks == nullptr) return false;
  if (!aligned(args.q, args.qStride) || args.o % 8 != 0 || args.oStride % 2 != 0) return false;
  if ((args.previousO == 0) != (args.previousLse == 0) || args.previousO % 8 != 0) return false;
  for (int i = 0; i < args.blockCount; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    if (block.length <= 0 || !aligned(block.k, block.kStride) || !aligned(block.v, block.vStride)) return false;
  }
  return deviceHasWgmma();
}

int attention_sm90(const ditrun_attention_args &args, cudaStream_t stream) {
  if (!attention_sm90_fits(args))
    return fail(DITRUN_UNSUPPORTED,
                "The sm_90 attention kernel does not take these arguments (head dimension %d, dtype %d, %d KV blocks, scale %g, row "
                "stride %lld): it needs bf16, head dimension 32, 64 or 128, 16-byte aligned rows, scale > 0 and a Hopper GPU; use "
                "kernel 0.",
                args.headDim, args.dtype, args.blockCount, static_cast<double>(args.scale), static_cast<long long>(args.qStride));
  switch (args.headDim) {
    case 32: return run<32>(args, stream);
    case 64: return run<64>(args, stream);
    default: return run<128>(args, stream);
  }
}
