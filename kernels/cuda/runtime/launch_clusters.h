// Launches of kernels that need more shared memory than the default, in clusters of blocks or without.
#pragma once
#include <cuda_runtime.h>

#include "runtime/check.h"

/** Queues the kernel in clusters of clusterBlocks neighbouring blocks (1: none); blocks is a multiple of it. The status
 * of the launch. */
template <class Parameters>
int launchClusters(void (*kernel)(Parameters), const Parameters &parameters, int blocks, int clusterBlocks, int threads,
                   int sharedBytes, cudaStream_t stream) {
  CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = sharedBytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = clusterBlocks;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = clusterBlocks > 1 ? 1 : 0;
  CUDA_TRY(cudaLaunchKernelEx(&config, kernel, parameters));
  return DITRUN_OK;
}
