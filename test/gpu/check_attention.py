"""Checks of ditrun_attention against float64 softmax (see check_kernels.py)."""
import ctypes
import time

import torch

import check_attention_fp8
from ditrun_abi import BF16, F32, Attention, KvBlock
from check_operators import CODE, NAN, SHORT, relative

GENERIC, SM80, SM90 = 1, 2, 3
KERNEL = {GENERIC: "generic", SM80: "sm80", SM90: "sm90"}
# Relative error of o in float32, by dtype. bf16: probabilities are rounded to bf16 once (2^-9 each). f16: to 11 bits; on Hopper half of
# them are polynomials (1.1e-3), and scores are rounded to half precision.
O_LIMIT = {torch.float32: 1e-6, torch.bfloat16: 2.5e-3, torch.float16: 1.8e-3}
LSE_LIMIT = {torch.float32: 1e-5, torch.bfloat16: 2e-5, torch.float16: 2e-3}


def attention_args(q, blocks, o, lse, previous=None, flags=None, waits=None, kernel=0, scale=None, bias=None, oScale=None):
    """q and o [queries, heads, headDim], blocks of (k, v); heads adjacent, rows strided. Returns the argument and what must stay alive."""
    array = (KvBlock * len(blocks))(*(KvBlock(k=k.data_ptr(), v=v.data_ptr(), flag=flags[i] if flags else 0, kStride=k.stride(0), vStride=v.stride(0), length=k.shape[0])
                                      for i, (k, v) in enumerate(blocks)))
    args = Attention(q=q.data_ptr(), o=o.data_ptr(), lse=lse.data_ptr() if lse is not None else 0, previousO=previous[0].data_ptr() if previous else 0,
                     previousLse=previous[1].data_ptr() if previous else 0, blocks=array, relativeBias=bias.data_ptr() if bias is not None else 0,
                     waitNanoseconds=waits.data_ptr() if waits is not None else 0, oScale=oScale.data_ptr() if oScale is not None else 0,
                     qStride=q.stride(0), oStride=o.stride(0), queries=q.shape[0], heads=q.shape[1], headDim=q.shape[2], blockCount=len(blocks), dtype=CODE[q.dtype],
                     oDtype=CODE[o.dtype], kernel=kernel, scale=scale if scale is not None else q.shape[2] ** -0.5)
    return ctypes.byref(args), (array, args)


def reference(q, blocks, scale=None):
    k, v = (torch.cat([block[i] for block in blocks]).double() for i in range(2))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * (scale if scale is not None else q.shape[2] ** -0.5)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v), scores.logsumexp(-1)


def checks(module, report):
    combinations = [(GENERIC, torch.float32), (GENERIC, torch.bfloat16), (SM80, torch.bfloat16), (GENERIC, torch.float16)]
    if torch.cuda.get_device_capability() == (9, 0):
        combinations.append((SM90, torch.float16))

    def made(queries, lengths, heads, dim, dtype, size=1.0):
        """q, k and v as slices of one [tokens, 3, heads, dim] tensor, as the qkv linear writes them."""
        packed = (torch.randn(queries, 3, heads, dim, device="cuda") * size).to(dtype)
        blocks = []
        for length in lengths:
            other = (torch.randn(length, 3, heads, dim, device="cuda") * size).to(dtype)
            blocks.append((other[:, 1], other[:, 2]))
        return packed[:, 0], blocks

    def run(q, blocks, o_dtype, kernel, **more):
        o = torch.full(q.shape, NAN, device="cuda", dtype=o_dtype)
        lse = torch.full((q.shape[1], q.shape[0]), NAN, device="cuda")
        args, keep = attention_args(q, blocks, o, lse, kernel=kernel, **more)
        torch.cuda.synchronize()
        module.attention(args, 0)
        torch.cuda.synchronize()
        return o, lse

    def sizes():
        dims_of = {GENERIC: (8, 20, 32, 33, 64, 72, 128, 256), SM80: (8, 32, 40, 64, 72, 128), SM90: (32, 64, 128)}
        shapes = ((193, [70, 129, 1]), (64, [64]), (1, [1]), (257, [1000]), (300, [2048, 1100]))
        for kernel, dtype in combinations:
            for dim in dims_of[kernel]:
                for queries, lengths in shapes if dim in (32, 64) or kernel == SM90 else shapes[:1]:
                    q, blocks = made(queries, lengths, 3, dim, dtype)
                    expected, expected_lse = reference(q, blocks)
                    name = f"attention {KERNEL[kernel]} {SHORT[dtype]} dim {dim}, {queries} queries, keys {lengths}"
                    o, lse = run(q, blocks, torch.float32, kernel)
                    report(name, relative(o, expected), O_LIMIT[dtype])
                    report(name + ", lse", float((lse - expected_lse).abs().max()), LSE_LIMIT[dtype])
                    o, _ = run(q, blocks, torch.bfloat16, kernel)
                    report(name + ", bf16 out", relative(o, expected), 3.5e-3)
                    o2, _ = run(q, blocks, torch.bfloat16, kernel)
                    report(name + ", again the same bits", float((o != o2).sum()), 0)

    def merging():
        for kernel, dtype in combinations:
            for dim in (32, 64, 128):
                q, blocks = made(130, [90, 200], 2, dim, dtype, size=2.0)
                expected, expected_lse = reference(q, blocks)
                o, lse = run(q, blocks[:1], torch.float32, kernel)
                args, keep = attention_args(q, blocks[1:], o, lse, previous=(o, lse), kernel=kernel)  # in place
                torch.cuda.synchronize()
                module.attention(args, 0)
                torch.cuda.synchronize()
                name = f"attention {KERNEL[kernel]} {SHORT[dtype]} dim {dim} merged in place"
                report(name, relative(o, expected), O_LIMIT[dtype])
                report(name + ", lse", float((lse - expected_lse).abs().max()), 2.5 * LSE_LIMIT[dtype])

    def hard_inputs():
        for kernel, dtype in combinations:
            q, blocks = made(100, [130], 2, 32, dtype, size=20.0)  # scores of several hundred
            expected, _ = reference(q, blocks)
            o, lse = run(q, blocks, torch.float32, kernel)
            report(f"attention {KERNEL[kernel]} {SHORT[dtype]} scores of hundreds", relative(o, expected), 2e-5 if dtype == torch.float32 else 3e-3)
            equal = [(torch.ones_like(blocks[0][0]) * 3, blocks[0][1])]
            expected, _ = reference(q, equal)
            o, _ = run(q, equal, torch.float32, kernel)
            report(f"attention {KERNEL[kernel]} {SHORT[dtype]} equal keys", relative(o, expected), 2e-6 if dtype == torch.float32 else 3e-3)
            q[3, 1, 5] = NAN
            o, _ = run(q, blocks, torch.float32, kernel)
            others = o.isfinite().all(2)
            report(f"attention {KERNEL[kernel]} {SHORT[dtype]} a NaN stays in its row", float(others[3, 1]) + float((~others).sum() - 1), 0)
        for kernel, dtype in combinations:
            if dtype != torch.float16:
                continue
            for dim in (32, 64, 128):
                for scores, size in (("small", 1.0), ("large", 8.0)):
                    q, blocks = made(400, [2000, 1000], 2, dim, dtype, size=size)
                    blocks[0][0][777, 1], blocks[1][0][900, 1] = q[5, 1] * 3, q[300, 1] * 2  # scores that outgrow the first keys'
                    expected, _ = reference(q, blocks)
                    o, _ = run(q, blocks, torch.float32, kernel)
                    worst = float(((o.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
                    report(f"attention {KERNEL[kernel]} f16 dim {dim}, late outliers among {scores} scores, worst row", worst, 6e-3)
                # Negative queries make the scores of the infinite key -infinity in all rows.
                q, blocks = made(400, [2000, 1000], 2, dim, dtype)
                q.copy_(-q.abs())
                blocks[1][0][900, 1, 7] = float("inf")
                o, _ = run(q, blocks, torch.float32, kernel)
                report(f"attention {KERNEL[kernel]} f16 dim {dim}, an infinite key shows", 0.0 if o[:, 1].isnan().any() else 1.0, 0)
                report(f"attention {KERNEL[kernel]} f16 dim {dim}, and not in another head", float(o[:, 0].isnan().sum()), 0)

    def flags():
        """Keys arrive, and flags are set, while the kernel waits for them. (A kernel that fills the GPU: see check_peers.)"""
        for kernel, dtype in [c for c in combinations if c in ((GENERIC, torch.float32), (SM80, torch.bfloat16), (SM90, torch.float16))]:
            wait_for_keys(1000, 4, kernel, dtype)

    def wait_for_keys(queries, heads, kernel, dtype):
        q, blocks = made(queries, [500, 700], heads, 64, dtype)
        expected, _ = reference(q[:300], blocks)
        sent = [(k.contiguous(), v.contiguous()) for k, v in blocks]
        arriving = [(torch.full_like(k, NAN), torch.full_like(v, NAN)) for k, v in sent]
        words = torch.zeros(2, device="cuda", dtype=torch.int32)
        waits = torch.zeros(2, device="cuda", dtype=torch.int64)
        o = torch.full(q.shape, NAN, device="cuda")
        addresses = [words.data_ptr(), words.data_ptr() + 4]
        compute, copies, rescue = module.stream_create(0), module.stream_create(1), module.stream_create(1)
        done = torch.cuda.Event()
        args, keep = attention_args(q, arriving, o, None, flags=addresses, waits=waits, kernel=kernel)
        torch.cuda.synchronize()
        module.attention(args, compute)
        done.record(torch.cuda.ExternalStream(compute))
        time.sleep(0.02)
        for i in range(2):
            for source, destination in zip(sent[i], arriving[i]):
                module.copy(destination.data_ptr(), source.data_ptr(), source.numel() * source.element_size(), copies)
            module.flags_write((ctypes.c_uint64 * 1)(addresses[i]), 1, 1, copies)
            time.sleep(0.01)
        deadline = time.time() + 5
        while not done.query() and time.time() < deadline:
            time.sleep(0.01)
        stuck = not done.query()
        if stuck:  # the copies found no multiprocessor: let the kernel go, so that the run can end
            module.flags_write((ctypes.c_uint64 * 2)(*addresses), 2, 1, rescue)
        torch.cuda.synchronize()
        name = f"attention {KERNEL[kernel]} waits for flags, {queries} queries of {heads} heads"
        report(name, 1.0 if stuck else relative(o[:300], expected) + float((~o.isfinite()).sum()), 1e-6 if dtype == torch.float32 else 2.5e-3,
               "stuck: copies on one GPU found no room beside the waiting kernel" if stuck else "")
        report(name + ", waiting is counted", abs(int(words.sum()) - 2) + (0 if int(waits[0]) > 1_000_000 else 1), 0,
               f"{int(waits[0]) / 1e6:.1f} and {int(waits[1]) / 1e6:.1f} ms")
        for stream in (compute, copies, rescue):
            module.stream_destroy(stream)

    def e4m3_outputs():
        for queries, keys in ((193, 512), (32, 77), (300, 2500)):
            q, k, v = (torch.randn(n, 3, 128, device="cuda").bfloat16() for n in (queries, keys, keys))
            exact = reference(q, [(k, v)])[0]
            o, oScale = torch.zeros(queries, 3, 128, device="cuda").to(torch.float8_e4m3fn), torch.full((queries, 3), float("nan"), device="cuda")
            args, keep = attention_args(q, [(k, v)], o, None, oScale=oScale)
            torch.cuda.synchronize()
            module.attention(args, 0)
            torch.cuda.synchronize()
            amax = exact.abs().amax(2)
            report(f"attention bf16 to e4m3, {queries} queries, {keys} keys, scales", float(((oScale * 448 - amax).abs() / amax).max()), 2e-2)
            within = (o.double() * oScale.double()[..., None] - exact).abs() / (0.07 * exact.abs() + 1e-2 * amax[..., None])
            report(f"attention bf16 to e4m3, {queries} queries, {keys} keys", float(within.max()), 1)
            report(f"attention bf16 to e4m3, {queries} queries, {keys} keys, L2", float((o.double() * oScale.double()[..., None] - exact).norm() / exact.norm()), 0.03)

    return {"attention to e4m3": e4m3_outputs, **check_attention_fp8.checks(module, report), "attention sizes": sizes, "attention merging": merging, "attention hard inputs": hard_inputs, "attention flags": flags}
