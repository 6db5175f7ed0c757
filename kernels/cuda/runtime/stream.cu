// Streams, events and graphs.
#include "runtime/device.h"

int ditrun_stream_create(int highPriority, uint64_t *stream) {
  TRY(useDevice());
  if (!stream) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_stream_create needs a place for the stream.");
  int lowest = 0, highest = 0;
  CUDA_TRY(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t created = nullptr;
  CUDA_TRY(cudaStreamCreateWithPriority(&created, cudaStreamNonBlocking, highPriority ? highest : lowest));
  *stream = reinterpret_cast<uint64_t>(created);
  return DITRUN_OK;
}

int ditrun_stream_destroy(uint64_t stream) {
  if (stream == 0) return DITRUN_OK;
  TRY(useDevice());
  gemmForgetStream(asStream(stream));
  CUDA_TRY(cudaStreamDestroy(asStream(stream)));
  return DITRUN_OK;
}

int ditrun_stream_synchronize(uint64_t stream) {
  TRY(useDevice());
  CUDA_TRY(cudaStreamSynchronize(asStream(stream)));
  return DITRUN_OK;
}

int ditrun_event_create(uint64_t *event) {
  TRY(useDevice());
  if (!event) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_event_create needs a place for the event.");
  cudaEvent_t created = nullptr;
  CUDA_TRY(cudaEventCreateWithFlags(&created, cudaEventBlockingSync));
  *event = reinterpret_cast<uint64_t>(created);
  return DITRUN_OK;
}

int ditrun_event_destroy(uint64_t event) {
  if (event == 0) return DITRUN_OK;
  TRY(useDevice());
  CUDA_TRY(cudaEventDestroy(reinterpret_cast<cudaEvent_t>(event)));
  return DITRUN_OK;
}

int ditrun_event_record(uint64_t event, uint64_t stream) {
  TRY(useDevice());
  CUDA_TRY(cudaEventRecord(reinterpret_cast<cudaEvent_t>(event), asStream(stream)));
  return DITRUN_OK;
}

int ditrun_stream_wait_event(uint64_t stream, uint64_t event) {
  TRY(useDevice());
  CUDA_TRY(cudaStreamWaitEvent(asStream(stream), reinterpret_cast<cudaEvent_t>(event), cudaEventWaitDefault));
  return DITRUN_OK;
}

int ditrun_event_elapsed(uint64_t start, uint64_t end, float *milliseconds) {
  TRY(useDevice());
  if (!milliseconds) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_event_elapsed needs a place for the time.");
  CUDA_TRY(
      cudaEventElapsedTime(milliseconds, reinterpret_cast<cudaEvent_t>(start), reinterpret_cast<cudaEvent_t>(end)));
  return DITRUN_OK;
}

int ditrun_capture_begin(uint64_t stream) {
  TRY(useDevice());
  // Relaxed: the calls of one capture may come from several threads, and libraries may load their kernels meanwhile.
  CUDA_TRY(cudaStreamBeginCapture(asStream(stream), cudaStreamCaptureModeRelaxed));
  return DITRUN_OK;
}

int ditrun_capture_end(uint64_t stream, uint64_t *graph) {
  TRY(useDevice());
  if (!graph) return fail(DITRUN_INVALID_ARGUMENT, "ditrun_capture_end needs a place for the graph.");
  cudaGraph_t recorded = nullptr;
  CUDA_TRY(cudaStreamEndCapture(asStream(stream), &recorded));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, recorded, 0);
  const cudaError_t destroyed = cudaGraphDestroy(recorded);
  if (error != cudaSuccess) return failCuda(error, "cudaGraphInstantiate");
  *graph = reinterpret_cast<uint64_t>(executable);
  CUDA_TRY(destroyed);
  return DITRUN_OK;
}

int ditrun_graph_launch(uint64_t graph, uint64_t stream) {
  TRY(useDevice());
  CUDA_TRY(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), asStream(stream)));
  return DITRUN_OK;
}

int ditrun_graph_destroy(uint64_t graph) {
  if (graph == 0) return DITRUN_OK;
  TRY(useDevice());
  CUDA_TRY(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph)));
  return DITRUN_OK;
}
