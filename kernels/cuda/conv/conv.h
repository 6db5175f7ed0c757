// The convolution kernels of this module; conv/conv.cu checks the arguments and chooses one.
#pragma once
#include <cuda_runtime.h>

#include "ditrun.h"

/** A checked convolution: the arguments, and the sizes that follow from them. */
struct Conv : ditrun_conv3d_args {
  int outFrames, outHeight, outWidth;
};

/** bf16 or f16 on the tensor cores (mma.sync): stride 1 in space, kernels 1 × 1 or 3 × 3, input channels in eights, all
 * addresses in 16 bytes. */
bool convMmaFits(const Conv &conv);
int convMma(const Conv &conv, cudaStream_t stream);

/** The same on Hopper's (wgmma), where convMmaFits and the device has them. */
bool convSm90Fits();
int convSm90(const Conv &conv, cudaStream_t stream);

/** Any shape, stride and alignment, float32, bf16 or f16; float32 arithmetic. */
int convGeneric(const Conv &conv, cudaStream_t stream);
