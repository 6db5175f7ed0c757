/** A device address, stream, event, graph or communicator as the C ABI hands them out (always below 2^53); 0 is none. */
export type Handle = number;
export type Address = Handle;

/** C prototypes of kernels/include/ditrun.h. Structs follow below; a test compares this list with the header and the modules. */
export const prototypes = {
  abiVersion: "int ditrun_abi_version(void)",
  module: "const char *ditrun_module(void)",
  lastError: "const char *ditrun_last_error(void)",
  deviceCount: "int ditrun_device_count(_Out_ int *count)",
  deviceOpen: "int ditrun_device_open(int device)",
  deviceClose: "int ditrun_device_close(void)",
  deviceInfo: "int ditrun_device_info(_Out_ uint8_t *json, int capacity)",
  malloc: "int ditrun_malloc(uint64_t bytes, int memory, _Out_ uint64_t *address)",
  free: "int ditrun_free(uint64_t address)",
  memoryUsed: "int ditrun_memory_used(_Out_ uint64_t *now, _Out_ uint64_t *peak)",
  peerExport: "int ditrun_peer_export(uint64_t address, _Out_ uint8_t *handle)",
  peerOpen: "int ditrun_peer_open(const uint8_t *handle, _Out_ uint64_t *address)",
  peerClose: "int ditrun_peer_close(uint64_t address)",
  upload: "int ditrun_upload(uint64_t destination, const void *source, uint64_t bytes, uint64_t stream)",
  download: "int ditrun_download(_Out_ uint8_t *destination, uint64_t source, uint64_t bytes, uint64_t stream)",
  copy: "int ditrun_copy(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream)",
  copy2d:
    "int ditrun_copy_2d(uint64_t destination, uint64_t destinationPitch, uint64_t source, uint64_t sourcePitch, uint64_t rowBytes, uint64_t rows, uint64_t stream)",
  fillZero: "int ditrun_fill_zero(uint64_t destination, uint64_t bytes, uint64_t stream)",
  streamCreate: "int ditrun_stream_create(int highPriority, _Out_ uint64_t *stream)",
  streamDestroy: "int ditrun_stream_destroy(uint64_t stream)",
  streamSynchronize: "int ditrun_stream_synchronize(uint64_t stream)",
  eventCreate: "int ditrun_event_create(_Out_ uint64_t *event)",
  eventDestroy: "int ditrun_event_destroy(uint64_t event)",
  eventRecord: "int ditrun_event_record(uint64_t event, uint64_t stream)",
  streamWaitEvent: "int ditrun_stream_wait_event(uint64_t stream, uint64_t event)",
  eventElapsed: "int ditrun_event_elapsed(uint64_t start, uint64_t end, _Out_ float *milliseconds)",
  captureBegin: "int ditrun_capture_begin(uint64_t stream)",
  captureEnd: "int ditrun_capture_end(uint64_t stream, _Out_ uint64_t *graph)",
  graphLaunch: "int ditrun_graph_launch(uint64_t graph, uint64_t stream)",
  graphDestroy: "int ditrun_graph_destroy(uint64_t graph)",
  flagsWrite: "int ditrun_flags_write(const uint64_t *flags, int count, uint32_t value, uint64_t stream)",
  flagsWait: "int ditrun_flags_wait(const uint64_t *flags, int count, int reset, uint64_t stream)",
  gemm: "int ditrun_gemm(const ditrun_gemm_args *args, uint64_t stream)",
  attention: "int ditrun_attention(const ditrun_attention_args *args, uint64_t stream)",
  kvStatistics:
    "int ditrun_kv_statistics(uint64_t statistics, uint64_t workspace, uint64_t k, int64_t ldk, uint64_t v, int64_t ldv, int rows, int columns, int dtype, uint64_t stream)",
  quantizeKv: "int ditrun_quantize_kv(const ditrun_quantize_kv_args *args, uint64_t stream)",
  layerNorm: "int ditrun_layer_norm(const ditrun_layer_norm_args *args, uint64_t stream)",
  activate: "int ditrun_activate(uint64_t out, uint64_t x, int64_t count, int dtype, int activation, uint64_t stream)",
  add: "int ditrun_add(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream)",
  addRows:
    "int ditrun_add_rows(uint64_t out, uint64_t x, uint64_t rowTable, uint64_t vector, int rows, int columns, int dtype, uint64_t stream)",
  cast: "int ditrun_cast(uint64_t out, int outDtype, uint64_t x, int xDtype, int64_t count, uint64_t stream)",
  quantizeRows:
    "int ditrun_quantize_rows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns, int xDtype, uint64_t stream)",
  countNonfinite: "int ditrun_count_nonfinite(uint64_t result, uint64_t x, int64_t count, int dtype, uint64_t stream)",
  patchify:
    "int ditrun_patchify(uint64_t out, int outDtype, uint64_t image, int imageDtype, int channels, int height, int width, int patch, int firstToken, int tokens, uint64_t stream)",
  unpatchify:
    "int ditrun_unpatchify(uint64_t image, int imageDtype, uint64_t x, int xDtype, int channels, int height, int width, int patch, int firstToken, int tokens, uint64_t stream)",
  sincosEmbedding:
    "int ditrun_sincos_embedding(uint64_t out, int outDtype, uint64_t positions, int rows, int width, int firstColumn, int columns, uint64_t stream)",
  sincos2d:
    "int ditrun_sincos_2d(uint64_t out, int outDtype, int gridWidth, int firstToken, int tokens, int width, int firstColumn, int columns, uint64_t stream)",
  rmsNorm: "int ditrun_rms_norm(const ditrun_rms_norm_args *args, uint64_t stream)",
  rowSumSquares:
    "int ditrun_row_sum_squares(uint64_t out, uint64_t x, int64_t ldx, int rows, int columns, int xDtype, uint64_t stream)",
  rope3d:
    "int ditrun_rope_3d(uint64_t out, int gridHeight, int gridWidth, int firstToken, int tokens, int headDim, uint64_t stream)",
  addGated:
    "int ditrun_add_gated(uint64_t out, uint64_t x, int xDtype, uint64_t y, int yDtype, uint64_t gate, int rows, int columns, uint64_t stream)",
  multiply: "int ditrun_multiply(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream)",
  combine:
    "int ditrun_combine(uint64_t out, const uint64_t *sources, const float *coefficients, int sourceCount, int64_t count, uint64_t stream)",
  gatherRows:
    "int ditrun_gather_rows(uint64_t out, int outDtype, uint64_t table, int tableDtype, int tableRows, uint64_t ids, int rows, int columns, uint64_t stream)",
  patchifyVideo:
    "int ditrun_patchify_video(uint64_t out, int outDtype, uint64_t latent, int latentDtype, int channels, int frames, int height, int width, int patch, int firstToken, int tokens, uint64_t stream)",
  unpatchifyVideo:
    "int ditrun_unpatchify_video(uint64_t latent, int latentDtype, uint64_t x, int xDtype, int channels, int frames, int height, int width, int patch, int firstToken, int tokens, uint64_t stream)",
  conv3d: "int ditrun_conv3d(const ditrun_conv3d_args *args, uint64_t stream)",
  transpose:
    "int ditrun_transpose(uint64_t out, uint64_t x, int batch, int rows, int columns, int dtype, uint64_t stream)",
  softmaxRows:
    "int ditrun_softmax_rows(uint64_t out, int outDtype, uint64_t x, int xDtype, int rows, int columns, float scale, uint64_t stream)",
  toBytes:
    "int ditrun_to_bytes(uint64_t out, uint64_t nonfinite, uint64_t x, int xDtype, int64_t count, uint64_t stream)",
  fillRandom: "int ditrun_fill_random(const ditrun_random_args *args, uint64_t stream)",
  sum: "int ditrun_sum(uint64_t out, uint64_t base, uint64_t bias, int columns, const uint64_t *sources, int sourceCount, int64_t count, int dtype, int sourceDtype, uint64_t stream)",
  peerSum: "int ditrun_peer_sum(const ditrun_peer_sum_args *args, uint64_t stream)",
  peerGather:
    "int ditrun_peer_gather(uint64_t out, const uint64_t *blocks, const int64_t *bytes, const uint64_t *signals, int rank, int ranks, uint64_t stream)",
  peerExchange: "int ditrun_peer_exchange(const ditrun_peer_exchange_args *args, uint64_t stream)",
  ncclUniqueId: "int ditrun_nccl_unique_id(_Out_ uint8_t *id)",
  ncclInit: "int ditrun_nccl_init(const uint8_t *id, int rank, int size, _Out_ uint64_t *comm)",
  ncclDestroy: "int ditrun_nccl_destroy(uint64_t comm)",
  ncclCheck: "int ditrun_nccl_check(uint64_t comm)",
  ncclAllReduce:
    "int ditrun_nccl_all_reduce(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream)",
  ncclAllGather:
    "int ditrun_nccl_all_gather(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype, uint64_t stream)",
  ncclExchange:
    "int ditrun_nccl_exchange(uint64_t comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks, int sendCount, const uint64_t *receives, const int64_t *receiveBytes, const int *fromRanks, int receiveCount, uint64_t stream)",
} as const;

/** The structs of those prototypes: name -> fields in order, each with its C type. */
export const structs: Record<string, Record<string, string>> = {
  ditrun_gemm_args: fields({
    uint64_t: ["a", "w", "bias", "residual", "out", "aScale", "wScale", "gate", "outScale"],
    int64_t: ["lda", "ldw", "ldo", "ldResidual", "aStride", "wStride", "biasStride", "outStride", "residualStride"],
    int32_t: [
      "m",
      "n",
      "k",
      "batch",
      "dtype",
      "outDtype",
      "biasDtype",
      "residualDtype",
      "activation",
      "kernel",
      "aScaleColumns",
    ],
    float: ["alpha"],
  }),
  ditrun_kv_block: fields({
    uint64_t: ["k", "v", "flag"],
    int64_t: ["kStride", "vStride"],
    "uint64_t ": ["kScale"],
    int32_t: ["length", "reserved"],
  }),
  ditrun_attention_args: fields({
    uint64_t: ["q", "o", "lse", "previousO", "previousLse"],
    "ditrun_kv_block *": ["blocks"],
    "uint64_t ": ["relativeBias", "qScale", "vScale", "waitNanoseconds", "oScale", "workspace"],
    int64_t: ["qStride", "oStride", "workspaceBytes"],
    int32_t: ["queries", "heads", "headDim", "blockCount", "dtype", "oDtype", "kernel"],
    float: ["scale"],
  }),
  ditrun_quantize_kv_args: fields({
    uint64_t: ["k", "v", "statistics", "outK", "outV", "kScale", "vScale"],
    int64_t: ["ldk", "ldv", "totalRows"],
    int32_t: ["rows", "heads", "headDim", "statisticsCount", "dtype", "reserved"],
  }),
  ditrun_layer_norm_args: fields({
    uint64_t: ["x", "weight", "bias", "out", "quantized", "quantizedScale", "bound", "modScale", "modShift"],
    int64_t: ["ldx", "ldo"],
    int32_t: ["rows", "columns", "xDtype", "weightDtype", "outDtype"],
    float: ["epsilon", "boundFactor", "boundTerm"],
  }),
  ditrun_rms_norm_args: fields({
    uint64_t: ["x", "weight", "out", "quantized", "quantizedScale", "sumSquares", "rope"],
    int64_t: ["ldx", "ldo", "groupStride"],
    int32_t: [
      "rows",
      "columns",
      "fullColumns",
      "headDim",
      "groupRows",
      "xDtype",
      "weightDtype",
      "outDtype",
      "activation",
    ],
    float: ["epsilon"],
  }),
  ditrun_conv3d_args: fields({
    uint64_t: ["x", "history", "weight", "bias", "residual", "out"],
    int32_t: ["frames", "height", "width", "inChannels", "outChannels", "kernelT", "kernelH", "kernelW"],
    "int32_t ": [
      "strideT",
      "strideH",
      "strideW",
      "padTop",
      "padBottom",
      "padLeft",
      "padRight",
      "upsample",
      "dtype",
      "kernel",
    ],
  }),
  ditrun_random_args: fields({
    uint64_t: ["out", "seed"],
    int64_t: ["row0", "column0", "fullColumns", "ldo"],
    int32_t: ["rows", "columns"],
    uint32_t: ["tensorId"],
    "int32_t ": ["distribution"],
    float: ["amplitude", "offset"],
    "int32_t  ": ["outDtype", "reserved"],
  }),
  ditrun_neighbour: fields({
    uint64_t: ["send", "receive", "theirEven", "theirOdd", "ownEven", "ownOdd", "theirSignals", "ownSignals"],
  }),
  ditrun_peer_exchange_args: fields({
    "ditrun_neighbour *": ["neighbours"],
    int64_t: ["pitch", "rowBytes"],
    int32_t: ["rows", "neighbourCount"],
  }),
  ditrun_peer_sum_args: fields({
    "uint64_t *": ["blocks", "signals"],
    uint64_t: ["out", "base", "bias", "gate"],
    int64_t: ["total", "first", "count"],
    int32_t: ["rank", "ranks", "columns", "dtype", "sourceDtype", "biasDtype", "shots", "reserved"],
  }),
};

/** Field name -> C type, in order; keys that differ only in trailing spaces are the same type further down the struct. */
function fields(byType: Record<string, string[]>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(byType).flatMap(([type, names]) => names.map((name) => [name, type.trim()])),
  );
}

export const deviceDtypes = { fp32: 0, bf16: 1, e4m3: 2, fp16: 3, i32: 4, u8: 5 } as const;
export const activations = { identity: 0, gelu: 1, geluTanh: 2, silu: 3 } as const;
export const memoryKinds = { device: 0, peer: 1 } as const;
export const distributions = { uniform: 0, normal: 1 } as const;
export const attentionKernels = { auto: 0, generic: 1, sm80: 2, sm90: 3 } as const;
/** DITRUN_PEER_ERROR of ditrun_status. */
export const PEER_ERROR = 6;
export const HANDLE_BYTES = 128;
export const NCCL_ID_BYTES = 128;
/** DITRUN_ABI_VERSION, DITRUN_ATTENTION_WORKSPACE, DITRUN_FP8_KEYS, DITRUN_STATISTICS_PARTS, DITRUN_PEER_BLOCKS and DITRUN_SHARE_UNIT of the header. */
export const ABI_VERSION = 5;
export const ATTENTION_WORKSPACE = 33554432;
export const FP8_KEYS = 128;
export const STATISTICS_PARTS = 64;
export const PEER_BLOCKS = 128;
export const SHARE_UNIT = 8;

export type KernelName = keyof typeof prototypes;
