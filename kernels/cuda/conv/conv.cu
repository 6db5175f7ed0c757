// ditrun_conv3d: checks, and the choice of a kernel.
#include "conv/conv.h"

#include "runtime/device.h"
#include "runtime/numbers.cuh"

static int check(const ditrun_conv3d_args *args) {
  if (!args) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d got no arguments.");
  const ditrun_conv3d_args &a = *args;
  if (a.frames <= 0 || a.height <= 0 || a.width <= 0 || a.inChannels <= 0 || a.outChannels <= 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d got %d frames of %d × %d pixels, %d channels in and %d out; all must be positive.",
                a.frames, a.height, a.width, a.inChannels, a.outChannels);
  if (a.kernelT <= 0 || a.kernelH <= 0 || a.kernelW <= 0 || a.strideT <= 0 || a.strideH <= 0 || a.strideW <= 0)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d got a kernel of %d × %d × %d and a stride of %d × %d × %d; all must be positive.",
                a.kernelT, a.kernelH, a.kernelW, a.strideT, a.strideH, a.strideW);
  if (a.upsample != 1 && a.upsample != 2)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d got upsample %d; it must be 1 or 2.", a.upsample);
  const int64_t height = int64_t(a.upsample) * a.height + a.padTop + a.padBottom,
                width = int64_t(a.upsample) * a.width + a.padLeft + a.padRight;
  if (height < a.kernelH || width < a.kernelW)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d: the padded input of %lld × %lld pixels is smaller than the kernel of %d × %d.",
                (long long)height, (long long)width, a.kernelH, a.kernelW);
  if (!isFloatOrF16(a.dtype))
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d takes f32, bf16 or f16, got %s.", dtypeName(a.dtype));
  const uint64_t element = dtypeBytes(a.dtype);
  if (!a.x || !a.weight || !a.out || a.x % element || a.weight % element || a.out % element || a.history % element ||
      a.bias % element || a.residual % element)
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d got x 0x%llx, weight 0x%llx, out 0x%llx, history 0x%llx, bias 0x%llx, residual 0x%llx "
                "for elements of %d bytes.",
                (unsigned long long)a.x, (unsigned long long)a.weight, (unsigned long long)a.out,
                (unsigned long long)a.history, (unsigned long long)a.bias, (unsigned long long)a.residual,
                int(element));
  const int64_t depth = int64_t(a.kernelT) * a.kernelH * a.kernelW * a.inChannels;
  if (depth > 0x7fffffff)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_conv3d: an output sums %lld products, more than 2^31 - 1.",
                (long long)depth);
  return DITRUN_OK;
}

int ditrun_conv3d(const ditrun_conv3d_args *args, uint64_t stream) {
  TRY(useDevice());
  TRY(check(args));
  Conv conv{*args, 0, 0, 0};
  conv.outFrames = (conv.frames - 1) / conv.strideT + 1;
  conv.outHeight = (conv.upsample * conv.height + conv.padTop + conv.padBottom - conv.kernelH) / conv.strideH + 1;
  conv.outWidth = (conv.upsample * conv.width + conv.padLeft + conv.padRight - conv.kernelW) / conv.strideW + 1;
  const bool mma = convMmaFits(conv), sm90 = mma && convSm90Fits();
  const int kernel = conv.kernel ? conv.kernel : sm90 ? 3 : mma ? 2 : 1;
  if (kernel < 1 || kernel > 3 || (kernel == 2 && !mma) || (kernel == 3 && !sm90))
    return fail(DITRUN_INVALID_ARGUMENT,
                "ditrun_conv3d was asked for kernel %d (1 generic, 2 sm_80, 3 sm_90), which this device, its shape or "
                "its addresses do not allow.",
                kernel);
  if (kernel == 1) return convGeneric(conv, asStream(stream));
  if (kernel == 2) return convMma(conv, asStream(stream));
  return convSm90(conv, asStream(stream));
}
