"""kernels/include/ditrun.h for Python: the structs, and a Module whose methods raise with the module's sentence."""
import ctypes
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p

F32, BF16, E4M3, F16, I32, U8 = range(6)
IDENTITY, GELU, GELU_TANH, SILU = range(4)
DEVICE, PEER = range(2)
UNIFORM, NORMAL = range(2)


def fields(names, kind):
    return [(name, kind) for name in names.split()]


class Gemm(Structure):
    _fields_ = (fields("a w bias residual out aScale wScale gate outScale", c_uint64) + fields("lda ldw ldo ldResidual aStride wStride biasStride outStride residualStride", c_int64) +
                fields("m n k batch dtype outDtype biasDtype residualDtype activation kernel aScaleColumns", c_int32) + fields("alpha", c_float))


class KvBlock(Structure):
    _fields_ = fields("k v flag", c_uint64) + fields("kStride vStride", c_int64) + fields("kScale", c_uint64) + fields("length reserved", c_int32)


class Attention(Structure):
    _fields_ = (fields("q o lse previousO previousLse", c_uint64) + [("blocks", POINTER(KvBlock))] + fields("relativeBias qScale vScale waitNanoseconds oScale workspace", c_uint64) +
                fields("qStride oStride workspaceBytes", c_int64) + fields("queries heads headDim blockCount dtype oDtype kernel", c_int32) + fields("scale", c_float))


class QuantizeKv(Structure):
    _fields_ = (fields("k v statistics outK outV kScale vScale", c_uint64) + fields("ldk ldv totalRows", c_int64) +
                fields("rows heads headDim statisticsCount dtype reserved", c_int32))


class LayerNorm(Structure):
    _fields_ = (fields("x weight bias out quantized quantizedScale bound modScale modShift", c_uint64) + fields("ldx ldo", c_int64) +
                fields("rows columns xDtype weightDtype outDtype", c_int32) + fields("epsilon boundFactor boundTerm", c_float))


class RmsNorm(Structure):
    _fields_ = (fields("x weight out quantized quantizedScale sumSquares rope", c_uint64) + fields("ldx ldo groupStride", c_int64) +
                fields("rows columns fullColumns headDim groupRows xDtype weightDtype outDtype activation", c_int32) + fields("epsilon", c_float))


class Random(Structure):
    _fields_ = (fields("out seed", c_uint64) + fields("row0 column0 fullColumns ldo", c_int64) + fields("rows columns", c_int32) + fields("tensorId", c_uint32) +
                fields("distribution", c_int32) + fields("amplitude offset", c_float) + fields("outDtype reserved", c_int32))


class Conv3d(Structure):
    _fields_ = (fields("x history weight bias residual out", c_uint64) +
                fields("frames height width inChannels outChannels kernelT kernelH kernelW strideT strideH strideW", c_int32) +
                fields("padTop padBottom padLeft padRight upsample dtype kernel", c_int32))


class PeerSum(Structure):
    _fields_ = (fields("blocks signals", POINTER(c_uint64)) + fields("out base bias gate", c_uint64) + fields("total first count", c_int64) +
                fields("rank ranks columns dtype sourceDtype biasDtype shots reserved", c_int32))


class Neighbour(Structure):
    _fields_ = fields("send receive theirEven theirOdd ownEven ownOdd theirSignals ownSignals", c_uint64)


class PeerExchange(Structure):
    _fields_ = [("neighbours", POINTER(Neighbour))] + fields("pitch rowBytes", c_int64) + fields("rows neighbourCount", c_int32)


U, L, I = c_uint64, c_int64, c_int
SIGNATURES = {
    "device_count": [POINTER(I)], "device_open": [I], "device_close": [], "device_info": [c_char_p, I],
    "malloc": [U, I, POINTER(U)], "free": [U], "memory_used": [POINTER(U), POINTER(U)],
    "peer_export": [U, c_char_p], "peer_open": [c_char_p, POINTER(U)], "peer_close": [U],
    "upload": [U, c_void_p, U, U], "download": [c_void_p, U, U, U], "copy": [U, U, U, U], "copy_2d": [U, U, U, U, U, U, U], "fill_zero": [U, U, U],
    "stream_create": [I, POINTER(U)], "stream_destroy": [U], "stream_synchronize": [U],
    "event_create": [POINTER(U)], "event_destroy": [U], "event_record": [U, U], "stream_wait_event": [U, U], "event_elapsed": [U, U, POINTER(c_float)],
    "capture_begin": [U], "capture_end": [U, POINTER(U)], "graph_launch": [U, U], "graph_destroy": [U],
    "flags_write": [POINTER(U), I, c_uint32, U], "flags_wait": [POINTER(U), I, I, U],
    "gemm": [POINTER(Gemm), U], "attention": [POINTER(Attention), U], "layer_norm": [POINTER(LayerNorm), U],
    "activate": [U, U, L, I, I, U], "add": [U, U, U, L, I, U], "add_rows": [U, U, U, U, I, I, I, U], "cast": [U, I, U, I, L, U],
    "quantize_rows": [U, U, U, L, I, I, I, U], "kv_statistics": [U, U, U, L, U, L, I, I, I, U], "quantize_kv": [POINTER(QuantizeKv), U], "count_nonfinite": [U, U, L, I, U],
    "patchify": [U, I, U, I, I, I, I, I, I, I, U], "unpatchify": [U, I, U, I, I, I, I, I, I, I, U],
    "sincos_embedding": [U, I, U, I, I, I, I, U], "sincos_2d": [U, I, I, I, I, I, I, I, U],
    "conv3d": [POINTER(Conv3d), U], "transpose": [U, U, I, I, I, I, U], "softmax_rows": [U, I, U, I, I, I, c_float, U],
    "to_bytes": [U, U, U, I, L, U], "fill_random": [POINTER(Random), U], "sum": [U, U, U, I, POINTER(U), I, L, I, I, U],
    "rms_norm": [POINTER(RmsNorm), U], "row_sum_squares": [U, U, L, I, I, I, U], "rope_3d": [U, I, I, I, I, I, U],
    "add_gated": [U, U, I, U, I, U, I, I, U], "multiply": [U, U, U, L, I, U], "combine": [U, POINTER(U), POINTER(c_float), I, L, U],
    "gather_rows": [U, I, U, I, I, U, I, I, U],
    "patchify_video": [U, I, U, I, I, I, I, I, I, I, I, U], "unpatchify_video": [U, I, U, I, I, I, I, I, I, I, I, U],
    "peer_sum": [POINTER(PeerSum), U], "peer_gather": [U, POINTER(U), POINTER(L), POINTER(U), I, I, U], "peer_exchange": [POINTER(PeerExchange), U],
    "nccl_unique_id": [c_char_p], "nccl_init": [c_char_p, I, I, POINTER(U)], "nccl_destroy": [U], "nccl_check": [U],
    "nccl_all_reduce": [U, U, U, L, I, U], "nccl_all_gather": [U, U, U, L, I, U],
    "nccl_exchange": [U, POINTER(U), POINTER(L), POINTER(I), I, POINTER(U), POINTER(L), POINTER(I), I, U],
}
# Functions whose only output is one 64-bit value, which the method then returns.
RETURNS = {"malloc", "stream_create", "event_create", "capture_end"}


class Module:
    """The functions named, of a module that may have only those; all, if none are named."""

    def __init__(self, path, names=tuple(SIGNATURES)):
        self.lib = ctypes.CDLL(path)
        self.lib.ditrun_last_error.restype = c_char_p
        self.lib.ditrun_module.restype = c_char_p
        for name in names:
            getattr(self.lib, f"ditrun_{name}").argtypes = SIGNATURES[name]

    def memory_used(self):
        now, peak = c_uint64(), c_uint64()
        self.lib.ditrun_memory_used(ctypes.byref(now), ctypes.byref(peak))
        return now.value, peak.value

    def __getattr__(self, name):
        if name not in SIGNATURES:
            raise AttributeError(name)
        function = getattr(self.lib, f"ditrun_{name}")

        def call(*arguments):
            value = c_uint64()
            status = function(*arguments, ctypes.byref(value)) if name in RETURNS else function(*arguments)
            if status != 0:
                raise RuntimeError(f"ditrun_{name} returned {status}: {self.lib.ditrun_last_error().decode()}")
            return value.value if name in RETURNS else None
        return call
