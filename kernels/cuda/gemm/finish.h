// What cuBLASLt cannot do in its epilogue, as one kernel over its output.
#pragma once
#include "runtime/device.h"

/** out[b] = gate[c] * activation(product[b] * rowScale[b][r] * columnScale[b][c] + bias[b][c]) + residual[b], float32
 * in between, rounded when stored. product may be out where it has out's dtype (f32 or bf16; out may be f16 too, or
 * e4m3: the above times 1 / outScale[b][r], saturating); out may be residual if product is neither. Null pointers leave
 * their part out. Scales are contiguous: [m] and [n] per batch. */
struct GemmFinish {
  void *out;
  const void *product;
  const float *rowScale, *columnScale, *gate, *outScale;
  const void *bias, *residual;
  int64_t ldo, outStride, ldProduct, productStride, biasStride, ldResidual, residualStride;
  int m, n, batch;
  int productDtype, outDtype, biasDtype, residualDtype, activation;
};
int gemmFinish(const GemmFinish &args, cudaStream_t stream);
