// The e4m3 instances of the Hopper GEMM.
#include "gemm/sm90.cuh"

int hopperGemm::launchE4m3(int tile, int outDtype, int activation, const Parameters &p, int blocks,
                           cudaStream_t stream) {
  switch (tile) {
    case 0:
      return launchFor<GemmShared256x2, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    case 2:
      return launchFor<GemmShared192Promoted, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    case 6:
      return launchBlockScales<GemmShared192Blocks>(outDtype, p, blocks, stream);
    case 3:
      return launchFor<GemmResident128, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    default:
      return launchFor<GemmResident256, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
  }
}
