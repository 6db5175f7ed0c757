"""Checks ditrun's attention forward and times it beside PyTorch's cuDNN attention, in one run on one GPU.

    python3 bench/attention.py build/libditrun_cuda.so [--json out.json] [--only check|time|error] [--head-dim 32]

Several libraries may be named; each is checked and timed, in bf16, in f16 and in e4m3 (with and without quantising the inputs). Errors are against float64 on the same bf16 (f16) inputs. Times are
medians of CUDA events over single calls, the two programs taking turns; FLOPs are 4 · heads · queries · keys · headDim.
"""

import argparse
import ctypes
import functools
import json
import os
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

MAX_BLOCKS = 16
WORKSPACE_BYTES = 32 << 20
CODE = {torch.bfloat16: 1, torch.float16: 3}
U64, I64, I32 = ctypes.c_uint64, ctypes.c_int64, ctypes.c_int32


class KvBlock(ctypes.Structure):
    _fields_ = [("k", U64), ("v", U64), ("flag", U64), ("kStride", I64), ("vStride", I64), ("kScale", U64), ("length", I32),
                ("reserved", I32)]


class AttentionArgs(ctypes.Structure):
    _fields_ = [("q", U64), ("o", U64), ("lse", U64), ("previousO", U64), ("previousLse", U64),
                ("blocks", ctypes.POINTER(KvBlock)), ("relativeBias", U64), ("qScale", U64), ("vScale", U64), ("waitNanoseconds", U64),
                ("oScale", U64), ("workspace", U64), ("qStride", I64), ("oStride", I64), ("workspaceBytes", I64), ("queries", I32), ("heads", I32), ("headDim", I32), ("blockCount", I32), ("dtype", I32), ("oDtype", I32),
                ("kernel", I32), ("scale", ctypes.c_float)]


class QuantizeKvArgs(ctypes.Structure):
    _fields_ = ([(name, U64) for name in "k v statistics outK outV kScale vScale".split()] + [(name, I64) for name in "ldk ldv totalRows".split()] +
                [(name, I32) for name in "rows heads headDim statisticsCount dtype reserved".split()])


class Attention:
    """ditrun_attention of one library, on PyTorch's current stream."""

    def __init__(self, path):
        self.library = ctypes.CDLL(os.path.abspath(path))
        self.library.ditrun_last_error.restype = ctypes.c_char_p
        self.library.ditrun_attention.argtypes = [ctypes.POINTER(AttentionArgs), U64]
        self.library.ditrun_quantize_rows.argtypes = [U64, U64, U64, I64, I32, I32, I32, U64]
        self.library.ditrun_kv_statistics.argtypes = [U64, U64, U64, I64, U64, I64, I32, I32, I32, U64]
        self.library.ditrun_quantize_kv.argtypes = [ctypes.POINTER(QuantizeKvArgs), U64]
        self.name = path.rsplit("/", 1)[-1].removesuffix(".so")
        self.succeed(self.library.ditrun_device_open(torch.cuda.current_device()))
        self.memory = torch.empty(WORKSPACE_BYTES, device="cuda", dtype=torch.uint8)

    def succeed(self, status):
        if status:
            raise RuntimeError(self.library.ditrun_last_error().decode())

    def __call__(self, q, blocks, o, lse=None, previous=None, flags=None, waits=None, scale=None, kernel=0):
        """q, k, v, o: [rows, heads, headDim], heads adjacent; blocks: [(k, v), …]; lse [heads, queries] float32."""
        array = (KvBlock * len(blocks))()
        for i, (k, v) in enumerate(blocks):
            array[i] = KvBlock(k.data_ptr(), v.data_ptr(), flags[i] if flags else 0, k.stride(0), v.stride(0), 0, k.shape[0], 0)
        args = AttentionArgs(
            q.data_ptr(), o.data_ptr(), lse.data_ptr() if lse is not None else 0,
            previous[0].data_ptr() if previous else 0, previous[1].data_ptr() if previous else 0,
            array, 0, 0, 0, waits.data_ptr() if waits is not None else 0, 0, self.memory.data_ptr(), q.stride(0), o.stride(0), WORKSPACE_BYTES,
            q.shape[0], q.shape[1], q.shape[2], len(blocks), CODE[q.dtype], 0 if o.dtype == torch.float32 else 1, kernel,
            scale if scale is not None else q.shape[2] ** -0.5)
        self.succeed(self.library.ditrun_attention(ctypes.byref(args), torch.cuda.current_stream().cuda_stream))


class Fp8Attention:
    """The same in e4m3: buffers for inputs of one shape, quantize() to fill them and a call for attention alone. bf16 inputs, one block."""

    UNIT, PARTS = 128, 64

    def __init__(self, attention, q, k, v):
        keys, heads, dim = k.shape
        self.attention, self.inputs = attention, (q, k, v)
        padded = -(-keys // self.UNIT) * self.UNIT
        empty = lambda *shape, dtype=torch.float32: torch.empty(shape, device="cuda", dtype=dtype)
        self.q, self.k, self.v = (empty(*shape, dtype=torch.float8_e4m3fn) for shape in (q.shape, k.shape, (heads, dim, padded)))
        self.q_scale, self.k_scale, self.v_scale = empty(*q.shape[:2]), empty(heads, padded // self.UNIT), empty(heads, dim)
        self.statistics, self.workspace = empty(2, heads * dim), empty(self.PARTS, 2, heads * dim)
        self.quantize()

    def quantize(self):
        """All of it: queries, statistics of keys and values, keys and values."""
        q, k, v = self.inputs
        library, succeed, stream = self.attention.library, self.attention.succeed, torch.cuda.current_stream().cuda_stream
        heads, dim = q.shape[1:]
        succeed(library.ditrun_quantize_rows(self.q.data_ptr(), self.q_scale.data_ptr(), q.data_ptr(), dim, q.shape[0] * heads, dim, 1, stream))
        succeed(library.ditrun_kv_statistics(self.statistics.data_ptr(), self.workspace.data_ptr(), k.data_ptr(), k.stride(0), v.data_ptr(), v.stride(0), k.shape[0],
                                             heads * dim, 1, stream))
        succeed(library.ditrun_quantize_kv(ctypes.byref(QuantizeKvArgs(
            k.data_ptr(), v.data_ptr(), self.statistics.data_ptr(), self.k.data_ptr(), self.v.data_ptr(), self.k_scale.data_ptr(), self.v_scale.data_ptr(), k.stride(0),
            v.stride(0), k.shape[0], k.shape[0], heads, dim, 1, 1, 0)), stream))

    def __call__(self, o, lse=None):
        q, k = self.q, self.k
        block = (KvBlock * 1)(KvBlock(k.data_ptr(), self.v.data_ptr(), 0, k.stride(0), self.v.shape[2], self.k_scale.data_ptr(), k.shape[0], 0))
        args = AttentionArgs(q.data_ptr(), o.data_ptr(), lse.data_ptr() if lse is not None else 0, 0, 0, block, 0, self.q_scale.data_ptr(), self.v_scale.data_ptr(), 0,
                             0, self.attention.memory.data_ptr(), q.stride(0), o.stride(0), WORKSPACE_BYTES, *q.shape, 1, 2, 0 if o.dtype == torch.float32 else 1, 0, q.shape[2] ** -0.5)
        self.attention.succeed(self.attention.library.ditrun_attention(ctypes.byref(args), torch.cuda.current_stream().cuda_stream))

    def dequantized(self):
        """q, smoothed k and v in float64."""
        order = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
        keys = self.k.shape[0]
        k = self.k.double() * self.k_scale.double().t().repeat_interleave(self.UNIT, 0)[:keys, :, None]
        stored = self.v.double().permute(2, 0, 1)
        v = torch.empty_like(stored).view(-1, 16, *stored.shape[1:])
        v[:, order] = stored.reshape(v.shape)
        return self.q.double() * self.q_scale.double()[..., None], k, v.view(stored.shape)[:keys] * self.v_scale.double()


def reference(q, k, v, scale=None):
    """Attention and log-sum-exp in float64, a slice of the queries at a time. [rows, heads, headDim] -> same, [heads, rows]."""
    scale = scale if scale is not None else q.shape[2] ** -0.5
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))
    outputs, lses = [], []
    for part in q.split(max(1, 2**27 // (k.shape[1] * k.shape[0])), dim=1):
        scores = part @ k.transpose(1, 2) * scale
        lses.append(scores.logsumexp(-1))
        outputs.append(scores.softmax(-1) @ v)
    return torch.cat(outputs, 1).transpose(0, 1), torch.cat(lses, 1)


def cudnn(q, k, v):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)))[0].transpose(0, 1)


def relative(x, y):
    return ((x.double() - y).norm() / y.norm()).item()


def random(rows, heads, dim, row_stride=None, scale=1.0, dtype=torch.bfloat16):
    row_stride = row_stride or heads * dim
    storage = (torch.randn(rows, row_stride, device="cuda") * scale).to(dtype)
    return storage[:, : heads * dim].unflatten(1, (heads, dim))


def poisoned(rows, heads, dim, dtype=torch.bfloat16, row_stride=None):
    row_stride = row_stride or heads * dim
    storage = torch.full((rows, row_stride), float("nan"), device="cuda", dtype=dtype)
    return storage[:, : heads * dim].unflatten(1, (heads, dim))


def check(attention, dims, inputs):
    """Every feature on small odd shapes against float64, inputs in this dtype. Returns the failures."""
    failures = []
    made = functools.partial(random, dtype=inputs)

    def expect(case, error, limit):
        name = f"{str(inputs)[6:]}, {case}"
        good = error <= limit  # NaN is not
        if not good:
            failures.append(name)
        print(f"  {'ok  ' if good else 'FAIL'} {name}: {error:.2e} (at most {limit:.0e})", flush=True)

    for dim in dims:
        for heads, queries, lengths, extra, dtype in [
            (1, 64, [64], 0, torch.float32), (1, 256, [512], 0, torch.float32), (3, 257, [1000], 8, torch.bfloat16), (2, 1, [1], 0, torch.float32),
            (2, 300, [129, 64, 7, 1, 515], 24, torch.float32), (5, 1023, [777, 2048], 0, torch.bfloat16),
            (2, 130, [33] * 16, 0, torch.float32), (2, 65, [77], 8, torch.bfloat16), (12, 4097, [512], 16, torch.bfloat16),
            (3, 129, [33, 1, 200, 129], 0, torch.bfloat16),
        ]:
            q = made(queries, heads, dim, heads * dim + extra)
            blocks = [(made(n, heads, dim, heads * dim + extra), made(n, heads, dim, heads * dim + 2 * extra)) for n in lengths]
            o, lse = poisoned(queries, heads, dim, dtype, heads * dim + extra), torch.full((heads, queries), float("nan"), device="cuda")
            attention(q, blocks, o, lse)
            k, v = (torch.cat(x) for x in zip(*blocks))
            want, want_lse = reference(q, k, v)
            label = f"headDim {dim}, {heads} heads, {queries} queries, keys {lengths if len(lengths) < 6 else f'16 x {lengths[0]}'}"
            expect(f"{label}, o {str(dtype)[6:]}", relative(o, want), 5e-3)
            expect(f"{label}, lse", (lse - want_lse).abs().max().item(), 6e-3)
            again = poisoned(queries, heads, dim, dtype, heads * dim + extra)
            attention(q, blocks, again, lse)
            expect(f"{label}, bits that change", (again != o).sum().item(), 0)
        # Rows whose scores outgrow the first keys' by different amounts; the warps of a warp group must still go together.
        q, k, v = made(1024, 2, dim), made(16384, 2, dim), made(16384, 2, dim)
        k[12345], k[15000] = q[0] * 2, q[100] * 3
        o = poisoned(1024, 2, dim)
        attention(q, [(k, v)], o)
        want, _ = reference(q, k, v)
        expect(f"headDim {dim}, late outliers, worst row", ((o - want).norm(dim=-1) / want.norm(dim=-1)).max().item(), 2e-2)
        for keys in (300, 16384):
            k = made(keys, 2, dim)
            k[keys // 3, :, 5] = float("nan")
            attention(q, [(k, made(keys, 2, dim))], o)
            expect(f"headDim {dim}, {keys} keys, rows that hide a NaN in K", (~o.isnan()).any(-1).sum().item(), 0)
        # Merge with a previous partial result.
        q = made(200, 3, dim)
        first, second = [(made(n, 3, dim), made(n, 3, dim)) for n in (300, 411)]
        o1, lse1 = poisoned(200, 3, dim, torch.float32), torch.empty(3, 200, device="cuda")
        attention(q, [first], o1, lse1)
        o2, lse2 = poisoned(200, 3, dim), torch.empty(3, 200, device="cuda")
        attention(q, [second], o2, lse2, previous=(o1, lse1))
        want, want_lse = reference(q, torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))
        expect(f"headDim {dim}, merged o", relative(o2, want), 5e-3)
        expect(f"headDim {dim}, merged lse", (lse2 - want_lse).abs().max().item(), 6e-3)
        # The second block arrives while the kernel waits for its flag.
        flags, waits = torch.tensor([1, 0], dtype=torch.int32, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
        late = (torch.zeros_like(second[0]), torch.zeros_like(second[1]))
        o3, copies = poisoned(200, 3, dim), torch.cuda.Stream()
        for x in late:
            x.copy_(torch.zeros_like(x))  # loads these kernels now: loading waits for a running kernel, which would wait for them
        flags[1:].fill_(0)
        torch.cuda._sleep(1)
        torch.cuda.synchronize()
        attention(q, [first, late], o3, flags=[flags.data_ptr(), flags.data_ptr() + 4], waits=waits)
        with torch.cuda.stream(copies):
            torch.cuda._sleep(2_000_000)
            late[0].copy_(second[0])
            late[1].copy_(second[1])
            flags[1:].fill_(1)
        torch.cuda.synchronize()
        expect(f"headDim {dim}, late block o", relative(o3, want), 5e-3)
        expect(f"headDim {dim}, wait not recorded", 0 if waits[1] > 100_000 and waits[0] < 100_000 else 1, 0)
    return failures


def hard_inputs(dim, heads=4, queries=2048, keys=16384):
    """Inputs by name: random ones and those that break careless softmax arithmetic."""
    def make(scale=1.0):
        return random(queries, heads, dim, scale=scale), random(keys, heads, dim, scale=scale), random(keys, heads, dim)

    yield "random", make()
    q, k, v = make()
    yield "channels x20", (scaled(q, dim), scaled(k, dim), v)
    yield "q, k x4", make(4.0)
    yield "q, k x30", make(30.0)
    q, k, v = make()
    yield "equal keys", (q, k[:1].expand_as(k).contiguous(), v)
    q, k, v = make()
    k = k.clone()
    k[9000] = (q[0].float() * 6).bfloat16()
    yield "one late sink", (q[:1].expand_as(q).contiguous(), k, v)
    q, k, v = make()
    yield "rising scores", (torch.ones_like(q), (k.float() * 0.1 + torch.linspace(-8, 8, keys, device="cuda")[:, None, None]).bfloat16(), v)
    yield "all logits -500", (torch.ones_like(q) * 8, (k.float() * 0.1 - 500 / 8 * dim**-0.5).bfloat16(), v)
    yield "logits 1e6", (torch.ones_like(q) * 1000, (k.float() + 1000 * dim**-0.5).bfloat16(), v)
    q, k, v = make()
    yield "v x 1e5, some 1e-8", (q, k, v * torch.where(torch.arange(dim, device="cuda") % 2 == 0, 1e5, 1e-8).bfloat16())


def scaled(x, dim):
    return (x.float() * torch.where(torch.arange(dim, device="cuda") % 16 == 3, 20.0, 1.0)).bfloat16()


def errors(attention, dims):
    """Relative errors ‖o - float64‖ / ‖float64‖ beside cuDNN's; bf16 outputs, and float32 where only the softmax rounds. e4m3: against
    float64 on the original inputs, that of exact attention on the quantised inputs, and what the kernel adds to it."""
    rows = []
    for dim in dims:
        for name, (q, k, v) in hard_inputs(dim):
            want, want_lse = reference(q, k, v)
            o16, o32 = poisoned(*q.shape), poisoned(*q.shape, torch.float32)
            lse = torch.empty(q.shape[1], q.shape[0], device="cuda")
            attention(q, [(k, v)], o16, lse)
            attention(q, [(k, v)], o32)
            halves = [x.half() for x in (q, k, v / 100 if name.startswith("v x") else v)]  # 1e5 is beyond f16
            want_half, lse_half, o_half = reference(*halves), torch.empty_like(lse), poisoned(*q.shape)
            attention(halves[0], [tuple(halves[1:])], o_half, lse_half)
            fp8, o8, lse8 = Fp8Attention(attention, q.contiguous(), k, v), poisoned(*q.shape), torch.empty_like(lse)
            fp8(o8, lse8)
            same, same_lse = reference(*fp8.dequantized())
            row = dict(headDim=dim, inputs=name, ours=relative(o16, want), oursFloat32=relative(o32, want),
                       f16=relative(o_half, want_half[0]), f16Cudnn=relative(cudnn(*halves), want_half[0]),
                       f16Lse=((lse_half - want_half[1]).abs() / want_half[1].abs().clamp(min=1)).max().item(), cudnn=relative(cudnn(q, k, v), want), lse=((lse - want_lse).abs() / want_lse.abs().clamp(min=1)).max().item(),
                       e4m3=relative(o8, want), e4m3Inputs=relative(same, want), e4m3Kernel=relative(o8, same),
                       e4m3Lse=((lse8 - same_lse).abs() / same_lse.abs().clamp(min=1)).max().item())
            rows.append(row)
            print(f"  {attention.name} headDim {dim} {name:20s} ours {row['ours']:.2e} (float32 out {row['oursFloat32']:.2e}) "
                  f"cuDNN {row['cudnn']:.2e} ratio {row['ours'] / max(row['cudnn'], 1e-9):.2f} lse {row['lse']:.1e}; "
                  f"f16 {row['f16']:.2e} (cuDNN {row['f16Cudnn']:.2e}, lse {row['f16Lse']:.1e}); "
                  f"e4m3 {row['e4m3']:.2e} (of its inputs alone {row['e4m3Inputs']:.2e}, of the kernel {row['e4m3Kernel']:.2e}, lse {row['e4m3Lse']:.1e})", flush=True)
    return rows


SHAPES = [(16, 65536, 65536, 32), (16, 16384, 65536, 32), (2, 65536, 8192, 32), (16, 65536, 65536, 64), (8, 65536, 65536, 128), (12, 32760, 32760, 128),
          (12, 32760, 77, 128), (12, 32760, 512, 128), (12, 32760, 1024, 128), (12, 32760, 4096, 128), (6, 8190, 32760, 128)]


def times(attentions, shapes, repeats):
    """Median times of every library and cuDNN, taking turns on the same inputs."""
    rows = []
    for heads, queries, keys, dim in shapes:
        q, k, v = random(queries, heads, dim), random(keys, heads, dim), random(keys, heads, dim)
        o, lse = poisoned(queries, heads, dim), torch.empty(heads, queries, device="cuda")
        calls = {"cuDNN": lambda: cudnn(q, k, v)} | {a.name: (lambda a=a: a(q, [(k, v)], o, lse)) for a in attentions}
        halves = [x.half() for x in (q, k, v)]
        calls |= {f"{a.name} f16": (lambda a=a: a(halves[0], [tuple(halves[1:])], o, lse)) for a in attentions}
        calls |= {f"{a.name} e4m3": (lambda f=Fp8Attention(a, q, k, v): f(o, lse)) for a in attentions}
        calls |= {f"{a.name} e4m3 + quantising": (lambda f=Fp8Attention(a, q, k, v): (f.quantize(), f(o, lse))) for a in attentions}
        taken = {name: [] for name in calls}
        for repeat in range(repeats + 1):
            for name, call in calls.items():
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call()
                end.record()
                end.synchronize()
                if repeat:
                    taken[name].append(start.elapsed_time(end))
        work = 4 * heads * queries * keys * dim
        want = cudnn(q, k, v).double()
        differences = {"cuDNN": 0.0}
        for name in list(calls)[1:]:
            o.fill_(float("nan"))
            calls[name]()
            differences[name] = relative(o, want)
        for name, all_times in taken.items():
            t = statistics.median(all_times)
            ratio = statistics.median(taken["cuDNN"]) / t
            rows.append(dict(heads=heads, queries=queries, keys=keys, headDim=dim, name=name, milliseconds=t, tflops=work / t / 1e9, ratio=ratio,
                             difference=differences[name]))
            print(f"  {heads:2d} x {queries} x {keys} x {dim:3d} {name:32s} {t:8.3f} ms {work / t / 1e9:6.0f} TFLOP/s  {ratio:.2f} x cuDNN, "
                  f"outputs differ by {differences[name]:.1e}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="+")
    parser.add_argument("--json")
    parser.add_argument("--only", choices=["check", "error", "time"])
    parser.add_argument("--head-dim", type=int, action="append")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(torch.seed() if options.only == "check" else 1)
    dims = options.head_dim or [32, 64, 128]
    attentions = [Attention(path) for path in options.libraries]
    failures, result = [], {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    for attention in attentions:
        if options.only in (None, "check"):
            print(f"{attention.name}: checks")
            for inputs in CODE:
                failures += [f"{attention.name}: {name}" for name in check(attention, dims, inputs)]
        if options.only in (None, "error"):
            print(f"{attention.name}: errors against float64")
            result[f"errors {attention.name}"] = errors(attention, dims)
    if options.only in (None, "time"):
        result["times"] = times(attentions, [s for s in SHAPES if s[3] in dims], options.repeats)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    if failures:
        sys.exit("failed: " + "; ".join(failures))


if __name__ == "__main__":
    main()
