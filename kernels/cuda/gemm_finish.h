// What cuBLASLt cannot do in its epilogue, as one kernel over its output.
#pragma once
#include "device.h"

/** out[b] = activation(out[b] * rowScale[b][r] * columnScale[b][c] + bias[b][c]) + residual[b], float32 in between, rounded
 * when stored. Null pointers leave their part out. Scales are contiguous: [m] and [n] per batch. */
struct GemmFinish {
  void *out;
  const float *rowScale, *columnScale;
  const void *bias, *residual;
  int64_t ldo, outStride, biasStride, ldResidual, residualStride;
  int m, n, batch;
  int outDtype, biasDtype, residualDtype, activation;
};
int gemmFinish(const GemmFinish &args, cudaStream_t stream);
