// Host side of the Hopper attention kernel in e4m3: argument checks, tensor maps, launch.
#include "attention/attention.h"

#include <cmath>

#include "attention/fp8_sm90_kernel.cuh"
#include "attention/sm90_arguments.h"
#include "runtime/device.h"
#include "runtime/check.h"
#include "runtime/last_wave.h"
#include "runtime/tensor_map.h"

namespace {

using attentionFp8::kUnit;
using attentionFp8::Parameters;
using attentionFp8::Shape;

template <int headDim, typename Output>
int launch(const ditrun_attention_args &args, cudaStream_t stream) {
  using S = Shape<headDim>;
  Parameters p;
  const int64_t width = static_cast<int64_t>(args.heads) * headDim;
  const auto encode = [](CUtensorMap *map, const char *name, uint64_t address, int64_t stride, int64_t rows,
                         int64_t columns, int boxRows, int boxColumns) {
    return encodeTensorMap(map, matrixInBoxes(name, DITRUN_E4M3, address, stride, rows, columns, boxRows, boxColumns));
  };
  TRY(encode(&p.q, "q", args.q, args.qStride, args.queries, width, S::queries, headDim));
  for (int i = 0; i < args.blockCount; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    TRY(encode(&p.k[i], "k", block.k, block.kStride, block.length, width, kUnit, headDim));
    TRY(encode(&p.v[i], "v", block.v, block.vStride, width, block.vStride, headDim, kUnit));
    p.flags[i] = reinterpret_cast<const uint32_t *>(block.flag);
    p.kScale[i] = reinterpret_cast<const float *>(block.kScale);
    p.length[i] = block.length;
  }
  p.qScale = reinterpret_cast<const float *>(args.qScale);
  p.vScale = reinterpret_cast<const float *>(args.vScale);
  takeArguments(p, args);

  p.oScale = reinterpret_cast<float *>(args.oScale);
  p.queryTiles = (args.queries + S::queries - 1) / S::queries;
  const int blocks = p.queryTiles * args.heads, keyTiles = (args.blocks[0].length + kUnit - 1) / kUnit;
  constexpr int64_t shareBytes = S::queries * (headDim + 1) * sizeof(float);
  const LastWave last = args.blockCount == 1 ? shareLastWave(blocks, keyTiles, deviceFacts().multiprocessors,
                                                             args.workspaceBytes / shareBytes)
                                             : LastWave{0, 1};
  p.wholeBlocks = blocks - last.tiles;
  p.shares = last.shares;
  p.sharedO = reinterpret_cast<float *>(args.workspace);
  p.sharedLse = p.sharedO + static_cast<int64_t>(last.tiles) * last.shares * S::queries * headDim;

  const auto kernel = attentionFp8::attentionFp8Kernel<headDim, Output>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::sharedBytes);
  if (error == cudaSuccess) {
    kernel<<<p.wholeBlocks + last.tiles * last.shares, S::threads, S::sharedBytes, stream>>>(p);
    error = cudaGetLastError();
  }
  if (error == cudaSuccess && last.tiles > 0) {
    constexpr int rowsPerBlock = 256 / (headDim / 4);
    attentionFp8::joinSharesKernel<headDim, Output>
        <<<last.tiles * S::queries / rowsPerBlock, 256, 0, stream>>>(p, last.tiles);
    error = cudaGetLastError();
  }
  if (error != cudaSuccess)
    return fail(DITRUN_DEVICE_ERROR,
                "The sm_90 attention kernel in e4m3 (head dimension %d, %d queries, %d heads) did not start: %s.",
                headDim, args.queries, args.heads, cudaGetErrorString(error));
  return DITRUN_OK;
}

template <int headDim>
int launchForOutput(const ditrun_attention_args &args, cudaStream_t stream) {
  if (args.oDtype == DITRUN_E4M3) return launch<headDim, __nv_fp8_e4m3>(args, stream);
  return args.oDtype == DITRUN_F32 ? launch<headDim, float>(args, stream)
                                   : launch<headDim, __nv_bfloat16>(args, stream);
}

}  // namespace

bool attentionFp8Sm90Fits(const ditrun_attention_args &args) {
  if (args.dtype != DITRUN_E4M3 || args.relativeBias != 0) return false;
  if (args.headDim != 32 && args.headDim != 64 && args.headDim != 128) return false;
  if (!(args.scale > 0.0f) || !std::isfinite(args.scale)) return false;
  if (!bytesAligned(args.q, args.qStride) || args.o % 8 != 0 || args.oStride % 2 != 0 || args.previousO % 16 != 0)
    return false;
  for (int i = 0; i < args.blockCount; ++i) {
    const ditrun_kv_block &block = args.blocks[i];
    if (!bytesAligned(block.k, block.kStride) || !bytesAligned(block.v, block.vStride)) return false;
  }
  return deviceHasWgmma();
}

int attentionFp8Sm90(const ditrun_attention_args &args, cudaStream_t stream) {
  switch (args.headDim) {
    case 32:
      return launchForOutput<32>(args, stream);
    case 64:
      return launchForOutput<64>(args, stream);
    default:
      return launchForOutput<128>(args, stream);
  }
}
