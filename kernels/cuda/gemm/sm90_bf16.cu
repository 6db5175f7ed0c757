// The bf16 instances of the Hopper GEMM.
#include "gemm/sm90.cuh"

int hopperGemm::launchBf16(int tile, int outDtype, int activation, const Parameters &p, int blocks,
                           cudaStream_t stream) {
  switch (tile) {
    case 1:
      return launchFor<GemmShared256, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
    case 5:
      return launchFor<GemmShared128, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
    default:
      return launchFor<GemmResident128, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
  }
}
