// The tensor-core convolution with mma.sync, for sm_80 and later.
#include "runtime/device.h"
#include "conv/copies_async.cuh"
#include "conv/product_mma.cuh"

namespace conv {

/** Channels of a tile: as many as leave every sum a register, and divide 96, 192 and 384. */
constexpr int mmaChannels = 48;

template <class L, int dtype>
__global__ void __launch_bounds__(threads, 1) convMmaKernel(const __grid_constant__ Args args) {
  extern __shared__ __align__(1024) char shared[];
  run<L, MmaProduct<L::tileChannels, dtype>, AsyncCopies>(args, shared);
}

template <class L>
int launchMma(const Conv &c, cudaStream_t stream) {
  Args args;
  TRY(argumentsOf<L>(c, args));
  const auto kernel = c.dtype == DITRUN_F16 ? convMmaKernel<L, DITRUN_F16> : convMmaKernel<L, DITRUN_BF16>;
  CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::sharedBytes));
  kernel<<<min(args.tiles, deviceFacts().multiprocessors), threads, L::sharedBytes, stream>>>(args);
  return launched("ditrun_conv3d (mma)");
}

}  // namespace conv

bool convMmaFits(const Conv &c) {
  int sharedMemory = 0;
  if (cudaDeviceGetAttribute(&sharedMemory, cudaDevAttrMaxSharedMemoryPerBlockOptin, deviceFacts().index) !=
      cudaSuccess)
    return false;
  const bool shape = c.kernelH == c.kernelW && (c.kernelH == 3 || (c.kernelH == 1 && c.upsample == 1)) &&
                     c.strideH == 1 && c.strideW == 1;
  const bool aligned = aligned16(c.x) && aligned16(c.history) && aligned16(c.weight) && aligned16(c.bias) &&
                       aligned16(c.residual) && aligned16(c.out);
  // Offsets within a frame, and within the weight, are counted in 32 bits.
  const bool small = int64_t(c.height) * c.width * c.inChannels < int64_t(1) << 31 &&
                     int64_t(c.outChannels) * c.kernelT * c.kernelH * c.kernelW * c.inChannels < int64_t(1) << 31;
  return (c.dtype == DITRUN_BF16 || c.dtype == DITRUN_F16) && shape && small && aligned && c.inChannels % 8 == 0 &&
         deviceFacts().major >= 8 && sharedMemory >= conv::Layout<3, 1, conv::mmaChannels>::sharedBytes;
}

int convMma(const Conv &c, cudaStream_t stream) {
  if (c.kernelH == 1) return conv::launchMma<conv::Layout<1, 1, conv::mmaChannels>>(c, stream);
  if (c.upsample == 2) return conv::launchMma<conv::Layout<3, 2, conv::mmaChannels>>(c, stream);
  if (c.outChannels <= 16) return conv::launchMma<conv::Layout<3, 1, 16>>(c, stream);
  return conv::launchMma<conv::Layout<3, 1, conv::mmaChannels>>(c, stream);
}
