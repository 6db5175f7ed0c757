// From the host side of the Hopper GEMM to its instances, which are compiled in a file per dtype.
#pragma once
#include "gemm/sm90_kernel.cuh"
#include "runtime/launch_clusters.h"

namespace hopperGemm {

/** What the host needs to know of a tile. */
struct TileFacts {
  int rows, columns, cluster, residentSteps;
  int promoteSteps;  // k must have more
  bool blockScales;
  bool bf16, e4m3;  // which instances there are
};

/** Queues one instance; the status of the launch. */
int launchBf16(int tile, int outDtype, int activation, const Parameters &p, int blocks, cudaStream_t stream);
int launchE4m3(int tile, int outDtype, int activation, const Parameters &p, int blocks, cudaStream_t stream);

template <class Tile, int dtype, int outDtype, int activation, bool hasResidual>
int launch(const Parameters &p, int blocks, cudaStream_t stream) {
  using S = Shape<Tile, dtype, outDtype>;
  const auto kernel = gemmKernel<Tile, dtype, outDtype, activation, hasResidual>;
  return launchClusters(kernel, p, blocks, Tile::cluster, 384, S::sharedBytes, stream);
}

template <class Tile, int dtype, int outDtype>
int launchActivation(int activation, const Parameters &p, int blocks, cudaStream_t stream) {
  switch (activation) {
    case DITRUN_GELU:
      return launch<Tile, dtype, outDtype, DITRUN_GELU, false>(p, blocks, stream);
    case DITRUN_GELU_TANH:
      return launch<Tile, dtype, outDtype, DITRUN_GELU_TANH, false>(p, blocks, stream);
    default:
      return launch<Tile, dtype, outDtype, DITRUN_IDENTITY, false>(p, blocks, stream);
  }
}

template <class Tile, int dtype>
int launchFor(int outDtype, int activation, const Parameters &p, int blocks, cudaStream_t stream) {
  if (outDtype == DITRUN_F32)
    return p.residual ? launch<Tile, dtype, DITRUN_F32, DITRUN_IDENTITY, true>(p, blocks, stream)
                      : launch<Tile, dtype, DITRUN_F32, DITRUN_IDENTITY, false>(p, blocks, stream);
  if constexpr (dtype == DITRUN_E4M3)
    if (outDtype == DITRUN_E4M3) return launchActivation<Tile, dtype, DITRUN_E4M3>(activation, p, blocks, stream);
  if (outDtype == DITRUN_F16) return launch<Tile, dtype, DITRUN_F16, DITRUN_IDENTITY, false>(p, blocks, stream);
  return launchActivation<Tile, dtype, DITRUN_BF16>(activation, p, blocks, stream);
}

/** The instances of a tile with blockScales: no activation. */
template <class Tile>
int launchBlockScales(int outDtype, const Parameters &p, int blocks, cudaStream_t stream) {
  if (outDtype == DITRUN_BF16) return launch<Tile, DITRUN_E4M3, DITRUN_BF16, DITRUN_IDENTITY, false>(p, blocks, stream);
  return p.residual ? launch<Tile, DITRUN_E4M3, DITRUN_F32, DITRUN_IDENTITY, true>(p, blocks, stream)
                    : launch<Tile, DITRUN_E4M3, DITRUN_F32, DITRUN_IDENTITY, false>(p, blocks, stream);
}

}  // namespace hopperGemm
