// Written by kernels/abi/generate.js from kernels/include/ditrun.h, which says what all of this means. Change the header, not this.

/** A device address, stream, event, graph or communicator as the C ABI hands them out (always below 2^53); 0 is none. */
export type Handle = number;
export type Address = Handle;
/** Where a function writes one number. */
export type Output = [null];

export const ABI_VERSION = 6;
export const HANDLE_BYTES = 128;
export const MAX_KV_BLOCKS = 16;
export const ATTENTION_WORKSPACE = 33554432;
export const FP8_KEYS = 128;
export const STATISTICS_PARTS = 64;
export const READER_SLOTS = 2;
export const READER_LEAST_PIECE = 65536;
export const PEER_BLOCKS = 128;
export const MAX_PEERS = 32;
export const SHARE_UNIT = 8;
export const MAX_NEIGHBOURS = 2;
export const NCCL_ID_BYTES = 128;

export const statuses = { ok: 0, invalidArgument: 1, deviceError: 2, libraryMissing: 3, unsupported: 4, outOfMemory: 5, peerError: 6, fileError: 7 } as const;
export const deviceDtypes = { fp32: 0, bf16: 1, e4m3: 2, fp16: 3, i32: 4, u8: 5 } as const;
export const activations = { identity: 0, gelu: 1, geluTanh: 2, silu: 3 } as const;
export const memoryKinds = { device: 0, peer: 1 } as const;
export const distributions = { uniform: 0, normal: 1 } as const;
export const attentionKernels = { auto: 0, generic: 1, sm80: 2, sm90: 3 } as const;
export const storedKinds = { F32: 0, F16: 1, BF16: 2, F64: 3, F8_E4M3: 4, F8_E5M2: 5, I8: 6, Q8_0: 7, Q4_0: 8, Q4_1: 9, Q5_0: 10, Q5_1: 11, IQ4_NL: 12, Q2_K: 13, Q3_K: 14, Q4_K: 15, Q5_K: 16, Q6_K: 17, IQ4_XS: 18 } as const;

export interface GemmArgs {
  readonly a: Address;
  readonly w: Address;
  readonly bias: Address;
  readonly residual: Address;
  readonly out: Address;
  readonly aScale: Address;
  readonly wScale: Address;
  readonly gate: Address;
  readonly outScale: Address;
  readonly lda: number;
  readonly ldw: number;
  readonly ldo: number;
  readonly ldResidual: number;
  readonly aStride: number;
  readonly wStride: number;
  readonly biasStride: number;
  readonly outStride: number;
  readonly residualStride: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly dtype: number;
  readonly outDtype: number;
  readonly biasDtype: number;
  readonly residualDtype: number;
  readonly activation: number;
  readonly kernel: number;
  readonly aScaleColumns: number;
  readonly alpha: number;
}

export interface KvBlock {
  readonly k: Address;
  readonly v: Address;
  readonly flag: Address;
  readonly kStride: number;
  readonly vStride: number;
  readonly kScale: Address;
  readonly length: number;
  readonly reserved: number;
}

export interface AttentionArgs {
  readonly q: Address;
  readonly o: Address;
  readonly lse: Address;
  readonly previousO: Address;
  readonly previousLse: Address;
  readonly blocks: readonly KvBlock[];
  readonly relativeBias: Address;
  readonly qScale: Address;
  readonly vScale: Address;
  readonly waitNanoseconds: Address;
  readonly oScale: Address;
  readonly workspace: Address;
  readonly qStride: number;
  readonly oStride: number;
  readonly workspaceBytes: number;
  readonly queries: number;
  readonly heads: number;
  readonly headDim: number;
  readonly blockCount: number;
  readonly dtype: number;
  readonly oDtype: number;
  readonly kernel: number;
  readonly scale: number;
}

export interface QuantizeKvArgs {
  readonly k: Address;
  readonly v: Address;
  readonly statistics: Address;
  readonly outK: Address;
  readonly outV: Address;
  readonly kScale: Address;
  readonly vScale: Address;
  readonly ldk: number;
  readonly ldv: number;
  readonly totalRows: number;
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
  readonly statisticsCount: number;
  readonly dtype: number;
  readonly reserved: number;
}

export interface LayerNormArgs {
  readonly x: Address;
  readonly weight: Address;
  readonly bias: Address;
  readonly out: Address;
  readonly quantized: Address;
  readonly quantizedScale: Address;
  readonly bound: Address;
  readonly modScale: Address;
  readonly modShift: Address;
  readonly ldx: number;
  readonly ldo: number;
  readonly rows: number;
  readonly columns: number;
  readonly xDtype: number;
  readonly weightDtype: number;
  readonly outDtype: number;
  readonly epsilon: number;
  readonly boundFactor: number;
  readonly boundTerm: number;
}

export interface RmsNormArgs {
  readonly x: Address;
  readonly weight: Address;
  readonly out: Address;
  readonly quantized: Address;
  readonly quantizedScale: Address;
  readonly sumSquares: Address;
  readonly rope: Address;
  readonly ldx: number;
  readonly ldo: number;
  readonly groupStride: number;
  readonly rows: number;
  readonly columns: number;
  readonly fullColumns: number;
  readonly headDim: number;
  readonly groupRows: number;
  readonly xDtype: number;
  readonly weightDtype: number;
  readonly outDtype: number;
  readonly activation: number;
  readonly epsilon: number;
}

export interface Conv3dArgs {
  readonly x: Address;
  readonly history: Address;
  readonly weight: Address;
  readonly bias: Address;
  readonly residual: Address;
  readonly out: Address;
  readonly frames: number;
  readonly height: number;
  readonly width: number;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelT: number;
  readonly kernelH: number;
  readonly kernelW: number;
  readonly strideT: number;
  readonly strideH: number;
  readonly strideW: number;
  readonly padTop: number;
  readonly padBottom: number;
  readonly padLeft: number;
  readonly padRight: number;
  readonly upsample: number;
  readonly dtype: number;
  readonly kernel: number;
}

export interface RandomArgs {
  readonly out: Address;
  readonly seed: bigint;
  readonly row0: number;
  readonly column0: number;
  readonly fullColumns: number;
  readonly ldo: number;
  readonly rows: number;
  readonly columns: number;
  readonly tensorId: number;
  readonly distribution: number;
  readonly amplitude: number;
  readonly offset: number;
  readonly outDtype: number;
  readonly reserved: number;
}

export interface DecodeArgs {
  readonly out: Address;
  readonly x: Address;
  readonly scale: Address;
  readonly outScale: Address;
  readonly squares: Address;
  readonly rowBytes: number;
  readonly ldo: number;
  readonly columns: number;
  readonly firstColumn: number;
  readonly rows: number;
  readonly stored: number;
  readonly scaleRows: number;
  readonly outDtype: number;
}

export interface PeerSumArgs {
  readonly blocks: readonly Address[];
  readonly signals: readonly Address[];
  readonly out: Address;
  readonly base: Address;
  readonly bias: Address;
  readonly gate: Address;
  readonly total: number;
  readonly first: number;
  readonly count: number;
  readonly rank: number;
  readonly ranks: number;
  readonly columns: number;
  readonly dtype: number;
  readonly sourceDtype: number;
  readonly biasDtype: number;
  readonly shots: number;
  readonly reserved: number;
}

export interface Neighbour {
  readonly send: Address;
  readonly receive: Address;
  readonly theirEven: Address;
  readonly theirOdd: Address;
  readonly ownEven: Address;
  readonly ownOdd: Address;
  readonly theirSignals: Address;
  readonly ownSignals: Address;
}

export interface PeerExchangeArgs {
  readonly neighbours: readonly Neighbour[];
  readonly pitch: number;
  readonly rowBytes: number;
  readonly rows: number;
  readonly neighbourCount: number;
}

/** Of each struct its fields in order, with their C types. */
export const structs = {
  ditrun_gemm_args: {
    a: "uint64_t",
    w: "uint64_t",
    bias: "uint64_t",
    residual: "uint64_t",
    out: "uint64_t",
    aScale: "uint64_t",
    wScale: "uint64_t",
    gate: "uint64_t",
    outScale: "uint64_t",
    lda: "int64_t",
    ldw: "int64_t",
    ldo: "int64_t",
    ldResidual: "int64_t",
    aStride: "int64_t",
    wStride: "int64_t",
    biasStride: "int64_t",
    outStride: "int64_t",
    residualStride: "int64_t",
    m: "int32_t",
    n: "int32_t",
    k: "int32_t",
    batch: "int32_t",
    dtype: "int32_t",
    outDtype: "int32_t",
    biasDtype: "int32_t",
    residualDtype: "int32_t",
    activation: "int32_t",
    kernel: "int32_t",
    aScaleColumns: "int32_t",
    alpha: "float",
  },
  ditrun_kv_block: {
    k: "uint64_t",
    v: "uint64_t",
    flag: "uint64_t",
    kStride: "int64_t",
    vStride: "int64_t",
    kScale: "uint64_t",
    length: "int32_t",
    reserved: "int32_t",
  },
  ditrun_attention_args: {
    q: "uint64_t",
    o: "uint64_t",
    lse: "uint64_t",
    previousO: "uint64_t",
    previousLse: "uint64_t",
    blocks: "ditrun_kv_block *",
    relativeBias: "uint64_t",
    qScale: "uint64_t",
    vScale: "uint64_t",
    waitNanoseconds: "uint64_t",
    oScale: "uint64_t",
    workspace: "uint64_t",
    qStride: "int64_t",
    oStride: "int64_t",
    workspaceBytes: "int64_t",
    queries: "int32_t",
    heads: "int32_t",
    headDim: "int32_t",
    blockCount: "int32_t",
    dtype: "int32_t",
    oDtype: "int32_t",
    kernel: "int32_t",
    scale: "float",
  },
  ditrun_quantize_kv_args: {
    k: "uint64_t",
    v: "uint64_t",
    statistics: "uint64_t",
    outK: "uint64_t",
    outV: "uint64_t",
    kScale: "uint64_t",
    vScale: "uint64_t",
    ldk: "int64_t",
    ldv: "int64_t",
    totalRows: "int64_t",
    rows: "int32_t",
    heads: "int32_t",
    headDim: "int32_t",
    statisticsCount: "int32_t",
    dtype: "int32_t",
    reserved: "int32_t",
  },
  ditrun_layer_norm_args: {
    x: "uint64_t",
    weight: "uint64_t",
    bias: "uint64_t",
    out: "uint64_t",
    quantized: "uint64_t",
    quantizedScale: "uint64_t",
    bound: "uint64_t",
    modScale: "uint64_t",
    modShift: "uint64_t",
    ldx: "int64_t",
    ldo: "int64_t",
    rows: "int32_t",
    columns: "int32_t",
    xDtype: "int32_t",
    weightDtype: "int32_t",
    outDtype: "int32_t",
    epsilon: "float",
    boundFactor: "float",
    boundTerm: "float",
  },
  ditrun_rms_norm_args: {
    x: "uint64_t",
    weight: "uint64_t",
    out: "uint64_t",
    quantized: "uint64_t",
    quantizedScale: "uint64_t",
    sumSquares: "uint64_t",
    rope: "uint64_t",
    ldx: "int64_t",
    ldo: "int64_t",
    groupStride: "int64_t",
    rows: "int32_t",
    columns: "int32_t",
    fullColumns: "int32_t",
    headDim: "int32_t",
    groupRows: "int32_t",
    xDtype: "int32_t",
    weightDtype: "int32_t",
    outDtype: "int32_t",
    activation: "int32_t",
    epsilon: "float",
  },
  ditrun_conv3d_args: {
    x: "uint64_t",
    history: "uint64_t",
    weight: "uint64_t",
    bias: "uint64_t",
    residual: "uint64_t",
    out: "uint64_t",
    frames: "int32_t",
    height: "int32_t",
    width: "int32_t",
    inChannels: "int32_t",
    outChannels: "int32_t",
    kernelT: "int32_t",
    kernelH: "int32_t",
    kernelW: "int32_t",
    strideT: "int32_t",
    strideH: "int32_t",
    strideW: "int32_t",
    padTop: "int32_t",
    padBottom: "int32_t",
    padLeft: "int32_t",
    padRight: "int32_t",
    upsample: "int32_t",
    dtype: "int32_t",
    kernel: "int32_t",
  },
  ditrun_random_args: {
    out: "uint64_t",
    seed: "uint64_t",
    row0: "int64_t",
    column0: "int64_t",
    fullColumns: "int64_t",
    ldo: "int64_t",
    rows: "int32_t",
    columns: "int32_t",
    tensorId: "uint32_t",
    distribution: "int32_t",
    amplitude: "float",
    offset: "float",
    outDtype: "int32_t",
    reserved: "int32_t",
  },
  ditrun_decode_args: {
    out: "uint64_t",
    x: "uint64_t",
    scale: "uint64_t",
    outScale: "uint64_t",
    squares: "uint64_t",
    rowBytes: "int64_t",
    ldo: "int64_t",
    columns: "int64_t",
    firstColumn: "int64_t",
    rows: "int32_t",
    stored: "int32_t",
    scaleRows: "int32_t",
    outDtype: "int32_t",
  },
  ditrun_peer_sum_args: {
    blocks: "uint64_t *",
    signals: "uint64_t *",
    out: "uint64_t",
    base: "uint64_t",
    bias: "uint64_t",
    gate: "uint64_t",
    total: "int64_t",
    first: "int64_t",
    count: "int64_t",
    rank: "int32_t",
    ranks: "int32_t",
    columns: "int32_t",
    dtype: "int32_t",
    sourceDtype: "int32_t",
    biasDtype: "int32_t",
    shots: "int32_t",
    reserved: "int32_t",
  },
  ditrun_neighbour: {
    send: "uint64_t",
    receive: "uint64_t",
    theirEven: "uint64_t",
    theirOdd: "uint64_t",
    ownEven: "uint64_t",
    ownOdd: "uint64_t",
    theirSignals: "uint64_t",
    ownSignals: "uint64_t",
  },
  ditrun_peer_exchange_args: {
    neighbours: "ditrun_neighbour *",
    pitch: "int64_t",
    rowBytes: "int64_t",
    rows: "int32_t",
    neighbourCount: "int32_t",
  },
} as const;

/** C prototypes; _Out_ is koffi's word for what a function writes to. */
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
  decode: "int ditrun_decode(const ditrun_decode_args *args, uint64_t stream)",
  readerOpen: "int ditrun_reader_open(int threads, uint64_t pieceBytes, _Out_ uint64_t *reader)",
  readerClose: "int ditrun_reader_close(uint64_t reader)",
  readerSubmit:
    "int ditrun_reader_submit(uint64_t reader, int file, uint64_t offset, const ditrun_decode_args *args, const float *scales, int scaleCount, uint64_t after, _Out_ uint64_t *ticket)",
  readerWait: "int ditrun_reader_wait(uint64_t reader, uint64_t ticket, uint64_t before, _Out_ uint64_t *done)",
  readerFailure:
    "int ditrun_reader_failure(uint64_t reader, _Out_ uint64_t *ticket, _Out_ uint64_t *offset, _Out_ uint64_t *error)",
  sum:
    "int ditrun_sum(uint64_t out, uint64_t base, uint64_t bias, int columns, const uint64_t *sources, int sourceCount, int64_t count, int dtype, int sourceDtype, uint64_t stream)",
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

export type KernelName = keyof typeof prototypes;

/** What functions take whose last parameter is a stream, without that. */
export interface OnStream {
  upload: [destination: number, source: Uint8Array, bytes: number];
  download: [destination: Uint8Array, source: number, bytes: number];
  copy: [destination: number, source: number, bytes: number];
  copy2d: [destination: number, destinationPitch: number, source: number, sourcePitch: number, rowBytes: number, rows: number];
  fillZero: [destination: number, bytes: number];
  streamDestroy: [];
  streamSynchronize: [];
  eventRecord: [event: number];
  captureBegin: [];
  graphLaunch: [graph: number];
  flagsWrite: [flags: readonly number[], count: number, value: number];
  flagsWait: [flags: readonly number[], count: number, reset: number];
  gemm: [args: GemmArgs];
  attention: [args: AttentionArgs];
  kvStatistics: [statistics: number, workspace: number, k: number, ldk: number, v: number, ldv: number, rows: number, columns: number, dtype: number];
  quantizeKv: [args: QuantizeKvArgs];
  layerNorm: [args: LayerNormArgs];
  activate: [out: number, x: number, count: number, dtype: number, activation: number];
  add: [out: number, x: number, y: number, count: number, dtype: number];
  addRows: [out: number, x: number, rowTable: number, vector: number, rows: number, columns: number, dtype: number];
  cast: [out: number, outDtype: number, x: number, xDtype: number, count: number];
  quantizeRows: [out: number, scale: number, x: number, ldx: number, rows: number, columns: number, xDtype: number];
  countNonfinite: [result: number, x: number, count: number, dtype: number];
  patchify: [out: number, outDtype: number, image: number, imageDtype: number, channels: number, height: number, width: number, patch: number, firstToken: number, tokens: number];
  unpatchify: [image: number, imageDtype: number, x: number, xDtype: number, channels: number, height: number, width: number, patch: number, firstToken: number, tokens: number];
  sincosEmbedding: [out: number, outDtype: number, positions: number, rows: number, width: number, firstColumn: number, columns: number];
  sincos2d: [out: number, outDtype: number, gridWidth: number, firstToken: number, tokens: number, width: number, firstColumn: number, columns: number];
  rmsNorm: [args: RmsNormArgs];
  rowSumSquares: [out: number, x: number, ldx: number, rows: number, columns: number, xDtype: number];
  rope3d: [out: number, gridHeight: number, gridWidth: number, firstToken: number, tokens: number, headDim: number];
  addGated: [out: number, x: number, xDtype: number, y: number, yDtype: number, gate: number, rows: number, columns: number];
  multiply: [out: number, x: number, y: number, count: number, dtype: number];
  combine: [out: number, sources: readonly number[], coefficients: readonly number[], sourceCount: number, count: number];
  gatherRows: [out: number, outDtype: number, table: number, tableDtype: number, tableRows: number, ids: number, rows: number, columns: number];
  patchifyVideo: [out: number, outDtype: number, latent: number, latentDtype: number, channels: number, frames: number, height: number, width: number, patch: number, firstToken: number, tokens: number];
  unpatchifyVideo: [latent: number, latentDtype: number, x: number, xDtype: number, channels: number, frames: number, height: number, width: number, patch: number, firstToken: number, tokens: number];
  conv3d: [args: Conv3dArgs];
  transpose: [out: number, x: number, batch: number, rows: number, columns: number, dtype: number];
  softmaxRows: [out: number, outDtype: number, x: number, xDtype: number, rows: number, columns: number, scale: number];
  toBytes: [out: number, nonfinite: number, x: number, xDtype: number, count: number];
  fillRandom: [args: RandomArgs];
  decode: [args: DecodeArgs];
  sum: [out: number, base: number, bias: number, columns: number, sources: readonly number[], sourceCount: number, count: number, dtype: number, sourceDtype: number];
  peerSum: [args: PeerSumArgs];
  peerGather: [out: number, blocks: readonly number[], bytes: readonly number[], signals: readonly number[], rank: number, ranks: number];
  peerExchange: [args: PeerExchangeArgs];
  ncclAllReduce: [comm: number, out: number, x: number, count: number, dtype: number];
  ncclAllGather: [comm: number, out: number, x: number, count: number, dtype: number];
  ncclExchange: [comm: number, sends: readonly number[], sendBytes: readonly number[], toRanks: readonly number[], sendCount: number, receives: readonly number[], receiveBytes: readonly number[], fromRanks: readonly number[], receiveCount: number];
}

/** What all others take. */
interface Plain {
  abiVersion: [];
  module: [];
  lastError: [];
  deviceCount: [count: Output];
  deviceOpen: [device: number];
  deviceClose: [];
  deviceInfo: [json: Uint8Array, capacity: number];
  malloc: [bytes: number, memory: number, address: Output];
  free: [address: number];
  memoryUsed: [now: Output, peak: Output];
  peerExport: [address: number, handle: Uint8Array];
  peerOpen: [handle: Uint8Array, address: Output];
  peerClose: [address: number];
  streamCreate: [highPriority: number, stream: Output];
  eventCreate: [event: Output];
  eventDestroy: [event: number];
  streamWaitEvent: [stream: number, event: number];
  eventElapsed: [start: number, end: number, milliseconds: Output];
  captureEnd: [stream: number, graph: Output];
  graphDestroy: [graph: number];
  readerOpen: [threads: number, pieceBytes: number, reader: Output];
  readerClose: [reader: number];
  readerSubmit: [reader: number, file: number, offset: number, args: DecodeArgs, scales: readonly number[], scaleCount: number, after: number, ticket: Output];
  readerWait: [reader: number, ticket: number, before: number, done: Output];
  readerFailure: [reader: number, ticket: Output, offset: Output, error: Output];
  ncclUniqueId: [id: Uint8Array];
  ncclInit: [id: Uint8Array, rank: number, size: number, comm: Output];
  ncclDestroy: [comm: number];
  ncclCheck: [comm: number];
}

/** What every function takes. */
export type Calls = Plain & { [Name in keyof OnStream]: [...OnStream[Name], stream: Handle] };
