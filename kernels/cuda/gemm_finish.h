// What cuBLASLt cannot do in its epilogue, as one kernel over its output.
#pragma once
#include "device.h"

/** out[b] = gate[c] * activation(product[b] * rowScale[b][r] * columnScale[b][c] + bias[b][c]) + residual[b], float32 in between,
 * rounded when stored. product may be out where it has out's dtype (f32 or bf16; out may be f16 too); out may be residual if product is neither. Null pointers leave their
 * part out. Scales are contiguous: [m] and [n] per batch. */
struct GemmFinish {
  void *out;
  const void *product;
  const float *rowScale, *columnScale, *gate;
  const void *bias, *residual;
  int64_t ldo, outStride, ldProduct, productStride, biasStride, ldResidual, residualStride;
  int m, n, batch;
  int productDtype, outDtype, biasDtype, residualDtype, activation;
};
int gemmFinish(const GemmFinish &args, cudaStream_t stream);

/** out e4m3 [m, n] = x (bf16) · 1 / scale[row], saturating. */
int gemmQuantize(uint8_t *out, int64_t ldo, const void *x, int64_t ldx, const float *scale, int m, int n, cudaStream_t stream);
