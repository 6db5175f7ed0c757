#include "gemm/finish.h"

#include "runtime/numbers.cuh"

// The usual case, an activation over a contiguous matrix, without index arithmetic.
template <int activation>
__global__ void __launch_bounds__(256) finishVectors(const __grid_constant__ GemmFinish args) {
  const int vectorsPerRow = args.n / vectorWidth;
  // 32-bit indices: a 64-bit division would cost more than the activation.
  const uint32_t vectors = uint32_t(args.m) * args.batch * vectorsPerRow, threads = gridDim.x * blockDim.x;
  const bool outBf16 = args.outDtype == DITRUN_BF16;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += threads) {
    const uint32_t batchRow = i / vectorsPerRow, batch = args.batch == 1 ? 0 : batchRow / args.m,
                   row = batchRow - batch * args.m;
    const int column = int(i - batchRow * vectorsPerRow) * vectorWidth;
    const int64_t at = batch * args.outStride + row * args.ldo + column;
    float value[vectorWidth], other[vectorWidth];
    load8(args.product, batch * args.productStride + row * args.ldProduct + column, outBf16, value);
    if (args.rowScale) {
      const float rowScale = args.rowScale[batchRow];
      load8(args.columnScale, int64_t(batch) * args.n + column, false, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] *= rowScale * other[j];
    }
    if (args.bias) {
      load8(args.bias, batch * args.biasStride + column, args.biasDtype == DITRUN_BF16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
#pragma unroll
    for (int j = 0; j < vectorWidth; j++) value[j] = activateFor<activation>(value[j], outBf16);
    if (args.gate) {
      load8(args.gate, column, false, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] *= other[j];
    }
    if (args.residual) {
      load8(args.residual, batch * args.residualStride + row * args.ldResidual + column,
            args.residualDtype == DITRUN_BF16, other);
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) value[j] += other[j];
    }
    store8(args.out, at, outBf16, value);
  }
}

__global__ void finishOnes(const __grid_constant__ GemmFinish args) {
  const int64_t count = int64_t(args.m) * args.batch * args.n, threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    const int64_t batchRow = i / args.n;
    const int column = int(i - batchRow * args.n), batch = int(batchRow / args.m),
              row = int(batchRow - int64_t(batch) * args.m);
    const int64_t at = batch * args.outStride + row * args.ldo + column;
    float value = loadOne(args.product, batch * args.productStride + row * args.ldProduct + column, args.productDtype);
    if (args.rowScale) value *= args.rowScale[batchRow] * args.columnScale[int64_t(batch) * args.n + column];
    if (args.bias) value += loadOne(args.bias, batch * args.biasStride + column, args.biasDtype);
    value = activate(value, args.activation);
    if (args.gate) value *= args.gate[column];
    if (args.residual)
      value += loadOne(args.residual, batch * args.residualStride + row * args.ldResidual + column, args.residualDtype);
    if (args.outScale) value *= reciprocalOfNormal(args.outScale[batchRow]);
    storeOne(args.out, at, args.outDtype, value);
  }
}

static bool multipleOf8(int64_t value) { return value % vectorWidth == 0; }
static bool aligned(const void *pointer) { return aligned16(reinterpret_cast<uint64_t>(pointer)); }

int gemmFinish(const GemmFinish &args, cudaStream_t stream) {
  const int64_t count = int64_t(args.m) * args.n * args.batch;
  const bool floats = isFloat(args.outDtype) && (!args.bias || isFloat(args.biasDtype)) &&
                      (!args.residual || isFloat(args.residualDtype));
  const bool vectorized = floats && args.productDtype == args.outDtype && count / vectorWidth < (int64_t(1) << 31) &&
                          multipleOf8(args.n) && multipleOf8(args.ldo) && multipleOf8(args.outStride) &&
                          multipleOf8(args.biasStride) && multipleOf8(args.ldProduct) &&
                          multipleOf8(args.productStride) && multipleOf8(args.residual ? args.ldResidual : 0) &&
                          multipleOf8(args.residualStride) && aligned(args.out) && aligned(args.product) &&
                          aligned(args.columnScale) && aligned(args.gate) && aligned(args.bias) &&
                          aligned(args.residual);
  const int threads = 256,
            blocks = gridFor(vectorized ? count / vectorWidth : count, threads, deviceFacts().multiprocessors);
  if (!vectorized) {
    finishOnes<<<blocks, threads, 0, stream>>>(args);
    return launched("ditrun_gemm (finish)");
  }
  switch (args.activation) {
    case DITRUN_GELU:
      finishVectors<DITRUN_GELU><<<blocks, threads, 0, stream>>>(args);
      break;
    case DITRUN_GELU_TANH:
      finishVectors<DITRUN_GELU_TANH><<<blocks, threads, 0, stream>>>(args);
      break;
    case DITRUN_SILU:
      finishVectors<DITRUN_SILU><<<blocks, threads, 0, stream>>>(args);
      break;
    default:
      finishVectors<DITRUN_IDENTITY><<<blocks, threads, 0, stream>>>(args);
  }
  return launched("ditrun_gemm (finish)");
}
