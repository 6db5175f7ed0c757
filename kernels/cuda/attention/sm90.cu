// Host side of the Hopper attention kernel: argument checks, tensor maps, launch.
#include "attention/attention.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>

#include "attention/sm90_arguments.h"
#include "attention/sm90_short.cuh"

namespace {

using attention::Parameters;
using attention::Shape;

uint32_t halfBits(float x) { return __half_as_ushort(__float2half_rn(x)); }

template <int headDim>
int queryTiles(const ditrun_attention_args &args) {
  return (args.queries + Shape<headDim>::queries - 1) / Shape<headDim>::queries;
}

template <int headDim, typename Output>
cudaError_t launch(Parameters &p, const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  if constexpr (S::Tile::mufuEighths < 8) {
    // exp2Fixed wants scores whose factor c is near 2^-10: Q takes the power of two that makes it so, exactly.
    const int exponent = std::clamp(std::ilogb(p.scaleLog2 * (4.0f / 3.0f)) + 10, -100, 100);
    p.scaleLog2 = std::ldexp(p.scaleLog2, -exponent);
    p.queryScale = attention::both(static_cast<uint32_t>(127 + exponent) << 7);
    p.fixed.scale = attention::both(halfBits(p.scaleLog2));
    p.fixed.rootScale = attention::both(halfBits(attention::kFixedRoot * p.scaleLog2));
  }
  const auto kernel = attention::attentionKernel<headDim, Output>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error != cudaSuccess) return error;
  kernel<<<dim3(queryTiles<headDim>(args), args.heads), S::threads, S::sharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int headDim, typename Output>
cudaError_t launchShort(const Parameters &p, const ditrun_attention_args &args, cudaStream_t stream) {
  using S = attention::ShortShape<headDim>;
  const auto kernel = attention::attentionShortKernel<headDim, Output>;
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const int64_t tiles = static_cast<int64_t>(queryTiles<headDim>(args)) * args.heads;
  kernel<<<static_cast<unsigned>(std::min<int64_t>(multiprocessors, tiles)), S::threads, S::sharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int headDim>
int run(const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  Parameters p;
  TRY(takeRows<S>(p, args, DITRUN_BF16));
  p.oScale = reinterpret_cast<float *>(args.oScale);
  const bool toE4m3 = args.oDtype == DITRUN_E4M3;
  const bool copied = args.previousO == 0 && (toE4m3 ? bytesAligned(args.o, args.oStride)
                                                     : args.oDtype == DITRUN_BF16 && rowsAligned(args.o, args.oStride));
  const bool fewKeys = copied && p.tiles <= S::Tile::fewTiles;
  if (fewKeys)
    TRY(encodeTensorMap(&p.output, matrixInBoxes("o", args.oDtype, args.o, args.oStride, args.queries,
                                                 args.heads * headDim, 64, toE4m3 ? headDim : S::columns)));
  cudaError_t error = cudaSuccess;
  if constexpr (headDim == 128) {
    if (toE4m3)
      error = fewKeys ? launchShort<headDim, __nv_fp8_e4m3>(p, args, stream)
                      : launch<headDim, __nv_fp8_e4m3>(p, args, stream);
  }
  if (!toE4m3)
    error = fewKeys                     ? launchShort<headDim, __nv_bfloat16>(p, args, stream)
            : args.oDtype == DITRUN_F32 ? launch<headDim, float>(p, args, stream)
                                        : launch<headDim, __nv_bfloat16>(p, args, stream);
  if (error != cudaSuccess)
    return fail(DITRUN_DEVICE_ERROR,
                "The sm_90 attention kernel (head dimension %d, %d queries, %d heads) did not start: %s.", headDim,
                args.queries, args.heads, cudaGetErrorString(error));
  return DITRUN_OK;
}

}  // namespace

bool attentionSm90Fits(const ditrun_attention_args &args) { return rowsFit(args, DITRUN_BF16); }

int attentionSm90(const ditrun_attention_args &args, cudaStream_t stream) {
  if (!attentionSm90Fits(args))
    return fail(DITRUN_UNSUPPORTED,
                "The sm_90 attention kernel does not take these arguments (head dimension %d, dtype %d, %d KV blocks, "
                "scale %g, row "
                "stride %lld): it needs bf16, head dimension 32, 64 or 128, 16-byte aligned rows, scale > 0 and a "
                "Hopper GPU; use "
                "kernel 0.",
                args.headDim, args.dtype, args.blockCount, static_cast<double>(args.scale),
                static_cast<long long>(args.qStride));
  switch (args.headDim) {
    case 32:
      return run<32>(args, stream);
    case 64:
      return run<64>(args, stream);
    default:
      return run<128>(args, stream);
  }
}
