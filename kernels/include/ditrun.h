/* ditrun.h: the one contract between TypeScript (or Python, through ctypes) and compiled kernels.
 *
 * Two modules implement every symbol here: kernels/cpu (libditrun_cpu.so) and kernels/cuda (libditrun_cuda.so).
 *
 * Rules
 * - Every function returns DITRUN_OK or a status; ditrun_last_error() then says why, with the values that were wrong,
 *   in one sentence: the calling thread's last failure or, if it had none, the latest of the process.
 * - Addresses of device memory, streams, events, graphs and communicators are uint64_t; 0 is "none".
 * - Work is queued on a stream and runs in order there. Only functions marked BLOCKING wait for the device or for
 *   other processes; call those off the event loop. Functions that compute allocate nothing.
 * - A failure after queueing (a device fault, a CPU kernel's failure) is reported by the next ditrun_stream_synchronize.
 * - Matrices are row-major; a stride or leading dimension ("ld") counts elements, not bytes.
 * - Arithmetic accumulates in float32. Tensors of dtype bf16 and f16 are rounded once, when stored (to nearest even; what f16 cannot
 *   hold becomes infinite). One call takes bf16 or f16, not both, unless it says so.
 *   Softmax probabilities are rounded to the dtype of V before they multiply it. The CPU module rounds where the GPU does.
 * - kernels/abi reads this file and writes its TypeScript and Python twins: `node kernels/abi/generate.js` after every change. So it holds
 *   no more C than that understands: enums, whole-number limits, structs of numbers and pointers, functions. A parameter that is
 *   a pointer to something not const is written to.
 * - In the CPU module a stream is a thread with a queue, an event a point in it, a graph a recorded list of calls.
 */
#ifndef DITRUN_H
#define DITRUN_H

#include <stdint.h>

#if defined(__GNUC__)
#define DITRUN_API __attribute__((visibility("default")))
#else
#define DITRUN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define DITRUN_ABI_VERSION 6

enum ditrun_status {
  DITRUN_OK = 0,
  DITRUN_INVALID_ARGUMENT = 1,
  DITRUN_DEVICE_ERROR = 2,
  DITRUN_LIBRARY_MISSING = 3, /* NCCL, cuBLASLt or the driver could not be opened; the message names the file */
  DITRUN_UNSUPPORTED = 4,     /* this module or device has no such kernel */
  DITRUN_OUT_OF_MEMORY = 5,
  DITRUN_PEER_ERROR = 6, /* another process or its memory could not be reached */
  DITRUN_FILE_ERROR = 7  /* a file could not be read: ditrun_reader_failure says where */
};

enum ditrun_dtype {
  DITRUN_F32 = 0,
  DITRUN_BF16 = 1,
  DITRUN_E4M3 = 2, /* fp8, 4 exponent and 3 mantissa bits, largest value 448, saturating */
  DITRUN_F16 = 3,
  DITRUN_I32 = 4,
  DITRUN_U8 = 5
};

enum ditrun_activation { DITRUN_IDENTITY = 0, DITRUN_GELU = 1 /* exact, erf */, DITRUN_GELU_TANH = 2, DITRUN_SILU = 3 };

enum ditrun_memory {
  DITRUN_DEVICE_MEMORY = 0,
  DITRUN_PEER_MEMORY = 1 /* can be exported to other processes of this host */
};

enum ditrun_random { DITRUN_UNIFORM = 0, DITRUN_NORMAL = 1 };

/* Of attention and convolutions. */
enum ditrun_kernel {
  DITRUN_KERNEL_AUTO = 0,    /* the fastest that fits */
  DITRUN_KERNEL_GENERIC = 1, /* float32 arithmetic */
  DITRUN_KERNEL_SM80 = 2,    /* mma.sync */
  DITRUN_KERNEL_SM90 = 3     /* wgmma */
};

/* ---- module and device ---- */

DITRUN_API int ditrun_abi_version(void);
DITRUN_API const char *ditrun_module(void); /* "cpu" or "cuda" */
DITRUN_API const char *ditrun_last_error(void);
DITRUN_API int ditrun_device_count(int *count);
/* Selects the device for every thread of this process and readies its libraries. The CPU module accepts any index. */
DITRUN_API int ditrun_device_open(int device);
/* Frees what ditrun_device_open made. */
DITRUN_API int ditrun_device_close(void);
/* Writes a JSON object {"name","module","computeCapability":"9.0","multiprocessors","clockMHz","memoryBytes",
 * "freeBytes","peakTflops":{"f32","bf16","e4m3"},"peakGBs","libraries":{"cublasLt":"13.1.0"|null,"nccl":"2.28.3"|null}}.
 * peakTflops is the dense peak from clock and multiprocessors, peakGBs that of the memory in 10^9 bytes a second from its
 * clock and width, null where they are not known. */
DITRUN_API int ditrun_device_info(char *json, int capacity);

/* ---- memory ---- */

DITRUN_API int ditrun_malloc(uint64_t bytes, int memory, uint64_t *address);
DITRUN_API int ditrun_free(uint64_t address);
/* Bytes this module has allocated now and at most, libraries' workspaces included. */
DITRUN_API int ditrun_memory_used(uint64_t *now, uint64_t *peak);
#define DITRUN_HANDLE_BYTES 128
/* A handle to memory of DITRUN_PEER_MEMORY, for another process of this host. */
DITRUN_API int ditrun_peer_export(uint64_t address, uint8_t *handle);
DITRUN_API int ditrun_peer_open(const uint8_t *handle, uint64_t *address);
DITRUN_API int ditrun_peer_close(uint64_t address);
/* BLOCKING. Copies between host and device after all work queued on the stream; complete on return. */
DITRUN_API int ditrun_upload(uint64_t destination, const void *source, uint64_t bytes, uint64_t stream);
DITRUN_API int ditrun_download(void *destination, uint64_t source, uint64_t bytes, uint64_t stream);
/* Device to device, either side a peer's. */
DITRUN_API int ditrun_copy(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream);
/* rows of rowBytes each, the row starts destinationPitch and sourcePitch bytes apart. */
DITRUN_API int ditrun_copy_2d(uint64_t destination, uint64_t destinationPitch, uint64_t source, uint64_t sourcePitch,
                              uint64_t rowBytes, uint64_t rows, uint64_t stream);
DITRUN_API int ditrun_fill_zero(uint64_t destination, uint64_t bytes, uint64_t stream);

/* ---- streams, events, graphs ---- */

DITRUN_API int ditrun_stream_create(int highPriority, uint64_t *stream);
DITRUN_API int ditrun_stream_destroy(uint64_t stream);
DITRUN_API int ditrun_stream_synchronize(uint64_t stream); /* BLOCKING */
DITRUN_API int ditrun_event_create(uint64_t *event);
DITRUN_API int ditrun_event_destroy(uint64_t event);
DITRUN_API int ditrun_event_record(uint64_t event, uint64_t stream);
DITRUN_API int ditrun_stream_wait_event(uint64_t stream, uint64_t event);
/* Both events must have completed. */
DITRUN_API int ditrun_event_elapsed(uint64_t start, uint64_t end, float *milliseconds);
/* Records what is queued on this stream, and on streams joined to it through events, instead of running it. */
DITRUN_API int ditrun_capture_begin(uint64_t stream);
DITRUN_API int ditrun_capture_end(uint64_t stream, uint64_t *graph);
DITRUN_API int ditrun_graph_launch(uint64_t graph, uint64_t stream);
DITRUN_API int ditrun_graph_destroy(uint64_t graph);

/* ---- flags: 32-bit words in peer memory that order work across processes ----
 * A flag is 0 or 1. One process sets it to 1; the one that waits resets it to 0; the setter waits for a credit (another
 * flag) before it sets it again. So a captured graph that holds both replays without new arguments. */

/* Writes value to each flag, after all earlier work on the stream is visible to every process. */
DITRUN_API int ditrun_flags_write(const uint64_t *flags, int count, uint32_t value, uint64_t stream);
/* Holds the stream until every flag is 1; resets each to 0 when reset is not 0. */
DITRUN_API int ditrun_flags_wait(const uint64_t *flags, int count, int reset, uint64_t stream);

/* ---- GEMM ---- */

/* out[b] = gate * activation(alpha * A[b] · W[b]ᵀ + bias[b]) + residual[b]     b < batch
 * A [m, k], W [n, k] (as torch.nn.Linear stores it), out and residual [m, n]. Strides of 0 share one operand.
 * gate float32 [n], one for all batches, or 0 for ones. out may be the residual itself.
 * With dtype E4M3, A and W are scaled back: alpha * aScale[row] * wScale[column]; both scales float32. With aScaleColumns, each so many
 * columns of A have a scale of their own, aScale[row, column of A / aScaleColumns]; activation is then the identity and an output F32 or
 * BF16 (the CUDA module: 128, on compute capability 9.0 only; the CPU's: any divisor of k). An E4M3 out is the above times
 * 1 / outScale[row], saturating: the caller knows scales beforehand that are large enough (ditrun_layer_norm's bound). */
typedef struct {
  uint64_t a, w, bias, residual, out; /* bias, residual may be 0 */
  /* E4M3 only: [m] (or [m, k / aScaleColumns]) and [n] per batch, contiguous; one where the operand is shared */
  uint64_t aScale, wScale;
  uint64_t gate;
  uint64_t outScale; /* E4M3 out only: float32 [m] per batch, contiguous */
  int64_t lda, ldw, ldo, ldResidual;
  int64_t aStride, wStride, biasStride, outStride, residualStride; /* between batches */
  int32_t m, n, k, batch;
  int32_t dtype; /* of A and W: F32, BF16, F16 or E4M3 */
  /* of out: F32; after BF16 and E4M3 also BF16 or F16; after F16 also F16; after E4M3 also E4M3, without gate and residual */
  int32_t outDtype;
  int32_t biasDtype, residualDtype; /* F32, or BF16 (F16 where A is F16) */
  int32_t activation;               /* ditrun_activation */
  /* 0 the fastest that fits, 1 cuBLASLt, 2 + i row i of the sm_90 tiles (kernels/cuda/tiles/tiles.h); the CPU has one */
  int32_t kernel;
  int32_t aScaleColumns; /* E4M3 only: 0, or columns of A that share a scale */
  float alpha;
} ditrun_gemm_args;
DITRUN_API int ditrun_gemm(const ditrun_gemm_args *args, uint64_t stream);

/* ---- attention ---- */

/* One run of keys and values. The kernel reads them only once *flag == 1 (flag 0: at once); it does not reset the flag. */
typedef struct {
  /* [length, heads, headDim]; row strides below, heads adjacent. E4M3: as ditrun_quantize_kv writes them */
  uint64_t k, v;
  uint64_t flag;            /* address of a flag or 0 */
  int64_t kStride, vStride; /* E4M3: vStride is the padded length */
  uint64_t kScale;          /* E4M3 only: float32 [heads, padded length / DITRUN_FP8_KEYS] */
  int32_t length;           /* > 0 */
  int32_t reserved;
} ditrun_kv_block;

#define DITRUN_MAX_KV_BLOCKS 16
#define DITRUN_ATTENTION_WORKSPACE 33554432

/* o = softmax(scale * q·kᵀ) v over the concatenation of all blocks, walked in the order given;
 * lse[head, query] = log Σ exp(scale * q·k), natural log, float32 (lse 0: not wanted).
 * With previousO and previousLse (float32 [queries, heads, headDim] and [heads, queries]) the result is first merged with
 * that partial result: o' = (e^(lseP - lse') oP + e^(lse - lse') o), lse' = log(e^lseP + e^lse). o may be float32 then.
 * With dtype F16, probabilities are rounded to f16 (11 bits), scores that are small (log2(e) scale q·k within 9 of 0 in the first keys and
 * within 14 later) may be too, and larger ones are taken in float32; an infinite or NaN operand shows as NaN or infinity in the output.
 * With dtype E4M3, q·k is scaled back by qScale[query, head] · kScale[head, key / DITRUN_FP8_KEYS] and o by vScale[head, channel];
 * probabilities are rounded to e4m3 (times a power of two), their sum is taken of the rounded ones, and products with v are
 * added up in float32 at least every few hundred keys. lse is then that of the smoothed keys: of all blocks smoothed alike, merges
 * are exact.
 * An E4M3 o has a scale for each row of a head, oScale[query, head] = amax / 448 (dtype E4M3 or BF16).
 * A workspace, whose contents do not matter, lets kernels share out the keys of the last queries where these leave multiprocessors idle.
 * FlashAttention-2, algorithm 1 (arXiv 2307.08691); merging as in Ring Attention (arXiv 2310.01889). */
typedef struct {
  uint64_t q, o, lse;
  uint64_t previousO, previousLse;
  const ditrun_kv_block *blocks;
  /* 0 or float32 [heads, queries + keys - 1]: bias[head, key - query + queries - 1] is added to the scaled score (T5) */
  uint64_t relativeBias;
  uint64_t qScale, vScale;  /* E4M3 only: float32 [queries, heads] and [heads, headDim] */
  uint64_t waitNanoseconds; /* 0 or uint64[blockCount]: time spent waiting for each flag, added up by one observer */
  uint64_t oScale;          /* E4M3 o only: float32 [queries, heads] */
  uint64_t workspace;       /* 16-byte aligned, or 0 */
  int64_t qStride, oStride; /* row strides; heads adjacent */
  int64_t workspaceBytes;   /* any number; DITRUN_ATTENTION_WORKSPACE is enough for all there is to gain */
  int32_t queries, heads, headDim, blockCount;
  int32_t dtype;  /* of q, k, v: F32, BF16, F16 or E4M3 */
  int32_t oDtype; /* F32, BF16 or E4M3 */
  int32_t kernel; /* ditrun_kernel */
  float scale;
} ditrun_attention_args;
DITRUN_API int ditrun_attention(const ditrun_attention_args *args, uint64_t stream);

/* ---- keys and values in e4m3 ----
 * Keys are smoothed first: one vector, their mean over all tokens of all ranks, is subtracted from each. Softmax does not see it
 * (SageAttention, arXiv 2410.02367, section 4.2). Queries need ditrun_quantize_rows with rows = queries · heads. */

/* Keys that share one scale; rows of transposed values are padded with zeros to a multiple of it. */
#define DITRUN_FP8_KEYS 128
#define DITRUN_STATISTICS_PARTS 64
/* statistics [2, columns] float32: Σ_r k[r, c], then max_r |v[r, c]|, in an order that does not change from run to run.
 * workspace float32 [DITRUN_STATISTICS_PARTS, 2, columns]. k, v F32 or BF16 [rows, columns] with leading dimensions ldk, ldv. */
DITRUN_API int ditrun_kv_statistics(uint64_t statistics, uint64_t workspace, uint64_t k, int64_t ldk, uint64_t v,
                                    int64_t ldv, int rows, int columns, int dtype, uint64_t stream);
typedef struct {
  uint64_t k, v; /* F32 or BF16 [rows, heads, headDim], heads adjacent */
  /* float32 [statisticsCount, 2, heads · headDim]: those of each rank, in the same order on all */
  uint64_t statistics;
  uint64_t outK; /* e4m3 [rows, heads, headDim], contiguous: (k - Σ statistics / totalRows) / kScale */
  /* e4m3 [heads, headDim, paddedRows]: v / vScale, keys in the order below, zeros behind the last */
  uint64_t outV;
  uint64_t kScale; /* float32 [heads, paddedRows / DITRUN_FP8_KEYS]: amax / 448 of those keys */
  uint64_t vScale; /* float32 [heads, headDim]: max of the statistics / 448 */
  int64_t ldk, ldv, totalRows;
  int32_t rows, heads, headDim, statisticsCount;
  int32_t dtype;
  int32_t reserved;
} ditrun_quantize_kv_args;
/* Each 16 keys of outV stand in the order 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15, so that a thread's probabilities, as wgmma leaves
 * them, are the operand of the next product as they are. Scales are never below the smallest normal float32. */
DITRUN_API int ditrun_quantize_kv(const ditrun_quantize_kv_args *args, uint64_t stream);

/* ---- norms and elementwise ---- */

/* y = LayerNorm(x) * weight + bias over the last dimension [rows, columns]; weight and bias may be 0.
 * With modulation (modScale and modShift, float32 [columns], or 0): y = y * (1 + modScale) + modShift.
 * With quantized ≠ 0, also (or, out 0, only) writes e4m3 rows with quantizedScale[row] = amax / 448.
 * With bound too: bound[row] = boundFactor * ‖y‖ + boundTerm (‖ ‖ the Euclidean norm), float32 [rows]. By Cauchy and Schwarz no
 * element of W y + b is larger than max‖w‖ ‖y‖ + max|b|, w the rows of W, so bound can be a scale for that product's e4m3 rows.
 * Loose scales cost nothing, e4m3 being a floating-point format, until values reach its smallest normal number, 2^-6. */
typedef struct {
  uint64_t x, weight, bias, out;
  uint64_t quantized, quantizedScale, bound;
  uint64_t modScale, modShift;
  int64_t ldx, ldo;
  int32_t rows, columns;
  int32_t xDtype, weightDtype, outDtype; /* F32 or BF16 */
  float epsilon, boundFactor, boundTerm;
} ditrun_layer_norm_args;
DITRUN_API int ditrun_layer_norm(const ditrun_layer_norm_args *args, uint64_t stream);

DITRUN_API int ditrun_activate(uint64_t out, uint64_t x, int64_t count, int dtype, int activation, uint64_t stream);
/* out = x + y, element by element; out may be x or y. */
DITRUN_API int ditrun_add(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream);
/* out[r, c] = x[r, c] + rowTable[r, c] + vector[c]; rowTable or vector may be 0; [rows, columns] contiguous, one dtype. */
DITRUN_API int ditrun_add_rows(uint64_t out, uint64_t x, uint64_t rowTable, uint64_t vector, int rows, int columns,
                               int dtype, uint64_t stream);
DITRUN_API int ditrun_cast(uint64_t out, int outDtype, uint64_t x, int xDtype, int64_t count, uint64_t stream);
/* Per-row symmetric e4m3: scale[r] = max(amax, tiny) / 448, out = x / scale. x F32 or BF16 [rows, columns], ld ldx. */
DITRUN_API int ditrun_quantize_rows(uint64_t out, uint64_t scale, uint64_t x, int64_t ldx, int rows, int columns,
                                    int xDtype, uint64_t stream);
/* *count (device uint32) = how many of the count elements are NaN or infinite. */
DITRUN_API int ditrun_count_nonfinite(uint64_t result, uint64_t x, int64_t count, int dtype, uint64_t stream);

/* ---- tokens and embeddings of the DiT ---- */

/* image [channels, height, width] -> tokens firstToken … + tokens of the patch grid in row-major order, each
 * [channels · patch · patch] as a convolution's weight lays it out (channel, row, column). */
DITRUN_API int ditrun_patchify(uint64_t out, int outDtype, uint64_t image, int imageDtype, int channels, int height,
                               int width, int patch, int firstToken, int tokens, uint64_t stream);
/* The inverse: writes the pixels of these tokens into the image. */
DITRUN_API int ditrun_unpatchify(uint64_t image, int imageDtype, uint64_t x, int xDtype, int channels, int height,
                                 int width, int patch, int firstToken, int tokens, uint64_t stream);
/* out[i] = (sin(p f_0) … sin(p f_(w/2-1)), cos(p f_0) …), f_j = exp(-ln(10000) j / (w/2)), p = positions[i] (device f32).
 * columns firstColumn … + columns of a row of full width w. */
DITRUN_API int ditrun_sincos_embedding(uint64_t out, int outDtype, uint64_t positions, int rows, int width,
                                       int firstColumn, int columns, uint64_t stream);
/* Rows for tokens of a grid: the embedding of the token's row index in the first width/2 columns, of its column index in the rest. */
DITRUN_API int ditrun_sincos_2d(uint64_t out, int outDtype, int gridWidth, int firstToken, int tokens, int width,
                                int firstColumn, int columns, uint64_t stream);

/* ---- Wan: rotary embedding, modulation, sampling ---- */

/* y = activation(x * rsqrt(mean(x²) + epsilon) * weight) over the last dimension, then, with rope, each head's adjacent pairs
 * (a, b) -> (a cos - b sin, a sin + b cos). Statistics and rotation in float32, rounded once. out may be x.
 * With groupRows ≠ 0 row r of out lies at (r / groupRows) groupStride + (r mod groupRows) ldo: groups of rows with room between them.
 * With quantized ≠ 0 (and out 0) writes e4m3 [rows, columns], contiguous, with quantizedScale[row, head] = amax / 448 of each head. */
typedef struct {
  uint64_t x, weight, out;
  uint64_t quantized, quantizedScale;
  /* 0, or float32 [rows]: Σ x² over all fullColumns, of which x holds only `columns` (tensor parallel) */
  uint64_t sumSquares;
  uint64_t rope; /* 0, or float32 [rows, headDim]: cos, sin of each pair in turn */
  int64_t ldx, ldo, groupStride;
  int32_t rows, columns, fullColumns, headDim; /* headDim only with rope or quantized */
  int32_t groupRows; /* 0: one group, and groupStride counts nothing; else out must not be x, nor 0 */
  int32_t xDtype, weightDtype, outDtype; /* F32, BF16 or, x and out, F16 */
  int32_t activation;
  float epsilon;
} ditrun_rms_norm_args;
DITRUN_API int ditrun_rms_norm(const ditrun_rms_norm_args *args, uint64_t stream);
/* out[r] = Σ_c x[r, c]², float32. */
DITRUN_API int ditrun_row_sum_squares(uint64_t out, uint64_t x, int64_t ldx, int rows, int columns, int xDtype,
                                      uint64_t stream);
/* The rotary table of tokens firstToken … of a grid [frames, gridHeight, gridWidth] (row-major), float32 [tokens, headDim]:
 * of the c = headDim / 2 pairs the first c - 2 (c / 3) turn with the frame, the next c / 3 with the row, the last c / 3 with the
 * column; pair j of n turns by position * 10000^(-j / n). (Wan2.1, wan/modules/model.py, rope_params and rope_apply.) */
DITRUN_API int ditrun_rope_3d(uint64_t out, int gridHeight, int gridWidth, int firstToken, int tokens, int headDim,
                              uint64_t stream);
/* out = x + y * gate[column]; gate float32 [columns]; x and out of xDtype (out may be x), y of yDtype; contiguous. */
DITRUN_API int ditrun_add_gated(uint64_t out, uint64_t x, int xDtype, uint64_t y, int yDtype, uint64_t gate, int rows,
                                int columns, uint64_t stream);
/* out = x * y, element by element; out may be x or y. */
DITRUN_API int ditrun_multiply(uint64_t out, uint64_t x, uint64_t y, int64_t count, int dtype, uint64_t stream);
/* out = Σ_i coefficients[i] * sources[i], float32, in the order given; out may be a source. sourceCount <= 8. */
DITRUN_API int ditrun_combine(uint64_t out, const uint64_t *sources, const float *coefficients, int sourceCount,
                              int64_t count, uint64_t stream);
/* out[r] = table[ids[r]]; ids device int32 [rows]; table [anything, columns]; an id outside [0, tableRows) gives NaN. */
DITRUN_API int ditrun_gather_rows(uint64_t out, int outDtype, uint64_t table, int tableDtype, int tableRows,
                                  uint64_t ids, int rows, int columns, uint64_t stream);
/* latent [channels, frames, height, width] -> tokens of patches [1, patch, patch] in row-major order, each [channels · patch · patch]. */
DITRUN_API int ditrun_patchify_video(uint64_t out, int outDtype, uint64_t latent, int latentDtype, int channels,
                                     int frames, int height, int width, int patch, int firstToken, int tokens,
                                     uint64_t stream);
/* The head's output [tokens, patch · patch · channels] (row, column, channel: Wan2.1's unpatchify) -> latent. */
DITRUN_API int ditrun_unpatchify_video(uint64_t latent, int latentDtype, uint64_t x, int xDtype, int channels,
                                       int frames, int height, int width, int patch, int firstToken, int tokens,
                                       uint64_t stream);

/* ---- Wan's VAE: convolutions over [frames, height, width, channels], channels adjacent ---- */

/* out = conv(x) + bias + residual. Time is causal: `history` holds the kernelT - 1 frames before x (0: zeros); height and width
 * are padded with zeros by the numbers given (0 on a side where x carries its neighbour's rows; a negative number leaves rows or
 * columns out). upsample 2 reads x as if each pixel were repeated 2 × 2 (nearest) first; padding counts after that.
 * outFrames = (kernelT - 1 + frames - kernelT) / strideT + 1, outHeight = (upsample · height + padTop + padBottom - kernelH) / strideH + 1.
 * weight [outChannels, kernelT, kernelH, kernelW, inChannels]; residual like out, or 0; it may be out itself. */
typedef struct {
  uint64_t x, history, weight, bias, residual, out;
  int32_t frames, height, width, inChannels, outChannels;
  int32_t kernelT, kernelH, kernelW;
  int32_t strideT, strideH, strideW;
  int32_t padTop, padBottom, padLeft, padRight;
  int32_t upsample; /* 1 or 2 */
  int32_t dtype;    /* of all tensors: F32, BF16 or F16 */
  int32_t kernel;   /* ditrun_kernel */
} ditrun_conv3d_args;
DITRUN_API int ditrun_conv3d(const ditrun_conv3d_args *args, uint64_t stream);
/* out [rows, columns] -> [columns, rows] of each of `batch` contiguous matrices. */
DITRUN_API int ditrun_transpose(uint64_t out, uint64_t x, int batch, int rows, int columns, int dtype, uint64_t stream);
/* out = softmax(scale * row) of each row of x, contiguous; float32 inside. out may be x where the dtype stays. */
DITRUN_API int ditrun_softmax_rows(uint64_t out, int outDtype, uint64_t x, int xDtype, int rows, int columns,
                                   float scale, uint64_t stream);
/* Pixels: out[i], 8 bits, = (x[i] + 1) * 127.5, in float32, clamped to 0 … 255 and rounded to nearest even; NaN becomes 0.
 * Where an x[i] is NaN or infinite, *nonfinite (device uint32) becomes 1; else it stays as it was. */
DITRUN_API int ditrun_to_bytes(uint64_t out, uint64_t nonfinite, uint64_t x, int xDtype, int64_t count,
                               uint64_t stream);

/* ---- random weights and noise, the same bits on every device and layout ----
 * Element (r, c) of a full tensor with fullColumns columns has index i = r · fullColumns + c and takes the four words of
 * Philox4x32-10 (Salmon et al. 2011) with key (seed low, seed high) and counter (i low, i high, tensorId, 0).
 * UNIFORM: amplitude * ((word0 >> 8) * 2^-23 - 1), in [-amplitude, amplitude).
 * NORMAL:  amplitude * float32(sqrt(-2 ln u) * sin(π v)), of standard deviation amplitude (Box and Muller 1958), where
 *   u = (word0 * 2^21 + (word1 >> 11) + 1) * 2^-53, in (0, 1], and v = (int32(word2) * 2^21 + (word3 >> 11) + ½) * 2^-53, in (-½, ½),
 *   ln u = e * ln 2 + 2 s (1 + s²/3 + s⁴/5 + … + s¹⁶/17), u = 2^e m, m in [c, 2c), c = 0x1.6a09ep-1 (about √½), s = (m - 1) / (m + 1),
 *   sin x = x (1 - x²/3! + x⁴/5! - … + x¹⁶/17!), x = π v; both series by Horner's rule.
 * Every operation of u to sin rounds on its own to float64, all others to float32; then offset is added. No value is beyond 8.6 amplitude.
 * Writes rows [row0, row0 + rows) and columns [column0, column0 + columns) to out [rows, columns] with leading dimension ldo. */
typedef struct {
  uint64_t out;
  uint64_t seed;
  int64_t row0, column0, fullColumns, ldo;
  int32_t rows, columns;
  uint32_t tensorId;
  int32_t distribution;
  float amplitude, offset;
  int32_t outDtype;
  int32_t reserved;
} ditrun_random_args;
DITRUN_API int ditrun_fill_random(const ditrun_random_args *args, uint64_t stream);

/* ---- weights as files store them ---- */

/* Plain numbers, little-endian, then GGUF's blocks of 32 elements and of 256 (Q2_K … Q6_K, IQ4_XS), as ggml-common.h lays them out. */
enum ditrun_stored {
  DITRUN_STORED_F32 = 0,
  DITRUN_STORED_F16 = 1,
  DITRUN_STORED_BF16 = 2,
  DITRUN_STORED_F64 = 3,
  DITRUN_STORED_F8_E4M3 = 4,
  DITRUN_STORED_F8_E5M2 = 5,
  DITRUN_STORED_I8 = 6,
  DITRUN_STORED_Q8_0 = 7,
  DITRUN_STORED_Q4_0 = 8,
  DITRUN_STORED_Q4_1 = 9,
  DITRUN_STORED_Q5_0 = 10,
  DITRUN_STORED_Q5_1 = 11,
  DITRUN_STORED_IQ4_NL = 12,
  DITRUN_STORED_Q2_K = 13,
  DITRUN_STORED_Q3_K = 14,
  DITRUN_STORED_Q4_K = 15,
  DITRUN_STORED_Q5_K = 16,
  DITRUN_STORED_Q6_K = 17,
  DITRUN_STORED_IQ4_XS = 18
};

/* out[r, c] = decode(x[r])[firstColumn + c] * scale[r]. The stored value is rounded to float32 (only F64 and Q4_1, Q5_1, Q2_K, Q4_K, Q5_K
 * are not exact in it), its product with the scale again, and out to its dtype. Columns may begin and end within a block.
 * An E4M3 out has outScale[r] = max(amax, 1e-12) / 448 of the float32 row, as ditrun_quantize_rows; but stored F8_E4M3 keeps its
 * bytes, with outScale[r] = scale[r]. */
typedef struct {
  uint64_t out;      /* [rows, columns] of outDtype; contiguous if E4M3 */
  uint64_t x;        /* rows as stored, rowBytes apart; of any alignment, but F32, F16, BF16 and F64 of their element's */
  uint64_t scale;    /* 0, or float32: one, or [rows] */
  uint64_t outScale; /* E4M3 out only: float32 [rows] */
  uint64_t squares;  /* E4M3 out only: 0, or float32 [rows], the sum of squares of the float32 row */
  int64_t rowBytes, ldo, columns, firstColumn;
  int32_t rows;
  int32_t stored;    /* ditrun_stored */
  int32_t scaleRows; /* 0: one scale for all rows; 1: one for each */
  int32_t outDtype;  /* F32, BF16, F16 or E4M3 */
} ditrun_decode_args;
DITRUN_API int ditrun_decode(const ditrun_decode_args *args, uint64_t stream);

/* ---- a reader: threads that carry pieces of files to the device and decode them there ----
 * Each thread has DITRUN_READER_SLOTS slots of pieceBytes on the host (pinned) and as much on the device, taken once. It reads a piece into
 * a slot, copies it, and queues its decoding, on a stream of its own; meanwhile it reads the next. Jobs are begun in the order in which
 * they were given. Files are read with pread: one that has become shorter is a failure. After a failure a reader does nothing more. */
#define DITRUN_READER_SLOTS 2
#define DITRUN_READER_LEAST_PIECE 65536
DITRUN_API int ditrun_reader_open(int threads, uint64_t pieceBytes, uint64_t *reader);
/* BLOCKING. Gives up what was not begun, waits for the rest, frees what open took. */
DITRUN_API int ditrun_reader_close(uint64_t reader);
/* ditrun_decode of rows that stand in an open file (a descriptor of this process) from the byte offset on; args->x is 0, and so is
 * args->scale: `scales` are numbers on the host, none, one, or args->rows. Rows of an E4M3 out must fit in a piece. out is written after
 * what is queued on stream `after` now. The ticket is a number that grows by one from job to job. */
DITRUN_API int ditrun_reader_submit(uint64_t reader, int file, uint64_t offset, const ditrun_decode_args *args,
                                    const float *scales, int scaleCount, uint64_t after, uint64_t *ticket);
/* BLOCKING until the job with this ticket and all before it have been read; what is then queued on stream `before` sees what they wrote.
 * done: the last ticket of which that is true, this one or a later. DITRUN_FILE_ERROR where a file could not be read. */
DITRUN_API int ditrun_reader_wait(uint64_t reader, uint64_t ticket, uint64_t before, uint64_t *done);
/* Of a DITRUN_FILE_ERROR: whose job it was, the byte of the file, and errno, or 0 where the file ended there. */
DITRUN_API int ditrun_reader_failure(uint64_t reader, uint64_t *ticket, uint64_t *offset, uint64_t *error);

/* ---- sums over processes ---- */

/* out[i] = base[i] + Σ_p sources[p][i], summed in the order given in float32, rounded once. base may be 0; out may be base.
 * Sources may be peers' memory. bias (columns long, or 0) is added to every row of columns elements. out, base and bias are of
 * dtype, the sources of sourceDtype. */
DITRUN_API int ditrun_sum(uint64_t out, uint64_t base, uint64_t bias, int columns, const uint64_t *sources,
                          int sourceCount, int64_t count, int dtype, int sourceDtype, uint64_t stream);

/* ---- sums, gathers and exchanges over peer memory, one launch each ----
 * Every rank of a group makes the same call, each with the group's memory as its own process maps it. The launch tells the
 * peers that what this rank has put into its block is there, waits until all have said so, computes, and ends once every rank
 * has read what it needs: then the block may be written again, in stream order. No other flag is needed.
 * Ranks meet by their signals, which count up, so that a captured graph replays: uint32 [DITRUN_PEER_BLOCKS, ranks] in each
 * rank's peer memory, 0 before the first call, used by the calls of one group and by nothing else. */
#define DITRUN_PEER_BLOCKS 128
#define DITRUN_MAX_PEERS 32

/* out[i] = base[i] + gate[i mod columns] * (Σ_p blocks[p][first + i] + bias[i mod columns])     0 <= i < count
 * The sum is in rank order, all of it in float32, rounded once. With shots 2 (first 0, count total) each rank sums one share of the
 * elements only, in rank order, rounds it to sourceDtype and puts it in the place of its own summand; then all read each other's
 * shares: 2 (ranks - 1) / ranks of the block are read from peers instead of ranks - 1 times the block, and a bf16 sum is rounded twice.
 * Every rank gets the same bits either way. Shares are the total / DITRUN_SHARE_UNIT whole units divided over the ranks,
 * ⌊rank · units / ranks⌋ and on; what is left over is summed in one shot. */
#define DITRUN_SHARE_UNIT 8
typedef struct {
  /* each rank's block, in rank order: total elements of sourceDtype; its contents are consumed */
  const uint64_t *blocks;
  const uint64_t *signals; /* each rank's signals, in rank order */
  uint64_t out, base;      /* of dtype; base may be 0 or out */
  uint64_t bias;           /* of biasDtype [columns], or 0 */
  uint64_t gate;           /* float32 [columns], or 0 for ones */
  int64_t total;           /* the same on every rank */
  int64_t first, count;    /* this rank's; count may be 0 */
  int32_t rank, ranks, columns;
  int32_t dtype, sourceDtype, biasDtype; /* F32 or BF16 */
  int32_t shots, reserved;               /* 1 or 2, the same on every rank */
} ditrun_peer_sum_args;
DITRUN_API int ditrun_peer_sum(const ditrun_peer_sum_args *args, uint64_t stream);
/* out = the first bytes[p] bytes of blocks[p], one rank's after the other's in rank order. bytes is the same on every rank. */
DITRUN_API int ditrun_peer_gather(uint64_t out, const uint64_t *blocks, const int64_t *bytes, const uint64_t *signals,
                                  int rank, int ranks, uint64_t stream);

/* A rank with which rows are exchanged, both ways, each time that this rank calls with it as it calls with this rank. */
typedef struct {
  uint64_t send, receive;       /* first row that goes to it, and where its first row comes to */
  uint64_t theirEven, theirOdd; /* in its peer memory: slots that this rank fills in turn */
  uint64_t ownEven, ownOdd;     /* in this rank's peer memory: those that it fills */
  /* uint32 [2, DITRUN_PEER_BLOCKS] for this pair alone on each of the two, 0 before the first call */
  uint64_t theirSignals, ownSignals;
} ditrun_neighbour;
#define DITRUN_MAX_NEIGHBOURS 2
/* Sends rows of rowBytes, pitch bytes apart, to each neighbour and receives as many from it; it ends when they are in place. Both sides of
 * a pair make the call with the same rows and rowBytes; slots hold at least rows · rowBytes. All addresses and the pitch are multiples of
 * 16 where rowBytes is one, else of 4 where it is one. A rank can be no more than one call ahead of a neighbour: two slots are enough. */
typedef struct {
  const ditrun_neighbour *neighbours;
  int64_t pitch, rowBytes;
  int32_t rows, neighbourCount;
} ditrun_peer_exchange_args;
DITRUN_API int ditrun_peer_exchange(const ditrun_peer_exchange_args *args, uint64_t stream);

/* ---- NCCL ----
 * The CUDA module opens NCCL itself. The CPU module moves host memory over TCP, a connection between every two ranks: they listen where
 * NCCL_SOCKET_IFNAME and NCCL_SOCKET_FAMILY say (loopback unless set), and prove to each other that they know a secret of the id. What is
 * sent is neither hidden nor signed, as with NCCL. Two ranks must agree on each message's length: the CPU module refuses what does not. */

#define DITRUN_NCCL_ID_BYTES 128
DITRUN_API int ditrun_nccl_unique_id(uint8_t *id);
/* BLOCKING until all ranks have come. The CPU module waits DITRUN_TIMEOUT seconds at most (60 unless set); its rank 0 must be in the
 * process that made the id. */
DITRUN_API int ditrun_nccl_init(const uint8_t *id, int rank, int size, uint64_t *comm);
/* Where NCCL has met an error in the background this ends what is under way; else all of it must have ended. */
DITRUN_API int ditrun_nccl_destroy(uint64_t comm);
DITRUN_API int ditrun_nccl_check(uint64_t comm); /* an error that NCCL met in the background */
/* out = Σ x over the ranks, F32, BF16 or F16: in NCCL's order and rounded as NCCL does it; in the CPU module in rank order in float32,
 * rounded once. out may be x. */
DITRUN_API int ditrun_nccl_all_reduce(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype,
                                      uint64_t stream);
DITRUN_API int ditrun_nccl_all_gather(uint64_t comm, uint64_t out, uint64_t x, int64_t count, int dtype,
                                      uint64_t stream);
/* One grouped exchange: sends[i] to toRanks[i], receives[j] from fromRanks[j]; those between two ranks in order, with itself too. */
DITRUN_API int ditrun_nccl_exchange(uint64_t comm, const uint64_t *sends, const int64_t *sendBytes, const int *toRanks,
                                    int sendCount, const uint64_t *receives, const int64_t *receiveBytes,
                                    const int *fromRanks, int receiveCount, uint64_t stream);

#ifdef __cplusplus
}
#endif
#endif
