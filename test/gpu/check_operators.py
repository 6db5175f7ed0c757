"""Checks of GEMM, norms, elementwise operators, embeddings, patches and random numbers (see check_kernels.py)."""
import ctypes
import math

import numpy
import torch

from ditrun_abi import BF16, E4M3, F16, F32, GELU, GELU_TANH, IDENTITY, NORMAL, SILU, UNIFORM, Gemm, LayerNorm, Random

CODE = {torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16, torch.float8_e4m3fn: E4M3}
SHORT = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float8_e4m3fn: "e4m3"}
# Relative L2 error: float32 sums against float64; one rounding to bf16 (2^-9 at most) or f16 (2^-12); two of them, where a kernel follows cuBLASLt.
LIMIT = {torch.float32: 2e-6, torch.bfloat16: 2.3e-3, torch.float16: 2.9e-4}
TWICE = {torch.float32: 2e-6, torch.bfloat16: 3.5e-3, torch.float16: 4.4e-4}
NAN = float("nan")
GEMM_TILES = 7  # rows of kernels/cuda/gemm/sm90.cu's table


def relative(out, reference):
    size = float(reference.double().norm())
    error = float((out.double() - reference.double()).norm())
    return error / size if size > 0 else error


def address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


def gemm_args(a, w, out, bias=None, residual=None, activation=IDENTITY, alpha=1.0, aScale=None, wScale=None, gate=None, kernel=0, outScale=None, aScaleColumns=0):
    """Two- or three-dimensional tensors whose last dimension is contiguous; a batch stride is 0 where a batch is expanded."""
    batch = out.shape[0] if out.dim() == 3 else 1
    stride = lambda t: t.stride(0) if t is not None and t.dim() == 3 else 0
    ld = lambda t: t.stride(-2) if t is not None else 0
    return ctypes.byref(Gemm(
        a=address(a), w=address(w), bias=address(bias), residual=address(residual), out=address(out), aScale=address(aScale), wScale=address(wScale), gate=address(gate), outScale=address(outScale),
        lda=ld(a), ldw=ld(w), ldo=ld(out), ldResidual=ld(residual), aStride=stride(a), wStride=stride(w), outStride=stride(out), residualStride=stride(residual),
        biasStride=bias.stride(0) if bias is not None and bias.dim() == 2 else 0, m=out.shape[-2], n=out.shape[-1], k=a.shape[-1], batch=batch,
        dtype=CODE[a.dtype], outDtype=CODE[out.dtype], biasDtype=CODE[bias.dtype] if bias is not None else 0,
        residualDtype=CODE[residual.dtype] if residual is not None else 0, activation=activation, kernel=kernel, aScaleColumns=aScaleColumns, alpha=alpha))


def layer_norm_args(x, out, weight, bias, quantized=None, scale=None, epsilon=1e-5, modScale=None, modShift=None, bound=None, boundFactor=0.0, boundTerm=0.0):
    return ctypes.byref(LayerNorm(
        x=address(x), weight=address(weight), bias=address(bias), out=address(out), quantized=address(quantized), quantizedScale=address(scale),
        bound=address(bound), modScale=address(modScale), modShift=address(modShift), ldx=x.stride(0),
        ldo=out.stride(0) if out is not None else 0, rows=x.shape[0], columns=x.shape[1], xDtype=CODE[x.dtype],
        weightDtype=CODE[weight.dtype] if weight is not None else F32, outDtype=CODE[out.dtype] if out is not None else F32, epsilon=epsilon,
        boundFactor=boundFactor, boundTerm=boundTerm))


ACTIVATIONS = {IDENTITY: lambda x: x, GELU: torch.nn.functional.gelu, GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
               SILU: torch.nn.functional.silu}


def random(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def synchronized(call):
    torch.cuda.synchronize()
    call()
    torch.cuda.synchronize()


def padded(rows, columns, dtype, extra, fill=None):
    """A view with `extra` columns of padding, poisoned; and the whole, to look at the padding afterwards."""
    whole = torch.full((rows, columns + extra), NAN, device="cuda", dtype=dtype)
    if fill is not None:
        whole[:, :columns] = fill
    return whole[:, :columns], whole


def checks(module, report):
    def untouched(whole, columns):
        return 0 if whole.shape[1] == columns or bool(whole[:, columns:].isnan().all()) else 1

    def gemm():
        for dtype, out_dtype, m, n, k, extra in [
                (torch.float32, torch.float32, 77, 51, 33, 0), (torch.float32, torch.float32, 1024, 1536, 512, 8), (torch.float32, torch.float32, 1536, 8960, 4, 0), (torch.float32, torch.float32, 1537, 1536, 64, 0), (torch.bfloat16, torch.bfloat16, 1000, 1536, 512, 0),
                (torch.bfloat16, torch.bfloat16, 77, 51, 33, 3), (torch.bfloat16, torch.float32, 333, 264, 128, 8), (torch.bfloat16, torch.bfloat16, 1, 512, 256, 0),
                (torch.bfloat16, torch.bfloat16, 4097, 768, 2048, 16)]:
            a, _ = padded(m, k, dtype, extra, random(m, k))
            w, _ = padded(n, k, dtype, extra, random(n, k) / k**0.5)
            product = a.double() @ w.double().T
            for name, bias_dtype, residual_dtype, activation, in_place, alpha in [
                    ("plain", None, None, IDENTITY, False, 1.0), ("alpha, bias", out_dtype, None, IDENTITY, False, 0.5),
                    ("bias, residual in place", out_dtype, out_dtype, IDENTITY, True, 1.0), ("bias, gelu", out_dtype, None, GELU, False, 1.0),
                    ("bias, gelu tanh, residual", out_dtype, out_dtype, GELU_TANH, False, 1.0), ("f32 bias, bf16 residual", torch.float32, torch.bfloat16, IDENTITY, False, 1.0),
                    ("bf16 bias, silu, f32 residual", torch.bfloat16, torch.float32, SILU, False, 1.0)]:
                bias = random(n, dtype=bias_dtype) if bias_dtype else None
                residual = padded(m, n, residual_dtype, extra, random(m, n))[0] if residual_dtype else None
                expected = product * alpha
                if bias is not None:
                    expected = expected + bias.double()
                expected = ACTIVATIONS[activation](expected)
                if residual is not None:
                    expected = expected + residual.double()
                out, whole = (residual, None) if in_place else padded(m, n, out_dtype, extra)
                synchronized(lambda: module.gemm(gemm_args(a, w, out, bias, residual, activation, alpha), 0))
                # Anything after cuBLASLt rounds a second time; where bias or residual have another dtype, that is so too.
                # cuBLASLt rounds a product to bf16 before it adds a bf16 residual.
                limit = (TWICE if activation != IDENTITY or "residual" in name else LIMIT)[out_dtype]
                report(f"gemm {SHORT[dtype]}->{SHORT[out_dtype]} {m}x{n}x{k} {name}", relative(out, expected) + (untouched(whole, n) if whole is not None else 0), limit)

    def gemm_batched():
        for dtype in (torch.float32, torch.bfloat16):
            a, w = random(3, 65, 72, dtype=dtype), random(3, 40, 72, dtype=dtype)
            bias, residual, out = random(3, 40, dtype=dtype), random(3, 65, 40, dtype=dtype), torch.full((3, 65, 40), NAN, device="cuda", dtype=dtype)
            synchronized(lambda: module.gemm(gemm_args(a, w, out, bias, residual), 0))
            report(f"gemm {SHORT[dtype]} batch 3, bias and residual", relative(out, a.double() @ w.double().mT + bias.double()[:, None] + residual.double()), LIMIT[dtype])
            shared = w[0].expand(3, 40, 72)
            out.fill_(NAN)
            synchronized(lambda: module.gemm(gemm_args(a, shared, out, bias[0], None, GELU), 0))
            report(f"gemm {SHORT[dtype]} batch 3, shared weight and bias, gelu",
                   relative(out, ACTIVATIONS[GELU](a.double() @ w[0].double().T + bias[0].double())), TWICE[dtype])

    def gemm_f16():
        """bf16 to f16, by a tile of sm_90 and by cuBLASLt, whose float32 is rounded afterwards; what f16 cannot hold is infinite."""
        for m, n, k, batch in ((4095, 512, 512, 3), (3000, 256, 1536, 1), (77, 51, 33, 2), (70001, 264, 128, 1)):
            a, w, bias = random(m, k, dtype=torch.bfloat16), random(batch, n, k, dtype=torch.bfloat16) / k**0.5, random(batch, n)
            expected = a.double() @ w.double().mT + bias.double()[:, None]
            for name, kernel in (("fastest", 0), ("cuBLASLt", 1)):
                out = torch.full((batch, m, n), NAN, device="cuda", dtype=torch.float16)
                synchronized(lambda: module.gemm(gemm_args(a.expand(batch, m, k), w, out, bias, kernel=kernel), 0))
                report(f"gemm bf16->f16 {batch}x{m}x{n}x{k}, {name}", relative(out, expected), 3e-4)
                synchronized(lambda: module.gemm(gemm_args(a.expand(batch, m, k), w, out, bias, alpha=1e5, kernel=kernel), 0))
                large = (expected - bias.double()[:, None]) * 1e5 + bias.double()[:, None]
                wrong = (out.isinf() & (large.abs() < 65500)) | (out.isfinite() & (large.abs() > 65540)) | (out.isinf() & (out.sign() != large.sign()))
                report(f"gemm bf16->f16 {batch}x{m}x{n}x{k}, {name}, overflow", float(wrong.sum()) + float(out.isnan().sum()) + (0 if out.isinf().any() else 1), 0)

    def gemm_of_f16():
        """f16 to f16 and float32, as Wan's VAE needs it: pointwise convolutions, scores, and probabilities times values."""
        for m, n, k in ((6240, 384, 384), (24960, 384, 192), (6240, 16, 16), (77, 51, 33), (4096, 6240, 384), (1000, 384, 6240)):
            a, w = random(m, k, dtype=torch.float16), (random(n, k) / k**0.5).half()
            product = a.double() @ w.double().T
            for out_dtype in (torch.float16, torch.float32):
                for name, bias_dtype, residual in (("plain", None, False), ("bias", torch.float16, False), ("bias, residual in place", torch.float16, True), ("f32 bias", torch.float32, False)):
                    bias = random(n, dtype=bias_dtype) if bias_dtype else None
                    out = random(m, n, dtype=out_dtype) if residual else torch.full((m, n), NAN, device="cuda", dtype=out_dtype)
                    expected = product + (bias.double() if bias is not None else 0) + (out.double() if residual else 0)
                    synchronized(lambda: module.gemm(gemm_args(a, w, out, bias, out if residual else None), 0))
                    # The matrix units cut the bits off that do not fit a sum, so the error of a long one grows with its length.
                    limit = (LIMIT if name in ("plain", "bias") else TWICE)[out_dtype] * (max(1, k / 1024) if out_dtype == torch.float32 else 1)
                    report(f"gemm f16->{SHORT[out_dtype]} {m}x{n}x{k} {name}", relative(out, expected), limit)
        status = module.lib.ditrun_gemm(gemm_args(a, w, torch.empty(m, n, device="cuda", dtype=torch.bfloat16)), 0)
        report("gemm f16->bf16 is refused", 0 if status == 1 else 1, 0, module.lib.ditrun_last_error().decode()[:100])

    def gemm_hopper():
        """Every sm_90 tile: ragged rows, padded leading dimensions, batches, k that ends inside a step; twice, to the same bits."""
        if torch.cuda.get_device_capability() != (9, 0):
            print("skip gemm sm_90: needs compute capability 9.0", flush=True)
            return
        shapes = [(1, 128, 256, 64, 0), (1, 300, 256, 512, 0), (3, 4095, 512, 512, 0), (1, 4095, 1536, 1536, 16), (1, 1000, 528, 384, 16), (1, 77, 272, 80, 16),
                  (1, 32760, 1536, 512, 0), (2, 8190, 768, 1008, 0), (1, 1, 256, 512, 0)]
        forms = [("plain", BF16, None, False, IDENTITY, False, 1.0), ("alpha, bias", BF16, BF16, False, IDENTITY, False, 0.5), ("f32 bias, gelu", BF16, F32, False, GELU, False, 1.0),
                 ("bias, gelu tanh", BF16, BF16, False, GELU_TANH, False, 1.0), ("gate", BF16, BF16, False, IDENTITY, True, 1.0), ("f32, bias", F32, BF16, False, IDENTITY, False, 1.0),
                 ("residual in place", F32, F32, True, IDENTITY, False, 1.0), ("gate, residual in place", F32, F32, True, IDENTITY, True, 0.75)]
        dtypes = {F32: torch.float32, BF16: torch.bfloat16}

        def surrounded(batch, rows, columns, dtype, extra, fill=None):
            """A view, with poisoned columns and rows after it in each batch; and the whole."""
            whole = torch.full((batch, rows + 2, columns + extra), NAN, device="cuda", dtype=dtype)
            if fill is not None:
                whole[:, :rows, :columns] = fill
            return whole[:, :rows, :columns], whole

        for tile in range(GEMM_TILES):
            for fp8 in (False, True):
                ran, wrong = 0, []
                for batch, m, n, k, extra in shapes:
                    a, w, scales = random(1, m, k), random(batch, n, k, scale=k**-0.5), {}
                    if fp8:
                        scales = dict(aScale=a[0].abs().amax(-1) / 448, wScale=w.abs().amax(-1) / 448)
                        a, w = (a / scales["aScale"][:, None]).to(torch.float8_e4m3fn), (w / scales["wScale"][..., None]).to(torch.float8_e4m3fn)
                        product = (a.double() @ w.double().mT) * scales["aScale"].double()[:, None] * scales["wScale"].double()[:, None]
                    else:
                        a, w = surrounded(1, m, k, torch.bfloat16, extra, a)[0], surrounded(batch, n, k, torch.bfloat16, extra, w)[0]
                        product = a.double() @ w.double().mT
                    for name, out_dtype, bias_dtype, in_place, activation, gated, alpha in forms:
                        bias = random(batch, n, dtype=dtypes[bias_dtype]) if bias_dtype is not None else None
                        gate = random(n) if gated else None
                        expected = ACTIVATIONS[activation](product * alpha + (bias.double()[:, None] if bias is not None else 0)) * (gate.double() if gated else 1)
                        before = random(batch, m, n) if in_place else None
                        if in_place:
                            expected = expected + before.double()
                        results = []
                        for _ in range(2):
                            out, whole = surrounded(batch, m, n, dtypes[out_dtype], extra, before)
                            try:
                                synchronized(lambda: module.gemm(gemm_args(a.expand(batch, m, k), w, out, bias, out if in_place else None, activation, alpha, gate=gate, kernel=2 + tile,
                                                                           **scales), 0))
                            except RuntimeError as refused:
                                if "does not take these arguments" not in str(refused):
                                    raise
                                break
                            results.append(out.clone())
                            if not bool(whole[:, m:].isnan().all()) or not bool(whole[:, :, n:].isnan().all()):
                                wrong.append(f"{batch}x{m}x{n}x{k} {name} wrote outside")
                        if not results:
                            continue
                        ran += 1
                        error = relative(results[0], expected)
                        # e4m3: sums of up to 1536 products with about 13 bits, where a tile does not promote them.
                        limit = (3e-3 if fp8 else LIMIT[torch.bfloat16]) if out_dtype == BF16 else (2e-3 if fp8 else LIMIT[torch.float32])
                        if not error <= limit:
                            wrong.append(f"{batch}x{m}x{n}x{k} {name}: {error:.3g}")
                        if not torch.equal(results[0], results[1]):
                            wrong.append(f"{batch}x{m}x{n}x{k} {name}: two runs differ")
                if ran:
                    report(f"gemm sm_90 tile {tile}, {'e4m3' if fp8 else 'bf16'}: {ran} products", len(wrong), 0, "; ".join(wrong[:6]))

    def gemm_gate():
        """cuBLASLt's way to a gate and a residual in place, which goes through the workspace in parts."""
        for dtype, m, n, k in ((torch.bfloat16, 7001, 1536, 128), (torch.float32, 100, 40, 32)):
            a, w, gate, bias, x = random(m, k, dtype=dtype), random(n, k, dtype=dtype), random(n), random(n), random(m, n)
            expected = x.double() + gate.double() * (a.double() @ w.double().T + bias.double())
            synchronized(lambda: module.gemm(gemm_args(a, w, x, bias, x, gate=gate, kernel=1), 0))
            report(f"gemm {SHORT[dtype]}->f32 {m}x{n}x{k} gate, residual in place, cuBLASLt", relative(x, expected), LIMIT[torch.float32])

    def gemm_fp8():
        for m, n, k, out_dtype, bias_dtype, with_residual, activation in [
                (777, 512, 512, torch.bfloat16, torch.bfloat16, True, IDENTITY), (1000, 1536, 512, torch.bfloat16, torch.bfloat16, False, GELU),
                (640, 512, 2048, torch.float32, torch.float32, True, IDENTITY), (33, 64, 48, torch.bfloat16, None, False, IDENTITY)]:
            a, w = random(m, k), random(n, k) / k**0.5
            aScale, wScale = a.abs().amax(1) / 448, w.abs().amax(1) / 448
            a8, w8 = (a / aScale[:, None]).to(torch.float8_e4m3fn), (w / wScale[:, None]).to(torch.float8_e4m3fn)
            bias = random(n, dtype=bias_dtype) if bias_dtype else None
            residual = random(m, n, dtype=out_dtype) if with_residual else None
            expected = (a8.double() @ w8.double().T) * aScale.double()[:, None] * wScale.double()
            expected = ACTIVATIONS[activation](expected + (bias.double() if bias is not None else 0)) + (residual.double() if residual is not None else 0)
            out = torch.full((m, n), NAN, device="cuda", dtype=out_dtype)
            synchronized(lambda: module.gemm(gemm_args(a8, w8, out, bias, residual, activation, aScale=aScale, wScale=wScale), 0))
            # Hopper's e4m3 products are summed with about 13 bits within an instruction.
            report(f"gemm e4m3->{SHORT[out_dtype]} {m}x{n}x{k} bias {SHORT.get(bias_dtype)}, activation {activation}", relative(out, expected),
                   4e-3 if out_dtype == torch.bfloat16 else 5e-4)
            if with_residual and activation == IDENTITY:
                in_place = residual.clone()
                synchronized(lambda: module.gemm(gemm_args(a8, w8, in_place, bias, in_place, aScale=aScale, wScale=wScale), 0))
                report(f"gemm e4m3->{SHORT[out_dtype]} {m}x{n}x{k} residual in place", relative(in_place, expected), 4e-3 if out_dtype == torch.bfloat16 else 5e-4)
        for tile in range(-1, GEMM_TILES):
            ran, wrong = 0, []
            for batch, m, n, k, activation in ((1, 777, 512, 512, GELU), (1, 4095, 528, 1536, GELU_TANH), (2, 300, 256, 512, IDENTITY), (1, 33, 64, 48, GELU_TANH), (1, 129, 8960, 1536, GELU_TANH)):
                a, w, bias = random(1, m, k), random(batch, n, k) / k**0.5, random(batch, n)
                aScale, wScale = a[0].abs().amax(1) / 448, w.abs().amax(-1) / 448
                a8, w8 = (a / aScale[:, None]).to(torch.float8_e4m3fn), (w / wScale[..., None]).to(torch.float8_e4m3fn)
                expected = ACTIVATIONS[activation]((a8.double() @ w8.double().mT) * aScale.double()[:, None] * wScale.double()[:, None] + bias.double()[:, None])
                outScale = (expected.abs().amax(-1).float() * (torch.rand(batch, m, device="cuda") * 20 + 1) / 448).contiguous()
                results = []
                for _ in range(2):
                    whole = torch.full((batch, m + 2, n + 16), 77.0, device="cuda").to(torch.float8_e4m3fn)
                    out = whole[:, :m, :n]
                    try:
                        synchronized(lambda: module.gemm(gemm_args(a8.expand(batch, m, k), w8, out, bias, None, activation, aScale=aScale, wScale=wScale, outScale=outScale,
                                                                   kernel=2 + tile), 0))
                    except RuntimeError as refused:
                        if "does not take these arguments" not in str(refused):
                            raise
                        break
                    results.append(whole.float())
                if not results:
                    continue
                ran += 1
                error = relative(results[0][:, :m, :n].double() * outScale.double()[..., None], expected)
                if not error <= 0.04:
                    wrong.append(f"{batch}x{m}x{n}x{k}: {error:.3g}")
                # An element is its expected value rounded: at most half a step of e4m3 away, and what 13-bit sums add.
                scaled = expected / outScale.double()[..., None]
                allowed = 0.07 * scaled.abs() + 2e-3 + 1e-3 * scaled.abs().amax(-1, keepdim=True)
                over = float(((results[0][:, :m, :n].double() - scaled).abs() / allowed).max())
                if not over <= 1:
                    wrong.append(f"{batch}x{m}x{n}x{k}: an element is off by {over:.3g} times what its rounding allows")
                if not torch.equal(results[0], results[1]):
                    wrong.append(f"{batch}x{m}x{n}x{k}: two runs differ")
                untouched_value = torch.tensor(77.0).to(torch.float8_e4m3fn).float().item()
                if not bool((results[0][:, m:] == untouched_value).all()) or not bool((results[0][:, :, n:] == untouched_value).all()):
                    wrong.append(f"{batch}x{m}x{n}x{k} wrote outside")
            if ran:
                report(f"gemm e4m3->e4m3 {'cuBLASLt' if tile < 0 else f'tile {tile}'}: {ran} products", len(wrong), 0, "; ".join(wrong[:6]))
        for m, n, k, out_dtype, gated in ((777, 1536, 1536, torch.float32, True), (33, 1536, 1536, torch.float32, False), (4095, 528, 640, torch.bfloat16, False), (130, 200, 128, torch.float32, True)):
            groups = k // 128
            a = random(m, groups, 128) * torch.logspace(-3, 3, groups, device="cuda")[torch.randperm(groups, device="cuda"), None]
            w, bias, gate, residual = random(n, k) / k**0.5, random(n), random(n), random(m, n)
            aScale, wScale = (a.abs().amax(2) / 448).contiguous(), w.abs().amax(1) / 448
            a8, w8 = (a / aScale[..., None]).to(torch.float8_e4m3fn), (w / wScale[:, None]).to(torch.float8_e4m3fn)
            expected = (a8.double() * aScale.double()[..., None]).view(m, k) @ (w8.double() * wScale.double()[:, None]).T + bias.double()
            out = torch.full((m, n), NAN, device="cuda", dtype=out_dtype)
            if gated:
                expected = expected * gate.double() + residual.double()
                out.copy_(residual)
            synchronized(lambda: module.gemm(gemm_args(a8.view(m, k), w8, out, bias, out if gated else None, aScale=aScale, wScale=wScale, gate=gate if gated else None, aScaleColumns=128), 0))
            report(f"gemm e4m3->{SHORT[out_dtype]} {m}x{n}x{k}, scales by 128 of k{', gate and residual' if gated else ''}", relative(out, expected), 4e-3 if out_dtype == torch.bfloat16 else 5e-4)
        batch = 2
        a, w = random(batch, 48, 64).to(torch.float8_e4m3fn), random(batch, 32, 64).to(torch.float8_e4m3fn)
        aScale, wScale = torch.rand(batch, 48, device="cuda") + 0.5, torch.rand(batch, 32, device="cuda") + 0.5
        out = torch.full((batch, 48, 32), NAN, device="cuda", dtype=torch.bfloat16)
        synchronized(lambda: module.gemm(gemm_args(a[:1].expand(batch, 48, 64), w, out, aScale=aScale, wScale=wScale), 0))
        report("gemm e4m3 batch 2, one A for both", relative(out, (a[:1].double() @ w.double().mT) * aScale.double()[:1, :, None] * wScale.double()[:, None]), 4e-3)
        synchronized(lambda: module.gemm(gemm_args(a, w, out, aScale=aScale, wScale=wScale), 0))
        report("gemm e4m3 batch 2", relative(out, (a.double() @ w.double().mT) * aScale.double()[:, :, None] * wScale.double()[:, None]), 4e-3)

    def layer_norm():
        for rows, columns, extra in [(77, 512, 0), (5, 20, 3), (33, 1000, 8), (9, 3072, 0), (7, 8192, 8), (3, 10001, 1), (1001, 128, 8), (6, 1536, 0), (2, 4096, 0)]:
            for x_dtype, weight_dtype, out_dtype in [(torch.bfloat16, torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32, torch.float32),
                                                     (torch.float32, torch.bfloat16, torch.bfloat16)]:
                # A large common offset shows a variance that is computed as E[x²] - E[x]².
                x, _ = padded(rows, columns, x_dtype, extra, random(rows, columns) * 2 + 30)
                weight, bias = random(columns, dtype=weight_dtype), random(columns, dtype=weight_dtype)
                expected = torch.nn.functional.layer_norm(x.double(), (columns,), weight.double(), bias.double(), 1e-5)
                out, whole = padded(rows, columns, out_dtype, extra)
                quantized = torch.full((rows, columns), NAN, device="cuda").to(torch.float8_e4m3fn)
                scale = torch.full((rows,), NAN, device="cuda")
                synchronized(lambda: module.layer_norm(layer_norm_args(x, out, weight, bias, quantized, scale), 0))
                # (x - mean) near 2 with x near 30: float32 leaves 1e-6 of it.
                limit = 2.3e-3 if out_dtype == torch.bfloat16 else 4e-6
                name = f"layer_norm {rows}x{columns} {SHORT[x_dtype]}->{SHORT[out_dtype]}"
                report(name, relative(out, expected) + untouched(whole, columns), limit)
                report(name + ", e4m3 rows", relative(quantized.double() * scale.double()[:, None], expected), 0.04)
                report(name + ", scales", relative(scale, expected.abs().amax(1) / 448), 1e-5)
                alone, alone_scale = torch.zeros_like(quantized), torch.full_like(scale, NAN)
                bound = torch.full_like(scale, NAN)
                synchronized(lambda: module.layer_norm(layer_norm_args(x, None, weight, bias, alone, alone_scale, bound=bound, boundFactor=0.25, boundTerm=3.0), 0))
                report(name + ", bound", relative(bound, 0.25 * expected.norm(dim=1) + 3), 4e-6)
                report(name + ", e4m3 rows alone", relative(alone.double() * alone_scale.double()[:, None], expected), 0.04)
                report(name + ", e4m3 rows alone, scales", relative(alone_scale, expected.abs().amax(1) / 448), 1e-5)
        x = random(65, 512, dtype=torch.bfloat16)
        expected = torch.nn.functional.layer_norm(x.double(), (512,))
        synchronized(lambda: module.layer_norm(layer_norm_args(x, x, None, None), 0))
        report("layer_norm in place, no weights", relative(x, expected), 2.3e-3)

    def elementwise():
        for dtype in (torch.float32, torch.bfloat16):
            for count in (1, 1003, 65536 * 3):
                x, y = random(count, dtype=dtype, scale=3), random(count, dtype=dtype)
                if count == 1:
                    x = x.abs()  # one element of GELU's negative tail, where 1 + erf(x) cancels, has no error in proportion
                for activation in (IDENTITY, GELU, GELU_TANH, SILU):
                    out = torch.full_like(x, NAN)
                    synchronized(lambda: module.activate(out.data_ptr(), x.data_ptr(), count, CODE[dtype], activation, 0))
                    report(f"activate {activation} {SHORT[dtype]} {count}", relative(out, ACTIVATIONS[activation](x.double())), LIMIT[dtype] * (2 if count == 1 else 1))
                out = torch.full_like(x, NAN)
                synchronized(lambda: module.add(out.data_ptr(), x.data_ptr(), y.data_ptr(), count, CODE[dtype], 0))
                report(f"add {SHORT[dtype]} {count}", float((out != x + y).sum()), 0)
            for rows, columns in ((77, 512), (5, 33)):
                x, table, vector = random(rows, columns, dtype=dtype), random(rows, columns, dtype=dtype), random(columns, dtype=dtype)
                out = torch.full_like(x, NAN)
                synchronized(lambda: module.add_rows(out.data_ptr(), x.data_ptr(), table.data_ptr(), vector.data_ptr(), rows, columns, CODE[dtype], 0))
                report(f"add_rows {SHORT[dtype]} {rows}x{columns}", float((out != (x.float() + table.float() + vector.float()).to(dtype)).sum()), 0)
                synchronized(lambda: module.add_rows(out.data_ptr(), x.data_ptr(), 0, vector.data_ptr(), rows, columns, CODE[dtype], 0))
                report(f"add_rows {SHORT[dtype]} {rows}x{columns} without table", float((out != (x.float() + vector.float()).to(dtype)).sum()), 0)
                sources = [random(rows, columns, dtype=dtype) for _ in range(3)]
                total = x.float()
                for source in sources:
                    total = total + source.float()
                expected = (total + vector.float()).to(dtype)
                addresses = (ctypes.c_uint64 * 3)(*(source.data_ptr() for source in sources))
                synchronized(lambda: module.sum(x.data_ptr(), x.data_ptr(), vector.data_ptr(), columns, addresses, 3, x.numel(), CODE[dtype], CODE[dtype], 0))
                report(f"sum {SHORT[dtype]} {rows}x{columns} of 3, base and bias, in place", float((x != expected).sum()), 0)
        for source, destination in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float32, torch.float8_e4m3fn), (torch.float8_e4m3fn, torch.float32),
                                    (torch.float32, torch.float16), (torch.float16, torch.float32), (torch.float16, torch.bfloat16)):
            x = (random(1003) * 20).to(source)
            out = torch.full((1003,), 77.0, device="cuda").to(destination)
            synchronized(lambda: module.cast(out.data_ptr(), CODE[destination], x.data_ptr(), CODE[source], 1003, 0))
            report(f"cast {SHORT[source]}->{SHORT[destination]}", float((out.float() != x.float().clamp(-448, 448).to(destination).float()).sum()), 0)
        x = random(100003)
        x[17], x[99999], x[5000] = NAN, float("inf"), -float("inf")
        result = torch.full((1,), 12345, device="cuda", dtype=torch.int32)
        for values, code in ((x, F32), (x.bfloat16(), BF16)):
            synchronized(lambda: module.count_nonfinite(result.data_ptr(), values.data_ptr(), values.numel(), code, 0))
            report("count_nonfinite", abs(int(result) - 3), 0)
        x = random(65, 100)
        for columns in (50, 52):  # rows of 16-byte runs, and others
            out = torch.full((70, 60), NAN, device="cuda")
            synchronized(lambda: module.copy_2d(out.data_ptr(), 240, x.data_ptr(), 400, 4 * columns, 65, 0))
            rest = float((~out[:, columns:].isnan()).sum()) + float((~out[65:].isnan()).sum())
            report(f"copy_2d of rows of {4 * columns} bytes", float((out[:65, :columns] != x[:, :columns]).sum()) + rest, 0)

    def quantize():
        for rows, columns, dtype in ((77, 512, torch.bfloat16), (5, 33, torch.float32), (300, 2048, torch.float32), (33, 8960, torch.bfloat16), (7, 1544, torch.bfloat16),
                                     (3, 8964, torch.bfloat16), (9, 5120, torch.float32), (5, 13824, torch.bfloat16), (2, 30000, torch.float32), (1, 100_008, torch.bfloat16)):
            x = random(rows, columns, dtype=dtype)
            x[0] = 0
            out, scale = torch.full((rows, columns), NAN, device="cuda").to(torch.float8_e4m3fn), torch.full((rows,), NAN, device="cuda")
            synchronized(lambda: module.quantize_rows(out.data_ptr(), scale.data_ptr(), x.data_ptr(), columns, rows, columns, CODE[dtype], 0))
            expected_scale = x.float().abs().amax(1).clamp(min=1e-12) / torch.full((rows,), 448.0, device="cuda")  # by a number, torch multiplies with 1/448
            expected = (x.float() / expected_scale[:, None]).clamp(-448, 448).to(torch.float8_e4m3fn)
            report(f"quantize_rows {rows}x{columns} {SHORT[dtype]}", float((scale != expected_scale).sum()) + float((out.float() != expected.float()).sum()), 0)

    def tokens():
        for channels, height, width, patch, first, count in ((4, 64, 48, 8, 0, 48), (3, 20, 30, 5, 7, 11), (4, 64, 64, 2, 100, 500)):
            image = random(channels, height, width)
            all_tokens = image.view(channels, height // patch, patch, width // patch, patch).permute(1, 3, 0, 2, 4).reshape(-1, channels * patch * patch)
            for dtype in (torch.float32, torch.bfloat16):
                out = torch.full((count, all_tokens.shape[1]), NAN, device="cuda", dtype=dtype)
                synchronized(lambda: module.patchify(out.data_ptr(), CODE[dtype], image.data_ptr(), F32, channels, height, width, patch, first, count, 0))
                report(f"patchify {channels}x{height}x{width} by {patch} {SHORT[dtype]}", float((out != all_tokens[first:first + count].to(dtype)).sum()), 0)
                back = torch.full_like(image, NAN)
                synchronized(lambda: module.unpatchify(back.data_ptr(), F32, out.data_ptr(), CODE[dtype], channels, height, width, patch, first, count, 0))
                written = ~back.isnan()
                report(f"unpatchify {channels}x{height}x{width} by {patch} {SHORT[dtype]}",
                       float((back[written] != image.to(dtype).float()[written]).sum()) + abs(int(written.sum()) - out.numel()), 0)

    def embeddings():
        def table(positions, width):
            angles = positions.double()[:, None] * torch.exp(-numpy.log(10000.0) * torch.arange(width // 2, device="cuda", dtype=torch.float64) / (width // 2))
            return torch.cat([angles.sin(), angles.cos()], 1)
        positions = torch.tensor([0.0, 1.0, 500.0, 999.0, 567.25], device="cuda")
        out = torch.full((5, 100), NAN, device="cuda")
        synchronized(lambda: module.sincos_embedding(out.data_ptr(), F32, positions.data_ptr(), 5, 256, 30, 100, 0))
        # float32 angles near 1000 are off by up to 1e-4
        report("sincos_embedding, some columns", float((out - table(positions, 256)[:, 30:130]).abs().max()), 2e-4)
        tokens = torch.arange(13, 13 + 70, device="cuda")
        expected = torch.cat([table(tokens // 16, 64), table(tokens % 16, 64)], 1)
        for dtype, limit in ((torch.float32, 3e-6), (torch.bfloat16, 4e-3)):
            out = torch.full((70, 128), NAN, device="cuda", dtype=dtype)
            synchronized(lambda: module.sincos_2d(out.data_ptr(), CODE[dtype], 16, 13, 70, 128, 0, 128, 0))
            report(f"sincos_2d {SHORT[dtype]}", float((out - expected).abs().max()), limit)
        out = torch.full((70, 60), NAN, device="cuda")
        synchronized(lambda: module.sincos_2d(out.data_ptr(), F32, 16, 13, 70, 128, 50, 60, 0))
        report("sincos_2d, some columns", float((out - expected[:, 50:110]).abs().max()), 3e-6)

    def random_numbers():
        f32 = numpy.float32

        def philox(index, tensor, seed):
            with numpy.errstate(over="ignore"):
                c = [index & 0xffffffff, index >> 32, numpy.full_like(index, tensor), numpy.zeros_like(index)]
                key = [seed & 0xffffffff, seed >> 32]
                for _ in range(10):
                    p0, p1 = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
                    c = [(p1 >> 32) ^ c[1] ^ numpy.uint64(key[0]), p1 & 0xffffffff, (p0 >> 32) ^ c[3] ^ numpy.uint64(key[1]), p0 & 0xffffffff]
                    key = [(key[0] + 0x9E3779B9) & 0xffffffff, (key[1] + 0xBB67AE85) & 0xffffffff]
            return c

        def normal(words):
            """As ditrun.h defines it: numpy rounds each operation to float64 on its own, and the last to float32."""
            signed = (words[2].astype(numpy.int64) ^ 0x80000000) - 0x80000000
            u = (words[0].astype(numpy.float64) * 2.0**21 + (words[1] >> 11).astype(numpy.float64) + 1) * 2.0**-53
            v = (signed.astype(numpy.float64) * 2.0**21 + (words[3] >> 11).astype(numpy.float64) + 0.5) * 2.0**-53
            m, e = numpy.frexp(u)  # m in [1/2, 1)
            below = m < float.fromhex("0x1.6a09ep-1")
            m, e = numpy.where(below, 2 * m, m), numpy.where(below, e - 1, e)
            s = (m - 1) / (m + 1)
            x = numpy.pi * v
            logs, sines = numpy.full_like(s, 1 / 17), numpy.full_like(x, 1 / math.factorial(17))
            for odd in range(15, 0, -2):
                logs = logs * (s * s) + 1 / odd
                sines = sines * (x * x) + (-1) ** (odd // 2) / math.factorial(odd)
            return (numpy.sqrt(-2 * (e * math.log(2) + 2 * s * logs)) * (x * sines)).astype(f32)
        known = [hex(int(word[0])) for word in philox(numpy.zeros(1, numpy.uint64), 0, 0)]
        report("random: this script's Philox gives the published answer", 0 if known == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"] else 1, 0)
        full, row0, column0, count_rows, count_columns, tensor, seed = 70000, 90000, 123, 37, 501, 42, 0x123456789abcdef
        index = ((row0 + numpy.arange(count_rows, dtype=numpy.uint64))[:, None] * numpy.uint64(full) + numpy.arange(column0, column0 + count_columns, dtype=numpy.uint64)).ravel()
        words = philox(index, tensor, seed)
        unit = (words[0] >> 8).astype(f32) * f32(2**-23) - f32(1)
        amplitude, offset = f32(0.0371), f32(0.25)
        expected = {UNIFORM: amplitude * unit + offset, NORMAL: amplitude * normal(words) + offset}
        for distribution, name in ((UNIFORM, "uniform"), (NORMAL, "normal")):
            for dtype in (torch.float32, torch.bfloat16):
                out, whole = padded(count_rows, count_columns, dtype, 3)
                synchronized(lambda: module.fill_random(ctypes.byref(Random(
                    out=out.data_ptr(), seed=seed, row0=row0, column0=column0, fullColumns=full, ldo=out.stride(0), rows=count_rows, columns=count_columns, tensorId=tensor,
                    distribution=distribution, amplitude=amplitude, offset=offset, outDtype=CODE[dtype])), 0))
                reference = torch.from_numpy(expected[distribution]).view(count_rows, count_columns).cuda().to(dtype)
                report(f"fill_random {name} {SHORT[dtype]}: the same bits", float((out != reference).sum()) + untouched(whole, count_columns), 0)
        count = 1 << 26
        out = torch.empty(count, device="cuda")
        synchronized(lambda: module.fill_random(ctypes.byref(Random(out=out.data_ptr(), seed=2**64 - 1, fullColumns=count, ldo=count, rows=1, columns=count, tensorId=3,
                                                                    distribution=NORMAL, amplitude=1, outDtype=F32)), 0))
        report("fill_random normal: mean", abs(float(out.double().mean())), 5 * count**-0.5)
        report("fill_random normal: variance", abs(float(out.double().var()) - 1), 5 * (2 / count) ** 0.5)
        for sigmas in (1, 3, 4, 5):
            expected_count = count * math.erfc(sigmas / 2**0.5)
            report(f"fill_random normal: values beyond {sigmas} sigma", abs(int((out.abs() > sigmas).sum()) - expected_count), 5 * expected_count**0.5)

    return {"gemm": gemm, "gemm batched": gemm_batched, "gemm e4m3": gemm_fp8, "gemm sm_90": gemm_hopper, "gemm f16": gemm_f16, "gemm of f16": gemm_of_f16, "gemm gate": gemm_gate, "layer_norm": layer_norm, "elementwise": elementwise, "quantize": quantize,
            "tokens": tokens, "embeddings": embeddings, "random": random_numbers}
