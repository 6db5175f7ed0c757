// Host side of the f16 Hopper attention kernel: argument checks, tensor maps, launch.
#include <cmath>

#include "attention/attention.h"
#include "attention/f16_sm90_kernel.cuh"
#include "attention/sm90_arguments.h"

namespace {

using attentionF16::Parameters;
using attentionF16::Shape;

template <int headDim, typename Output>
cudaError_t launch(const Parameters &p, const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  const auto kernel = attentionF16::attentionF16Kernel<headDim, Output>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error != cudaSuccess) return error;
  kernel<<<dim3((args.queries + S::queries - 1) / S::queries, args.heads), S::threads, S::sharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int headDim>
int run(const ditrun_attention_args &args, cudaStream_t stream) {
  Parameters p;
  const int status = takeRows<Shape<headDim>>(p, args, DITRUN_F16);
  if (status != DITRUN_OK) return status;
  for (int i = 0; i < args.blockCount; ++i) {
    p.keys[i] = reinterpret_cast<const uint4 *>(args.blocks[i].k);
    p.keyStride[i] = args.blocks[i].kStride / 8;
  }
  const cudaError_t error = args.oDtype == DITRUN_F32 ? launch<headDim, float>(p, args, stream)
                                                      : launch<headDim, __nv_bfloat16>(p, args, stream);
  if (error != cudaSuccess)
    return fail(DITRUN_DEVICE_ERROR,
                "The sm_90 attention kernel (f16, head dimension %d, %d queries, %d heads) did not start: %s.", headDim,
                args.queries, args.heads, cudaGetErrorString(error));
  return DITRUN_OK;
}

}  // namespace

bool attentionF16Sm90Fits(const ditrun_attention_args &args) { return rowsFit(args, DITRUN_F16); }

int attentionF16Sm90(const ditrun_attention_args &args, cudaStream_t stream) {
  if (!attentionF16Sm90Fits(args))
    return fail(DITRUN_UNSUPPORTED,
                "The sm_90 attention kernel in f16 does not take these arguments (head dimension %d, dtype %d, %d KV "
                "blocks, scale %g, row "
                "stride %lld): it needs f16, head dimension 32, 64 or 128, 16-byte aligned rows, scale > 0 and a "
                "Hopper GPU; use kernel 0.",
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
