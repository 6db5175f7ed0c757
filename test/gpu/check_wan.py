"""Checks of the operators of Wan's transformer and text encoder against float64 (see check_kernels.py)."""
import ctypes

import torch

from ditrun_abi import F32, GELU, IDENTITY, SILU, RmsNorm
from check_attention import GENERIC, KERNEL, SM80, attention_args
from check_operators import ACTIVATIONS, CODE, LIMIT, NAN, SHORT, address, layer_norm_args, padded, random, relative, synchronized

BOTH = (torch.float32, torch.bfloat16)


def rms_norm_args(x, out, weight=None, rope=None, sumSquares=None, fullColumns=0, activation=IDENTITY, epsilon=1e-6, quantized=None, scale=None, headDim=0, outAddress=0,
                  groupRows=0, groupStride=0):
    return ctypes.byref(RmsNorm(
        x=address(x), weight=address(weight), out=outAddress or address(out), quantized=address(quantized), quantizedScale=address(scale), sumSquares=address(sumSquares), rope=address(rope),
        ldx=x.stride(0), ldo=out.stride(0) if out is not None else 0, rows=x.shape[0], columns=x.shape[1], fullColumns=fullColumns,
        headDim=rope.shape[1] if rope is not None else headDim, xDtype=CODE[x.dtype], weightDtype=CODE[weight.dtype] if weight is not None else F32,
        outDtype=CODE[out.dtype] if out is not None else F32, activation=activation, epsilon=epsilon, groupRows=groupRows, groupStride=groupStride))


def rotated(x, rope):
    """Adjacent pairs of x [rows, columns] turned by rope [rows, headDim], float64, as complex numbers."""
    turns = torch.view_as_complex(rope.double().view(rope.shape[0], 1, -1, 2))
    pairs = torch.view_as_complex(x.double().reshape(x.shape[0], -1, rope.shape[1] // 2, 2).contiguous())
    return torch.view_as_real(pairs * turns).reshape(x.shape)


def rope_table(frames, height, width, headDim):
    """The rotary table of a whole grid in float64: the angles of frame, row and column side by side."""
    pairs = headDim // 2
    third = pairs // 3
    axes = [(frames, pairs - 2 * third), (height, third), (width, third)]
    grids = torch.meshgrid(*(torch.arange(size, device="cuda", dtype=torch.float64) for size, _ in axes), indexing="ij")
    angles = [grid.reshape(-1, 1) * 10000.0 ** (-torch.arange(n, device="cuda", dtype=torch.float64) / n) for grid, (_, n) in zip(grids, axes)]
    angles = torch.cat(angles, 1)
    return torch.stack([angles.cos(), angles.sin()], 2).flatten(1)


def checks(module, report):
    def unwritten(whole, columns):
        """1 when the padding was written."""
        return float(not bool(whole[:, columns:].isnan().all()))

    def modulation():
        for rows, columns, extra in ((77, 512, 0), (33, 1536, 8), (6, 5120, 0), (5, 20, 3), (3, 10001, 1), (129, 768, 0)):
            for x_dtype, out_dtype, affine in ((torch.float32, torch.bfloat16, False), (torch.float32, torch.float32, True), (torch.bfloat16, torch.bfloat16, True)):
                x, _ = padded(rows, columns, x_dtype, extra, random(rows, columns) * 2 + 3)
                weight, bias = (random(columns), random(columns)) if affine else (None, None)
                scale, shift = random(columns, scale=0.5), random(columns)
                y = torch.nn.functional.layer_norm(x.double(), (columns,), weight.double() if affine else None, bias.double() if affine else None, 1e-6)
                expected = y * (1 + scale.double()) + shift.double()
                out, whole = padded(rows, columns, out_dtype, extra)
                synchronized(lambda: module.layer_norm(layer_norm_args(x, out, weight, bias, epsilon=1e-6, modScale=scale, modShift=shift), 0))
                name = f"layer_norm modulated {rows}x{columns} {SHORT[x_dtype]}->{SHORT[out_dtype]}{' affine' if affine else ''}"
                report(name, relative(out, expected) + unwritten(whole, columns) * bool(extra), LIMIT[out_dtype])
        x, scale = random(4, 64), random(64)
        status = module.lib.ditrun_layer_norm(layer_norm_args(x, x, None, None, modScale=scale), 0)
        report("layer_norm: modScale without modShift is refused", 0 if status == 1 else 1, 0, module.lib.ditrun_last_error().decode()[:100])

    def rms_norm():
        for rows, columns, extra, headDim in ((77, 512, 0, 32), (33, 1536, 8, 128), (6, 5120, 0, 128), (1001, 96, 0, 0), (65, 192, 8, 24), (7, 384, 0, 128), (5, 768, 0, 128),
                                              (9, 4096, 0, 64), (55, 30, 3, 10), (3, 10002, 2, 6), (17, 2560, 8, 128), (2, 8192, 0, 128), (11, 120, 0, 40)):
            for x_dtype, out_dtype, weight_dtype in ((torch.bfloat16, torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32, torch.float32),
                                                     (torch.float32, torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32, torch.float32),
                                                     (torch.bfloat16, torch.bfloat16, torch.float32), (torch.float16, torch.float16, torch.float32),
                                                     (torch.float16, torch.float32, torch.float32), (torch.float32, torch.float16, torch.float32)):
                x, _ = padded(rows, columns, x_dtype, extra, random(rows, columns) * 3)
                weight = random(columns, dtype=weight_dtype)
                plain = x.double() * (x.double().square().mean(1, keepdim=True) + 1e-6).rsqrt() * weight.double()
                name = f"rms_norm {rows}x{columns} {SHORT[x_dtype]}->{SHORT[out_dtype]}, weight {SHORT[weight_dtype]}"
                for activation in (IDENTITY, GELU, SILU):
                    out, whole = padded(rows, columns, out_dtype, extra)
                    synchronized(lambda: module.rms_norm(rms_norm_args(x, out, weight, activation=activation), 0))
                    report(f"{name} activation {activation}", relative(out, ACTIVATIONS[activation](plain)) + unwritten(whole, columns) * bool(extra), LIMIT[out_dtype])
                    # Groups of rows with room between them, the last one short: the same bits.
                    for group in (1, rows // 2 + 1, rows + 5):
                        stride, count = group * whole.stride(0) + 24, (rows - 1) // group + 1
                        apart = torch.full((count, stride), NAN, device="cuda", dtype=out_dtype)
                        expected = apart.clone()
                        for row in range(rows):
                            expected[row // group].narrow(0, row % group * whole.stride(0), columns).copy_(out[row])
                        args = rms_norm_args(x, out, weight, activation=activation, outAddress=apart.data_ptr(), groupRows=group, groupStride=stride)
                        synchronized(lambda: module.rms_norm(args, 0))
                        report(f"{name} activation {activation}, groups of {group}", float(not torch.equal(apart.nan_to_num(777), expected.nan_to_num(777))), 0)
                if not headDim:
                    continue
                rope = random(rows, headDim)
                out, whole = padded(rows, columns, out_dtype, extra)
                synchronized(lambda: module.rms_norm(rms_norm_args(x, out, weight, rope), 0))
                report(f"{name} rope of {headDim}", relative(out, rotated(plain, rope)) + unwritten(whole, columns) * bool(extra), LIMIT[out_dtype])
                for turned, table in ((rotated(plain, rope), rope), (plain, None)):
                    quantized = torch.full((rows, columns), NAN, device="cuda").to(torch.float8_e4m3fn)
                    scale = torch.full((rows, columns // headDim), NAN, device="cuda")
                    synchronized(lambda: module.rms_norm(rms_norm_args(x, None, weight, table, quantized=quantized, scale=scale, headDim=headDim), 0))
                    heads = turned.view(rows, -1, headDim)
                    report(f"{name} heads of {headDim} in e4m3{', rope' if table is not None else ''}", relative(quantized.double().view(heads.shape) * scale.double()[..., None], heads), 0.04)
                    report(f"{name} heads of {headDim} in e4m3, scales", relative(scale, heads.abs().amax(2) / 448), 1e-5)
                # A tensor parallel rank: its columns, everyone's sum.
                given = x.double().square().sum(1).float() * 1.7
                scaled = x.double() * (given.double()[:, None] / (2 * columns) + 1e-6).rsqrt()
                out, whole = padded(rows, columns, out_dtype, extra)
                synchronized(lambda: module.rms_norm(rms_norm_args(x, out, None, rope, given, 2 * columns), 0))
                report(f"{name} given sums", relative(out, rotated(scaled, rope)) + unwritten(whole, columns) * bool(extra), LIMIT[out_dtype])
        x, rope = random(65, 1536, dtype=torch.bfloat16), random(65, 128)
        expected = rotated(x.double() * (x.double().square().mean(1, keepdim=True) + 1e-6).rsqrt(), rope)
        synchronized(lambda: module.rms_norm(rms_norm_args(x, x, None, rope), 0))
        report("rms_norm in place, rope", relative(x, expected), LIMIT[torch.bfloat16])
        status = module.lib.ditrun_rms_norm(rms_norm_args(x, x, None, random(65, 100)), 0)
        report("rms_norm: heads that do not divide the columns are refused", 0 if status == 1 else 1, 0, module.lib.ditrun_last_error().decode()[:100])
        for what, groups in (("overlap", dict(groupRows=13, groupStride=13 * 1536 - 1)), ("are written over x", dict(groupRows=13, groupStride=13 * 1536, outAddress=x.data_ptr())),
                             ("have fewer than no rows", dict(groupRows=-1))):
            status = module.lib.ditrun_rms_norm(rms_norm_args(x, torch.empty_like(x), **groups), 0)
            report(f"rms_norm: groups that {what} are refused", 0 if status == 1 else 1, 0, module.lib.ditrun_last_error().decode()[:100])

    def row_sums():
        for rows, columns, extra in ((77, 512, 8), (33, 1536, 0), (5, 21, 3), (9, 5120, 0), (3, 10001, 0)):
            for dtype in BOTH:
                x, _ = padded(rows, columns, dtype, extra, random(rows, columns))
                out = torch.full((rows + 1,), NAN, device="cuda")
                synchronized(lambda: module.row_sum_squares(out.data_ptr(), x.data_ptr(), x.stride(0), rows, columns, CODE[dtype], 0))
                report(f"row_sum_squares {rows}x{columns} {SHORT[dtype]}", relative(out[:rows], x.double().square().sum(1)) + float(not out[rows].isnan()), 1e-6)

    def rope():
        for frames, height, width, headDim, first, tokens in ((21, 30, 52, 128, 0, 32760), (1000, 2, 3, 128, 5000, 999), (2, 900, 1, 40, 7, 1700), (3, 1, 1000, 6, 0, 3000)):
            expected = rope_table(frames, height, width, headDim)[first:first + tokens]
            out = torch.full((tokens, headDim), NAN, device="cuda")
            synchronized(lambda: module.rope_3d(out.data_ptr(), height, width, first, tokens, headDim, 0))
            report(f"rope_3d {frames}x{height}x{width}, {tokens} tokens of dim {headDim}", float((out - expected).abs().max()), 1e-7)

    def residuals():
        for rows, columns in ((77, 512), (1003, 1536), (6, 5120), (5, 33), (3, 10001)):
            for x_dtype, y_dtype in ((torch.float32, torch.bfloat16), (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)):
                x, y, gate = random(rows, columns, dtype=x_dtype), random(rows, columns, dtype=y_dtype), random(columns)
                expected = x.double() + y.double() * gate.double()
                name = f"add_gated {rows}x{columns} {SHORT[x_dtype]} + {SHORT[y_dtype]}"
                arguments = (CODE[x_dtype], y.data_ptr(), CODE[y_dtype], gate.data_ptr(), rows, columns, 0)
                out = torch.full_like(x, NAN)
                synchronized(lambda: module.add_gated(out.data_ptr(), x.data_ptr(), *arguments))
                report(name, relative(out, expected), LIMIT[x_dtype])
                synchronized(lambda: module.add_gated(x.data_ptr(), x.data_ptr(), *arguments))
                report(name + " in place", float((x != out).sum()), 0)

    def pixels():
        for dtype in (*BOTH, torch.float16):
            for count in (1, 1003, 65536 * 3 + 4):
                x = random(count, dtype=dtype)
                for where, bad, flag in ((0, 0.5, 0), (0, NAN, 1), (count - 1, NAN, 1), (count // 2, float("inf"), 1), (count // 3, -float("inf"), 1)):
                    kept = x[where].clone()
                    x[where] = bad
                    expected = ((x.float() + 1) * 127.5).nan_to_num(0).clamp(0, 255).round().to(torch.uint8)
                    out, nonfinite = (~expected).clone(), torch.tensor([0, 7], device="cuda", dtype=torch.int32)
                    synchronized(lambda: module.to_bytes(out.data_ptr(), nonfinite.data_ptr(), x.data_ptr(), CODE[dtype], count, 0))
                    report(f"to_bytes {SHORT[dtype]} {count}, {bad} at {where}", float((out != expected).sum()) + float((nonfinite != torch.tensor([flag, 7], device="cuda")).sum()), 0)
                    x[where] = kept
                nonfinite = torch.tensor([1], device="cuda", dtype=torch.int32)
                synchronized(lambda: module.to_bytes(out.data_ptr(), nonfinite.data_ptr(), x.data_ptr(), CODE[dtype], count, 0))
                report(f"to_bytes {SHORT[dtype]} {count} leaves a flag that is set", abs(int(nonfinite) - 1), 0)

    def products():
        for dtype in BOTH:
            for count in (1, 1003, 65536 * 3 + 4):
                x, y = random(count, dtype=dtype), random(count, dtype=dtype)
                expected = (x.float() * y.float()).to(dtype)
                synchronized(lambda: module.multiply(y.data_ptr(), x.data_ptr(), y.data_ptr(), count, CODE[dtype], 0))
                report(f"multiply {SHORT[dtype]} {count} in place", float((y != expected).sum()), 0)
        for count in (1, 1003, 65536 * 3 + 4):
            for terms in (1, 3, 8):
                sources = [random(count) for _ in range(terms)]
                coefficients = [float(c) for c in torch.randn(terms).float()]
                expected = sum(c * s.double() for c, s in zip(coefficients, sources))
                addresses, numbers = (ctypes.c_uint64 * terms)(*(s.data_ptr() for s in sources)), (ctypes.c_float * terms)(*coefficients)
                out = torch.full((count,), NAN, device="cuda")
                synchronized(lambda: module.combine(out.data_ptr(), addresses, numbers, terms, count, 0))
                # eight terms of a few units each, rounded to float32 as they are added
                report(f"combine {terms} of {count}", float((out - expected).abs().max()), 1e-5)
                last = sources[-1]
                synchronized(lambda: module.combine(last.data_ptr(), addresses, numbers, terms, count, 0))
                report(f"combine {terms} of {count} in place", float((last != out).sum()), 0)

    def gathering():
        for rows, columns, table_rows in ((77, 512, 1000), (5, 33, 7), (512, 4096, 3000)):
            for table_dtype in BOTH:
                for out_dtype in BOTH:
                    table = random(table_rows, columns, dtype=table_dtype)
                    ids = torch.randint(table_rows, (rows,), device="cuda", dtype=torch.int32)
                    expected = table[ids.long()].to(out_dtype)
                    ids[1], ids[2] = -1, table_rows
                    out = torch.full((rows, columns), 7.0, device="cuda", dtype=out_dtype)
                    synchronized(lambda: module.gather_rows(out.data_ptr(), CODE[out_dtype], table.data_ptr(), CODE[table_dtype], table_rows, ids.data_ptr(), rows, columns, 0))
                    kept = [0, *range(3, rows)]
                    report(f"gather_rows {rows}x{columns} {SHORT[table_dtype]}->{SHORT[out_dtype]}",
                           float((out[kept] != expected[kept]).sum()) + float((~out[1:3].isnan()).sum()), 0)

    def video():
        for channels, frames, height, width, patch, first, count in ((16, 3, 8, 12, 2, 0, 72), (3, 5, 9, 6, 3, 7, 20), (16, 21, 60, 104, 2, 4095, 8190), (4, 2, 5, 7, 1, 3, 60)):
            latent = random(channels, frames, height, width)
            cut = latent.view(channels, frames, height // patch, patch, width // patch, patch)
            tokens_in = cut.permute(1, 2, 4, 0, 3, 5).reshape(-1, channels * patch * patch)[first:first + count]
            tokens_out = cut.permute(1, 2, 4, 3, 5, 0).reshape(-1, channels * patch * patch)[first:first + count]
            name = f"{channels}x{frames}x{height}x{width} by {patch}"
            for dtype in BOTH:
                out = torch.full(tokens_in.shape, NAN, device="cuda", dtype=dtype)
                synchronized(lambda: module.patchify_video(out.data_ptr(), CODE[dtype], latent.data_ptr(), F32, channels, frames, height, width, patch, first, count, 0))
                report(f"patchify_video {name} {SHORT[dtype]}", float((out != tokens_in.to(dtype)).sum()), 0)
                x, back = tokens_out.to(dtype).contiguous(), torch.full_like(latent, NAN)
                synchronized(lambda: module.unpatchify_video(back.data_ptr(), F32, x.data_ptr(), CODE[dtype], channels, frames, height, width, patch, first, count, 0))
                written = ~back.isnan()
                report(f"unpatchify_video {name} {SHORT[dtype]}",
                       float((back[written] != latent.to(dtype).float()[written]).sum()) + abs(int(written.sum()) - x.numel()), 0)

    def relative_bias():
        for kernel, dtype in ((GENERIC, torch.float32), (GENERIC, torch.bfloat16), (SM80, torch.bfloat16), (0, torch.bfloat16)):
            for queries, lengths, dim, scale in ((193, [70, 129, 1], 64, 1.0), (512, [512], 64, 1.0), (1, [33], 32, 0.3), (100, [65, 200], 128, 0.1)):
                heads, keys = 3, sum(lengths)
                q = (torch.randn(queries, heads, dim, device="cuda") / 4).to(dtype)
                k, v = ((torch.randn(keys, heads, dim, device="cuda")).to(dtype) for _ in range(2))
                bias = random(heads, queries + keys - 1, scale=3)
                index = torch.arange(keys, device="cuda")[None] - torch.arange(queries, device="cuda")[:, None] + queries - 1
                scores = torch.einsum("qhd,khd->hqk", q.double(), k.double()) * scale + bias.double()[:, index]
                expected, expected_lse = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.double()), scores.logsumexp(-1)
                o, lse = torch.full(q.shape, NAN, device="cuda"), torch.full((heads, queries), NAN, device="cuda")
                args, keep = attention_args(q, list(zip(k.split(lengths), v.split(lengths))), o, lse, kernel=kernel, scale=scale, bias=bias)
                synchronized(lambda: module.attention(args, 0))
                name = f"attention {KERNEL.get(kernel, 'chosen')} {SHORT[dtype]} relative bias, {queries} queries, keys {lengths}, dim {dim}"
                report(name, relative(o, expected), 2e-6 if dtype == torch.float32 else 2.5e-3)
                report(name + ", lse", float((lse - expected_lse).abs().max()), 2e-5)
                if dtype == torch.bfloat16:
                    args, keep = attention_args(q, list(zip(k.split(lengths), v.split(lengths))), o, lse, kernel=3, scale=scale, bias=bias)
                    report(name + ", refused by the sm_90 kernel", abs(module.lib.ditrun_attention(args, 0) - 4), 0)

    return {"wan modulation": modulation, "wan rms_norm": rms_norm, "wan row sums": row_sums, "wan rope": rope, "wan residuals": residuals, "wan products": products, "wan pixels": pixels,
            "wan gathering": gathering, "wan video": video, "wan relative bias": relative_bias}
