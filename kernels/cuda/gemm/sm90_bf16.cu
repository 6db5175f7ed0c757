// The bf16 instances of the Hopper GEMM.
#include "gemm/sm90.cuh"

int gemm_sm90::launch_bf16(int tile, int outDtype, int activation, const Parameters &p, int blocks, cudaStream_t stream) {
  switch (tile) {
    case 1: return launch_for<GemmShared256, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
    case 5: return launch_for<GemmShared128, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
    default: return launch_for<GemmResident128, DITRUN_BF16>(outDtype, activation, p, blocks, stream);
  }
}
