"""Times of kernels beside PyTorch's, on the same data in the same run (see check_kernels.py). Medians of device events."""
import ctypes
import statistics

import torch

from ditrun_abi import BF16, F32, GELU, GELU_TANH, SILU
from check_operators import gemm_args, layer_norm_args
from check_attention import attention_args
from check_wan import rms_norm_args


def median_ms(call, repeats=20):
    for _ in range(3):
        call()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def busy_ms(call, repeats=5, calls=20):
    """Milliseconds of one of `calls` calls queued together: what a kernel costs in the middle of a model."""
    call()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in pairs:
        start.record()
        for _ in range(calls):
            call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs) / calls


def line(name, ours, theirs, peer, work=None, unit=""):
    """ours and theirs in milliseconds; work in operations or bytes, unit TF/s or TB/s."""
    rate = f"{work / ours / 1e9:8.1f} {unit}" if work else " " * 8
    print(f"{name:52s} {ours * 1e3:9.1f} us {rate} | {peer} {theirs * 1e3:9.1f} us | ratio {theirs / ours:5.2f}" if theirs else f"{name:52s} {ours * 1e3:9.1f} us {rate}", flush=True)


def run(module, only=None):
    print("--- bench (ratio above 1: faster than the peer)")
    for name, bench in (("gemm", gemm), ("gemm e4m3", gemm_fp8), ("memory", memory), ("wan", wan), ("attention", attention)):
        if only is None or only in name:
            try:
                bench(module)
            except Exception as problem:
                print(f"bench {name} stopped: {problem}")


def gemm(module):
    functional = torch.nn.functional
    for m, n, k in ((65536, 1536, 512), (65536, 512, 512), (65536, 2048, 512), (65536, 512, 2048), (16384, 768, 512), (32760, 1536, 1536), (32760, 8960, 1536)):
        a, w = (torch.randn(m, k, device="cuda") / 4).bfloat16(), (torch.randn(n, k, device="cuda") / 4).bfloat16()
        bias, out = torch.randn(n, device="cuda").bfloat16(), torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        residual = torch.randn(m, n, device="cuda").bfloat16()
        args = gemm_args(a, w, out, bias)
        line(f"gemm bf16 {m}x{n}x{k} bias", median_ms(lambda: module.gemm(args, 0)), median_ms(lambda: functional.linear(a, w, bias)), "torch", 2.0 * m * n * k, "TF/s")
        if (n, k) == (2048, 512):
            args = gemm_args(a, w, out, bias, activation=GELU)
            line(f"gemm bf16 {m}x{n}x{k} bias, gelu", median_ms(lambda: module.gemm(args, 0)), median_ms(lambda: functional.gelu(functional.linear(a, w, bias))), "torch")
        if n == 512:
            args = gemm_args(a, w, residual, bias, residual)
            line(f"gemm bf16 {m}x{n}x{k} bias, residual in place", median_ms(lambda: module.gemm(args, 0)), median_ms(lambda: functional.linear(a, w, bias) + residual), "torch")
    m, n, k = 65536, 1536, 512
    a, w, out = torch.randn(m, k, device="cuda"), torch.randn(n, k, device="cuda"), torch.empty(m, n, device="cuda")
    args = gemm_args(a, w, out)
    line(f"gemm f32 {m}x{n}x{k}", median_ms(lambda: module.gemm(args, 0), 5), median_ms(lambda: functional.linear(a, w), 5), "torch", 2.0 * m * n * k, "TF/s")


def gemm_fp8(module):
    for m, n, k in ((65536, 1536, 512), (65536, 512, 512), (65536, 2048, 512), (65536, 512, 2048), (32760, 8960, 1536), (8192, 8192, 8192)):
        a, w = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn), torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn)
        aScale, wScale = torch.rand(m, device="cuda"), torch.rand(n, device="cuda")
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        args = gemm_args(a, w, out, aScale=aScale, wScale=wScale)
        torch_call = lambda: torch._scaled_mm(a, w.t(), scale_a=aScale[:, None], scale_b=wScale[None], out_dtype=torch.bfloat16, use_fast_accum=True)
        line(f"gemm e4m3 {m}x{n}x{k}", median_ms(lambda: module.gemm(args, 0)), median_ms(torch_call), "torch fast accumulation", 2.0 * m * n * k, "TF/s")
        if (n, k) not in ((2048, 512), (8960, 1536)):
            continue
        activation, out8 = GELU if k == 512 else GELU_TANH, torch.empty(m, n, device="cuda", dtype=torch.float8_e4m3fn)
        for result, scale in ((out, None), (out8, torch.rand(m, device="cuda") + 1)):
            args = gemm_args(a, w, result, activation=activation, aScale=aScale, wScale=wScale, outScale=scale)
            line(f"gemm e4m3 {m}x{n}x{k} gelu -> {'bf16' if scale is None else 'e4m3'}", median_ms(lambda: module.gemm(args, 0)), None, "", 2.0 * m * n * k, "TF/s")


def memory(module):
    tokens, width = 65536, 512
    x, out = torch.randn(tokens, width, device="cuda").bfloat16(), torch.empty(tokens, width, device="cuda", dtype=torch.bfloat16)
    weight, bias = torch.randn(width, device="cuda").bfloat16(), torch.randn(width, device="cuda").bfloat16()
    big, bigOut = torch.randn(tokens, 2048, device="cuda").bfloat16(), torch.empty(tokens, 2048, device="cuda", dtype=torch.bfloat16)
    quantized, scale = torch.empty(tokens, width, device="cuda", dtype=torch.float8_e4m3fn), torch.empty(tokens, device="cuda")
    bytes_of = lambda *tensors: sum(t.numel() * t.element_size() for t in tensors)
    copy = lambda: module.copy(bigOut.data_ptr(), big.data_ptr(), big.numel() * 2, 0)
    line("copy 256 MiB", median_ms(copy), median_ms(lambda: bigOut.copy_(big)), "torch", bytes_of(big, bigOut), "TB/s")
    norm = layer_norm_args(x, out, weight, bias)
    line("layer_norm 65536x512 (in cache)", median_ms(lambda: module.layer_norm(norm, 0)), median_ms(lambda: torch.nn.functional.layer_norm(x, (width,), weight, bias)), "torch",
         bytes_of(x, out), "TB/s")
    wide, wideBias = torch.randn(2048, device="cuda").bfloat16(), torch.randn(2048, device="cuda").bfloat16()
    bigNorm = layer_norm_args(big, bigOut, wide, wideBias)
    line("layer_norm 65536x2048", median_ms(lambda: module.layer_norm(bigNorm, 0)), median_ms(lambda: torch.nn.functional.layer_norm(big, (2048,), wide, wideBias)), "torch",
         bytes_of(big, bigOut), "TB/s")
    fused = layer_norm_args(x, None, weight, bias, quantized, scale)
    line("layer_norm 65536x512 to e4m3 rows", median_ms(lambda: module.layer_norm(fused, 0)), None, "", bytes_of(x, quantized), "TB/s")
    line("quantize_rows 65536x512", median_ms(lambda: module.quantize_rows(quantized.data_ptr(), scale.data_ptr(), x.data_ptr(), width, tokens, width, BF16, 0)), None, "",
         bytes_of(x, quantized), "TB/s")
    line("gelu 65536x2048", median_ms(lambda: module.activate(bigOut.data_ptr(), big.data_ptr(), big.numel(), BF16, GELU, 0)),
         median_ms(lambda: torch.nn.functional.gelu(big)), "torch", bytes_of(big, bigOut), "TB/s")
    line("add 65536x2048", median_ms(lambda: module.add(bigOut.data_ptr(), bigOut.data_ptr(), big.data_ptr(), big.numel(), BF16, 0)),
         median_ms(lambda: bigOut.add_(big)), "torch", bytes_of(big, bigOut, big), "TB/s")
    image = torch.randn(4, 2048, 2048, device="cuda").bfloat16()
    patches = torch.empty(65536, 256, device="cuda", dtype=torch.bfloat16)
    line("patchify 4x2048x2048 by 8", median_ms(lambda: module.patchify(patches.data_ptr(), BF16, image.data_ptr(), BF16, 4, 2048, 2048, 8, 0, 65536, 0)), None, "",
         bytes_of(image, patches), "TB/s")
    line("sincos_2d 65536x512", median_ms(lambda: module.sincos_2d(out.data_ptr(), BF16, 256, 0, 65536, 512, 0, 512, 0)), None, "", bytes_of(out), "TB/s")


def wan(module):
    """Bytes are those that must move once; inputs are larger than the cache, or else rotated until they are."""
    functional, f32, bf16 = torch.nn.functional, torch.float32, torch.bfloat16
    bytes_of = lambda *tensors: sum(t.numel() * t.element_size() for t in tensors)
    made = lambda *shape, dtype=f32: torch.randn(*shape, device="cuda").to(dtype)

    def rate(name, call, *moved, peer=None):
        line(name, busy_ms(call), busy_ms(peer) if peer else None, "torch", bytes_of(*moved), "TB/s")

    for rows, columns in ((65536, 512), (32760, 1536), (75600, 5120)):
        size = f"{rows}x{columns}"
        x, y, out, out32 = made(rows, columns), made(rows, columns, dtype=bf16), made(rows, columns, dtype=bf16), made(rows, columns)
        scale, shift, weight, bias, rope = made(columns), made(columns), made(columns, dtype=bf16), made(columns, dtype=bf16), made(rows, 128)
        sums = made(rows)
        rate(f"copy {size} f32", lambda: module.copy(out32.data_ptr(), x.data_ptr(), bytes_of(x), 0), x, out32)
        args = layer_norm_args(x, out, weight, bias)
        rate(f"layer_norm {size} f32->bf16", lambda: module.layer_norm(args, 0), x, out, peer=lambda: functional.layer_norm(x, (columns,), scale, shift).bfloat16())
        args2 = layer_norm_args(y, out, weight, bias)
        rate(f"layer_norm {size} bf16", lambda: module.layer_norm(args2, 0), y, out, peer=lambda: functional.layer_norm(y, (columns,), weight, bias))
        args3 = layer_norm_args(x, out, None, None, modScale=scale, modShift=shift)
        rate(f"layer_norm modulated {size} f32->bf16", lambda: module.layer_norm(args3, 0), x, out)
        args4 = rms_norm_args(y, out, weight)
        rate(f"rms_norm {size} bf16", lambda: module.rms_norm(args4, 0), y, out, peer=lambda: functional.rms_norm(y, (columns,), weight))
        small, rowScale, headScale = made(rows, columns, dtype=torch.float8_e4m3fn), made(rows), made(rows, columns // 128)
        args7 = layer_norm_args(x, None, None, None, small, rowScale, modScale=scale, modShift=shift)
        rate(f"layer_norm modulated {size} f32->e4m3", lambda: module.layer_norm(args7, 0), x, small)
        args8 = rms_norm_args(y, None, scale, rope, quantized=small, scale=headScale)
        rate(f"rms_norm, rope {size} bf16->e4m3 heads", lambda: module.rms_norm(args8, 0), y, small, rope)
        rate(f"quantize_rows {size} bf16", lambda: module.quantize_rows(small.data_ptr(), rowScale.data_ptr(), y.data_ptr(), columns, rows, columns, BF16, 0), y, small)
        args5 = rms_norm_args(y, y, weight, rope)
        rate(f"rms_norm, rope, in place {size} bf16", lambda: module.rms_norm(args5, 0), y, y, rope)
        args6 = rms_norm_args(y, y, weight, rope, sums, 2 * columns)
        rate(f"rms_norm, rope, given sums {size} bf16", lambda: module.rms_norm(args6, 0), y, y, rope)
        rate(f"row_sum_squares {size} bf16", lambda: module.row_sum_squares(sums.data_ptr(), y.data_ptr(), columns, rows, columns, BF16, 0), y)
        rate(f"add_gated {size} f32 + bf16", lambda: module.add_gated(x.data_ptr(), x.data_ptr(), F32, y.data_ptr(), BF16, scale.data_ptr(), rows, columns, 0), x, y, x,
             peer=lambda: out32.addcmul_(y, scale))
        rate(f"multiply {size} bf16", lambda: module.multiply(out.data_ptr(), y.data_ptr(), out.data_ptr(), y.numel(), BF16, 0), y, out, out)
    del x, y, out, out32, small
    rows, columns = 32760, 8960
    x, small, rowScale = made(rows, columns, dtype=bf16), made(rows, columns, dtype=torch.float8_e4m3fn), made(rows)
    rate(f"quantize_rows {rows}x{columns} bf16", lambda: module.quantize_rows(small.data_ptr(), rowScale.data_ptr(), x.data_ptr(), columns, rows, columns, BF16, 0), x, small)
    for columns in (96, 192, 384):
        rows = 400_000_000 // columns // 8 * 8
        x, out, weight = made(rows, columns, dtype=bf16), made(rows, columns, dtype=bf16), made(columns)
        args = rms_norm_args(x, out, weight, activation=SILU)
        rate(f"rms_norm, silu {rows}x{columns} bf16", lambda: module.rms_norm(args, 0), x, out)
    wide, half = made(99840, 1536 // 2, dtype=bf16), made(99840, 768 // 2, dtype=bf16)
    rate("copy_2d of 99840 rows of 768 bytes, half of x", lambda: module.copy_2d(half.data_ptr(), 768, wide.data_ptr(), 1536, 768, 99840, 0), half, half, peer=lambda: half.copy_(wide[:, :384]))
    table = made(32760, 128)
    rate("rope_3d 21x30x52, dim 128", lambda: module.rope_3d(table.data_ptr(), 30, 52, 0, 32760, 128, 0), table)
    latent, tokens = made(16, 21, 60, 104), made(32760, 64, dtype=bf16)
    rate("patchify_video 16x21x60x104 (in cache)", lambda: module.patchify_video(tokens.data_ptr(), BF16, latent.data_ptr(), F32, 16, 21, 60, 104, 2, 0, 32760, 0), latent, tokens)
    rate("unpatchify_video 16x21x60x104 (in cache)", lambda: module.unpatchify_video(latent.data_ptr(), F32, tokens.data_ptr(), BF16, 16, 21, 60, 104, 2, 0, 32760, 0), latent, tokens)
    sources = [made(64_000_000) for _ in range(4)]
    addresses, numbers = (ctypes.c_uint64 * 4)(*(s.data_ptr() for s in sources)), (ctypes.c_float * 4)(0.5, -0.25, 0.1, 0.3)
    rate("combine 4 of 64M", lambda: module.combine(sources[0].data_ptr(), addresses, numbers, 4, 64_000_000, 0), *sources, sources[0])
    words, ids, out = made(256384, 4096, dtype=bf16), torch.randint(256384, (16384,), device="cuda", dtype=torch.int32), made(16384, 4096, dtype=bf16)
    rate("gather_rows 16384x4096 bf16", lambda: module.gather_rows(out.data_ptr(), BF16, words.data_ptr(), BF16, 256384, ids.data_ptr(), 16384, 4096, 0), out, out)


def attention(module):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    for heads, queries, keys, dim in ((16, 65536, 65536, 32), (16, 16384, 65536, 32), (16, 16384, 16384, 64), (12, 32760, 32760, 128)):
        q, k, v = (torch.randn(length, heads, dim, device="cuda").bfloat16() for length in (queries, keys, keys))
        o, lse = torch.empty_like(q), torch.empty(heads, queries, device="cuda")
        work = 4.0 * heads * queries * keys * dim
        qt, kt, vt = (t.transpose(0, 1)[None] for t in (q, k, v))
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            flash = median_ms(lambda: torch.nn.functional.scaled_dot_product_attention(qt, kt, vt), 5)
        for kernel in (2, 3):
            args, keep = attention_args(q, [(k, v)], o, lse, kernel=kernel)
            if module.lib.ditrun_attention(args, 0) == 4:
                continue
            line(f"attention sm{80 if kernel == 2 else 90} {heads}x{queries}x{keys}x{dim}", median_ms(lambda: module.attention(args, 0), 5), flash, "FlashAttention-2", work, "TF/s")
    for heads, tokens, dim in ((16, 16384, 32), (16, 16384, 128)):
        q, k, v = (torch.randn(tokens, heads, dim, device="cuda") for _ in range(3))
        o = torch.empty_like(q)
        args, keep = attention_args(q, [(k, v)], o, None, kernel=1)
        line(f"attention generic f32 {heads}x{tokens}x{tokens}x{dim}", median_ms(lambda: module.attention(args, 0), 3), None, "", 4.0 * heads * tokens * tokens * dim, "TF/s")
