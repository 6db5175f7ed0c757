"""Written by kernels/abi/generate.js from kernels/include/ditrun.h, which says what all of this means."""
from ctypes import (POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64,
                    c_void_p)

ABI_VERSION = 6
HANDLE_BYTES = 128
MAX_KV_BLOCKS = 16
ATTENTION_WORKSPACE = 33554432
FP8_KEYS = 128
STATISTICS_PARTS = 64
READER_SLOTS = 2
READER_LEAST_PIECE = 65536
PEER_BLOCKS = 128
MAX_PEERS = 32
SHARE_UNIT = 8
MAX_NEIGHBOURS = 2
NCCL_ID_BYTES = 128

F32 = 0
BF16 = 1
E4M3 = 2
F16 = 3
I32 = 4
U8 = 5
IDENTITY = 0
GELU = 1
GELU_TANH = 2
SILU = 3
DEVICE = 0
PEER = 1
UNIFORM = 0
NORMAL = 1
AUTO = 0
GENERIC = 1
SM80 = 2
SM90 = 3
STORED_F32 = 0
STORED_F16 = 1
STORED_BF16 = 2
STORED_F64 = 3
STORED_F8_E4M3 = 4
STORED_F8_E5M2 = 5
STORED_I8 = 6
STORED_Q8_0 = 7
STORED_Q4_0 = 8
STORED_Q4_1 = 9
STORED_Q5_0 = 10
STORED_Q5_1 = 11
STORED_IQ4_NL = 12
STORED_Q2_K = 13
STORED_Q3_K = 14
STORED_Q4_K = 15
STORED_Q5_K = 16
STORED_Q6_K = 17
STORED_IQ4_XS = 18


class Gemm(Structure):
    _fields_ = [
        ("a", c_uint64),
        ("w", c_uint64),
        ("bias", c_uint64),
        ("residual", c_uint64),
        ("out", c_uint64),
        ("aScale", c_uint64),
        ("wScale", c_uint64),
        ("gate", c_uint64),
        ("outScale", c_uint64),
        ("lda", c_int64),
        ("ldw", c_int64),
        ("ldo", c_int64),
        ("ldResidual", c_int64),
        ("aStride", c_int64),
        ("wStride", c_int64),
        ("biasStride", c_int64),
        ("outStride", c_int64),
        ("residualStride", c_int64),
        ("m", c_int32),
        ("n", c_int32),
        ("k", c_int32),
        ("batch", c_int32),
        ("dtype", c_int32),
        ("outDtype", c_int32),
        ("biasDtype", c_int32),
        ("residualDtype", c_int32),
        ("activation", c_int32),
        ("kernel", c_int32),
        ("aScaleColumns", c_int32),
        ("alpha", c_float),
    ]


class KvBlock(Structure):
    _fields_ = [
        ("k", c_uint64),
        ("v", c_uint64),
        ("flag", c_uint64),
        ("kStride", c_int64),
        ("vStride", c_int64),
        ("kScale", c_uint64),
        ("length", c_int32),
        ("reserved", c_int32),
    ]


class Attention(Structure):
    _fields_ = [
        ("q", c_uint64),
        ("o", c_uint64),
        ("lse", c_uint64),
        ("previousO", c_uint64),
        ("previousLse", c_uint64),
        ("blocks", POINTER(KvBlock)),
        ("relativeBias", c_uint64),
        ("qScale", c_uint64),
        ("vScale", c_uint64),
        ("waitNanoseconds", c_uint64),
        ("oScale", c_uint64),
        ("workspace", c_uint64),
        ("qStride", c_int64),
        ("oStride", c_int64),
        ("workspaceBytes", c_int64),
        ("queries", c_int32),
        ("heads", c_int32),
        ("headDim", c_int32),
        ("blockCount", c_int32),
        ("dtype", c_int32),
        ("oDtype", c_int32),
        ("kernel", c_int32),
        ("scale", c_float),
    ]


class QuantizeKv(Structure):
    _fields_ = [
        ("k", c_uint64),
        ("v", c_uint64),
        ("statistics", c_uint64),
        ("outK", c_uint64),
        ("outV", c_uint64),
        ("kScale", c_uint64),
        ("vScale", c_uint64),
        ("ldk", c_int64),
        ("ldv", c_int64),
        ("totalRows", c_int64),
        ("rows", c_int32),
        ("heads", c_int32),
        ("headDim", c_int32),
        ("statisticsCount", c_int32),
        ("dtype", c_int32),
        ("reserved", c_int32),
    ]


class LayerNorm(Structure):
    _fields_ = [
        ("x", c_uint64),
        ("weight", c_uint64),
        ("bias", c_uint64),
        ("out", c_uint64),
        ("quantized", c_uint64),
        ("quantizedScale", c_uint64),
        ("bound", c_uint64),
        ("modScale", c_uint64),
        ("modShift", c_uint64),
        ("ldx", c_int64),
        ("ldo", c_int64),
        ("rows", c_int32),
        ("columns", c_int32),
        ("xDtype", c_int32),
        ("weightDtype", c_int32),
        ("outDtype", c_int32),
        ("epsilon", c_float),
        ("boundFactor", c_float),
        ("boundTerm", c_float),
    ]


class RmsNorm(Structure):
    _fields_ = [
        ("x", c_uint64),
        ("weight", c_uint64),
        ("out", c_uint64),
        ("quantized", c_uint64),
        ("quantizedScale", c_uint64),
        ("sumSquares", c_uint64),
        ("rope", c_uint64),
        ("ldx", c_int64),
        ("ldo", c_int64),
        ("groupStride", c_int64),
        ("rows", c_int32),
        ("columns", c_int32),
        ("fullColumns", c_int32),
        ("headDim", c_int32),
        ("groupRows", c_int32),
        ("xDtype", c_int32),
        ("weightDtype", c_int32),
        ("outDtype", c_int32),
        ("activation", c_int32),
        ("epsilon", c_float),
    ]


class Conv3d(Structure):
    _fields_ = [
        ("x", c_uint64),
        ("history", c_uint64),
        ("weight", c_uint64),
        ("bias", c_uint64),
        ("residual", c_uint64),
        ("out", c_uint64),
        ("frames", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("inChannels", c_int32),
        ("outChannels", c_int32),
        ("kernelT", c_int32),
        ("kernelH", c_int32),
        ("kernelW", c_int32),
        ("strideT", c_int32),
        ("strideH", c_int32),
        ("strideW", c_int32),
        ("padTop", c_int32),
        ("padBottom", c_int32),
        ("padLeft", c_int32),
        ("padRight", c_int32),
        ("upsample", c_int32),
        ("dtype", c_int32),
        ("kernel", c_int32),
    ]


class Random(Structure):
    _fields_ = [
        ("out", c_uint64),
        ("seed", c_uint64),
        ("row0", c_int64),
        ("column0", c_int64),
        ("fullColumns", c_int64),
        ("ldo", c_int64),
        ("rows", c_int32),
        ("columns", c_int32),
        ("tensorId", c_uint32),
        ("distribution", c_int32),
        ("amplitude", c_float),
        ("offset", c_float),
        ("outDtype", c_int32),
        ("reserved", c_int32),
    ]


class Decode(Structure):
    _fields_ = [
        ("out", c_uint64),
        ("x", c_uint64),
        ("scale", c_uint64),
        ("outScale", c_uint64),
        ("squares", c_uint64),
        ("rowBytes", c_int64),
        ("ldo", c_int64),
        ("columns", c_int64),
        ("firstColumn", c_int64),
        ("rows", c_int32),
        ("stored", c_int32),
        ("scaleRows", c_int32),
        ("outDtype", c_int32),
    ]


class PeerSum(Structure):
    _fields_ = [
        ("blocks", POINTER(c_uint64)),
        ("signals", POINTER(c_uint64)),
        ("out", c_uint64),
        ("base", c_uint64),
        ("bias", c_uint64),
        ("gate", c_uint64),
        ("total", c_int64),
        ("first", c_int64),
        ("count", c_int64),
        ("rank", c_int32),
        ("ranks", c_int32),
        ("columns", c_int32),
        ("dtype", c_int32),
        ("sourceDtype", c_int32),
        ("biasDtype", c_int32),
        ("shots", c_int32),
        ("reserved", c_int32),
    ]


class Neighbour(Structure):
    _fields_ = [
        ("send", c_uint64),
        ("receive", c_uint64),
        ("theirEven", c_uint64),
        ("theirOdd", c_uint64),
        ("ownEven", c_uint64),
        ("ownOdd", c_uint64),
        ("theirSignals", c_uint64),
        ("ownSignals", c_uint64),
    ]


class PeerExchange(Structure):
    _fields_ = [
        ("neighbours", POINTER(Neighbour)),
        ("pitch", c_int64),
        ("rowBytes", c_int64),
        ("rows", c_int32),
        ("neighbourCount", c_int32),
    ]


# What every function takes that returns a status.
SIGNATURES = {
    "device_count": [POINTER(c_int)],
    "device_open": [c_int],
    "device_close": [],
    "device_info": [c_char_p, c_int],
    "malloc": [c_uint64, c_int, POINTER(c_uint64)],
    "free": [c_uint64],
    "memory_used": [POINTER(c_uint64), POINTER(c_uint64)],
    "peer_export": [c_uint64, c_char_p],
    "peer_open": [c_char_p, POINTER(c_uint64)],
    "peer_close": [c_uint64],
    "upload": [c_uint64, c_void_p, c_uint64, c_uint64],
    "download": [c_void_p, c_uint64, c_uint64, c_uint64],
    "copy": [c_uint64, c_uint64, c_uint64, c_uint64],
    "copy_2d": [c_uint64, c_uint64, c_uint64, c_uint64, c_uint64, c_uint64, c_uint64],
    "fill_zero": [c_uint64, c_uint64, c_uint64],
    "stream_create": [c_int, POINTER(c_uint64)],
    "stream_destroy": [c_uint64],
    "stream_synchronize": [c_uint64],
    "event_create": [POINTER(c_uint64)],
    "event_destroy": [c_uint64],
    "event_record": [c_uint64, c_uint64],
    "stream_wait_event": [c_uint64, c_uint64],
    "event_elapsed": [c_uint64, c_uint64, POINTER(c_float)],
    "capture_begin": [c_uint64],
    "capture_end": [c_uint64, POINTER(c_uint64)],
    "graph_launch": [c_uint64, c_uint64],
    "graph_destroy": [c_uint64],
    "flags_write": [POINTER(c_uint64), c_int, c_uint32, c_uint64],
    "flags_wait": [POINTER(c_uint64), c_int, c_int, c_uint64],
    "gemm": [POINTER(Gemm), c_uint64],
    "attention": [POINTER(Attention), c_uint64],
    "kv_statistics": [c_uint64, c_uint64, c_uint64, c_int64, c_uint64, c_int64, c_int, c_int, c_int,
        c_uint64],
    "quantize_kv": [POINTER(QuantizeKv), c_uint64],
    "layer_norm": [POINTER(LayerNorm), c_uint64],
    "activate": [c_uint64, c_uint64, c_int64, c_int, c_int, c_uint64],
    "add": [c_uint64, c_uint64, c_uint64, c_int64, c_int, c_uint64],
    "add_rows": [c_uint64, c_uint64, c_uint64, c_uint64, c_int, c_int, c_int, c_uint64],
    "cast": [c_uint64, c_int, c_uint64, c_int, c_int64, c_uint64],
    "quantize_rows": [c_uint64, c_uint64, c_uint64, c_int64, c_int, c_int, c_int, c_uint64],
    "count_nonfinite": [c_uint64, c_uint64, c_int64, c_int, c_uint64],
    "patchify": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_uint64],
    "unpatchify": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_uint64],
    "sincos_embedding": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_int, c_uint64],
    "sincos_2d": [c_uint64, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_uint64],
    "rms_norm": [POINTER(RmsNorm), c_uint64],
    "row_sum_squares": [c_uint64, c_uint64, c_int64, c_int, c_int, c_int, c_uint64],
    "rope_3d": [c_uint64, c_int, c_int, c_int, c_int, c_int, c_uint64],
    "add_gated": [c_uint64, c_uint64, c_int, c_uint64, c_int, c_uint64, c_int, c_int, c_uint64],
    "multiply": [c_uint64, c_uint64, c_uint64, c_int64, c_int, c_uint64],
    "combine": [c_uint64, POINTER(c_uint64), POINTER(c_float), c_int, c_int64, c_uint64],
    "gather_rows": [c_uint64, c_int, c_uint64, c_int, c_int, c_uint64, c_int, c_int, c_uint64],
    "patchify_video": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int,
        c_uint64],
    "unpatchify_video": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int,
        c_uint64],
    "conv3d": [POINTER(Conv3d), c_uint64],
    "transpose": [c_uint64, c_uint64, c_int, c_int, c_int, c_int, c_uint64],
    "softmax_rows": [c_uint64, c_int, c_uint64, c_int, c_int, c_int, c_float, c_uint64],
    "to_bytes": [c_uint64, c_uint64, c_uint64, c_int, c_int64, c_uint64],
    "fill_random": [POINTER(Random), c_uint64],
    "decode": [POINTER(Decode), c_uint64],
    "reader_open": [c_int, c_uint64, POINTER(c_uint64)],
    "reader_close": [c_uint64],
    "reader_submit": [c_uint64, c_int, c_uint64, POINTER(Decode), POINTER(c_float), c_int, c_uint64,
        POINTER(c_uint64)],
    "reader_wait": [c_uint64, c_uint64, c_uint64, POINTER(c_uint64)],
    "reader_failure": [c_uint64, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint64)],
    "sum": [c_uint64, c_uint64, c_uint64, c_int, POINTER(c_uint64), c_int, c_int64, c_int, c_int,
        c_uint64],
    "peer_sum": [POINTER(PeerSum), c_uint64],
    "peer_gather": [c_uint64, POINTER(c_uint64), POINTER(c_int64), POINTER(c_uint64), c_int, c_int,
        c_uint64],
    "peer_exchange": [POINTER(PeerExchange), c_uint64],
    "nccl_unique_id": [c_char_p],
    "nccl_init": [c_char_p, c_int, c_int, POINTER(c_uint64)],
    "nccl_destroy": [c_uint64],
    "nccl_check": [c_uint64],
    "nccl_all_reduce": [c_uint64, c_uint64, c_uint64, c_int64, c_int, c_uint64],
    "nccl_all_gather": [c_uint64, c_uint64, c_uint64, c_int64, c_int, c_uint64],
    "nccl_exchange": [c_uint64, POINTER(c_uint64), POINTER(c_int64), POINTER(c_int), c_int,
        POINTER(c_uint64), POINTER(c_int64), POINTER(c_int), c_int, c_uint64],
}
# Functions whose only output is one 64-bit value, their last parameter.
RETURNS = {"malloc", "peer_open", "stream_create", "event_create", "capture_end", "reader_open",
        "reader_submit", "reader_wait", "nccl_init"}
