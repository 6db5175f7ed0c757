// The e4m3 instances of the Hopper GEMM.
#include "gemm/sm90.cuh"

int gemm_sm90::launch_e4m3(int tile, int outDtype, int activation, const Parameters &p, int blocks, cudaStream_t stream) {
  switch (tile) {
    case 0: return launch_for<GemmShared256x2, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    case 2: return launch_for<GemmShared192Promoted, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    case 6: return launch_block_scales<GemmShared192Blocks>(outDtype, p, blocks, stream);
    case 3: return launch_for<GemmResident128, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
    default: return launch_for<GemmResident256, DITRUN_E4M3>(outDtype, activation, p, blocks, stream);
  }
}
