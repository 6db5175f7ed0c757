"""Checks of attention in e4m3 and of what makes its keys and values (see check_kernels.py).

The reference is float64 on the dequantised inputs, so that what is measured is the kernel and not e4m3; bench/attention.py measures both.
"""
import ctypes

import torch

from ditrun_abi import BF16, E4M3, F32, Attention, KvBlock, QuantizeKv
from check_operators import CODE, NAN, SHORT, relative

GENERIC, SM90 = 1, 3
UNIT, PARTS = 128, 64
ORDER = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
SMALLEST = torch.finfo(torch.float32).tiny
# A probability is wrong by half a step of e4m3 (2^-4 of it at most, 2.6 % in the mean) and by a linear interpolation (4 %, 1.8 %). In o that
# stays, since v has no mean; in lse it averages out over the keys that matter, of which a few hundred keys may have only a few.
O_LIMIT, LSE_LIMIT, LSE_OF_FEW = 0.037, 0.045, 0.11


class Quantizer:
    """Queries, keys and values to e4m3 by the module's own kernels."""

    def __init__(self, module):
        self.module = module

    def rows(self, x):
        """[tokens, heads, headDim], contiguous -> e4m3 of the same shape, scales [tokens, heads]."""
        out, scale = torch.full(x.shape, 0x7f, device="cuda", dtype=torch.uint8), torch.full(x.shape[:2], NAN, device="cuda")
        torch.cuda.synchronize()
        self.module.quantize_rows(out.data_ptr(), scale.data_ptr(), x.data_ptr(), x.shape[2], x.shape[0] * x.shape[1], x.shape[2], CODE[x.dtype], 0)
        return out, scale

    def statistics(self, k, v):
        columns = k.shape[1] * k.shape[2]
        out, workspace = torch.full((2, columns), NAN, device="cuda"), torch.full((PARTS, 2, columns), NAN, device="cuda")
        torch.cuda.synchronize()
        self.module.kv_statistics(out.data_ptr(), workspace.data_ptr(), k.data_ptr(), k.stride(0), v.data_ptr(), v.stride(0), k.shape[0], columns, CODE[k.dtype], 0)
        torch.cuda.synchronize()
        return out

    def block(self, k, v, statistics, total):
        """One block with the statistics of all ranks [ranks, 2, columns] -> k, v, kScale, vScale as the kernel takes them."""
        rows, heads, dim = k.shape
        padded = -(-rows // UNIT) * UNIT
        outK, outV = torch.full(k.shape, 0x7f, device="cuda", dtype=torch.uint8), torch.full((heads, dim, padded), 0x7f, device="cuda", dtype=torch.uint8)
        kScale, vScale = torch.full((heads, padded // UNIT), NAN, device="cuda"), torch.full((heads, dim), NAN, device="cuda")
        torch.cuda.synchronize()
        self.module.quantize_kv(ctypes.byref(QuantizeKv(
            k=k.data_ptr(), v=v.data_ptr(), statistics=statistics.data_ptr(), outK=outK.data_ptr(), outV=outV.data_ptr(), kScale=kScale.data_ptr(), vScale=vScale.data_ptr(),
            ldk=k.stride(0), ldv=v.stride(0), totalRows=total, rows=rows, heads=heads, headDim=dim, statisticsCount=statistics.shape[0], dtype=CODE[k.dtype])), 0)
        torch.cuda.synchronize()
        return outK, outV, kScale, vScale

    def blocks(self, blocks):
        statistics = torch.stack([self.statistics(k, v) for k, v in blocks])
        total = sum(k.shape[0] for k, _ in blocks)
        return [self.block(k, v, statistics, total) for k, v in blocks]


def quotient(x, divisor):
    """x / divisor in float32, rounded once; PyTorch multiplies by the reciprocal of a number."""
    return (x.double() / divisor).float()


def floats(x):
    return x.view(torch.float8_e4m3fn).double()


def dequantized(q, blocks):
    """q of Quantizer.rows and blocks of Quantizer.blocks as float64 q, k, v, keys in their order."""
    keys, values = [], []
    for k, v, kScale, vScale in blocks:
        rows, padded = k.shape[0], v.shape[2]
        keys.append(floats(k) * kScale.double().t().repeat_interleave(UNIT, 0)[:rows, :, None])
        ordered = torch.empty(padded // 16, 16, *v.shape[:2], device="cuda", dtype=torch.double)
        ordered[:, ORDER] = floats(v).permute(2, 0, 1).reshape(padded // 16, 16, *v.shape[:2])
        values.append(ordered.reshape(padded, *v.shape[:2])[:rows] * vScale)
    return floats(q[0]) * q[1].double()[..., None], torch.cat(keys), torch.cat(values)


def reference(q, blocks, scale=None):
    q, k, v = dequantized(q, blocks)
    scores = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[2] ** -0.5)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v), scores.logsumexp(-1)


def attention_args(q, blocks, o, lse, previous=None, flags=None, waits=None, kernel=0, scale=None, oScale=None, workspace=None):
    """Returns the argument and what must stay alive."""
    heads, dim = q[0].shape[1:]
    array = (KvBlock * len(blocks))(*(KvBlock(k=k.data_ptr(), v=v.data_ptr(), flag=flags[i] if flags else 0, kStride=heads * dim, vStride=v.shape[2], kScale=kScale.data_ptr(),
                                              length=k.shape[0]) for i, (k, v, kScale, _) in enumerate(blocks)))
    args = Attention(q=q[0].data_ptr(), o=o.data_ptr(), lse=lse.data_ptr() if lse is not None else 0, previousO=previous[0].data_ptr() if previous else 0,
                     previousLse=previous[1].data_ptr() if previous else 0, blocks=array, qScale=q[1].data_ptr(), vScale=blocks[0][3].data_ptr(),
                     waitNanoseconds=waits.data_ptr() if waits is not None else 0,
                     oScale=oScale.data_ptr() if oScale is not None else 0, workspace=workspace.data_ptr() if workspace is not None else 0,
                     workspaceBytes=workspace.numel() if workspace is not None else 0, qStride=heads * dim, oStride=o.stride(0), queries=q[0].shape[0], heads=heads,
                     headDim=dim, blockCount=len(blocks), dtype=E4M3, oDtype=CODE[o.dtype], kernel=kernel, scale=scale or dim ** -0.5)
    return ctypes.byref(args), (array, args)


def checks(module, report):
    quantizer = Quantizer(module)

    def made(rows, heads, dim, dtype=torch.bfloat16, size=1.0):
        """k and v as slices of one [rows, 3, heads, dim] tensor, as the qkv linear writes them; k with an offset of its own in each channel."""
        packed = torch.randn(rows, 3, heads, dim, device="cuda") * size
        packed[:, 1] += 3 * torch.randn(heads, dim, device="cuda")
        packed = packed.to(dtype)
        return packed[:, 1], packed[:, 2]

    def run(q, blocks, o_dtype, kernel, **more):
        o, lse = torch.full(q[0].shape, NAN, device="cuda").to(o_dtype), torch.full((q[0].shape[1], q[0].shape[0]), NAN, device="cuda")
        args, keep = attention_args(q, blocks, o, lse, kernel=kernel, **more)
        torch.cuda.synchronize()
        module.attention(args, 0)
        torch.cuda.synchronize()
        return o, lse

    def quantizing():
        for rows, heads, dim, dtype in ((1000, 3, 128, torch.bfloat16), (257, 4, 64, torch.bfloat16), (640, 16, 32, torch.bfloat16), (1, 2, 128, torch.bfloat16),
                                        (300, 2, 40, torch.bfloat16), (515, 3, 128, torch.float32), (131, 2, 33, torch.float32)):
            k, v = made(rows, heads, dim, dtype)
            name = f"quantize_kv {SHORT[dtype]} {rows} keys, {heads} heads of {dim}"
            statistics = torch.stack([quantizer.statistics(k, v), quantizer.statistics(v, k)])  # as if of two ranks with as many keys
            exact = torch.stack([k.double().sum(0).flatten(), v.double().sum(0).flatten()])
            report(name + ", sums", float((statistics[:, 0] - exact).abs().max()) / rows, 1e-5)
            maxima = torch.stack([v.float().abs().amax(0).flatten(), k.float().abs().amax(0).flatten()])
            report(name + ", maxima", float((statistics[:, 1] != maxima).sum()), 0)
            outK, outV, kScale, vScale = quantizer.block(k, v, statistics, 2 * rows)
            padded = -(-rows // UNIT) * UNIT
            smooth = torch.zeros(padded, heads, dim, device="cuda")
            smooth[:rows] = k.float() - quotient(statistics[0, 0] + statistics[1, 0], 2 * rows).view(heads, dim)
            scale = quotient(smooth.view(-1, UNIT, heads, dim).abs().amax((1, 3)), 448).clamp(min=SMALLEST)
            expected = (smooth / scale.repeat_interleave(UNIT, 0)[..., None])[:rows].to(torch.float8_e4m3fn)
            report(name + ", scales", float((kScale.t() != scale).sum() + (vScale != quotient(maxima.amax(0).view(heads, dim), 448)).sum()), 0)
            report(name + ", keys", float((floats(outK) != expected.double()).sum()), 0)
            values = torch.zeros(padded, heads, dim, device="cuda")
            values[:rows] = v.float() / vScale
            values = values.view(-1, 16, heads, dim)[:, ORDER].reshape(padded, heads, dim).permute(1, 2, 0).contiguous().to(torch.float8_e4m3fn)
            report(name + ", values", float((floats(outV) != values.double()).sum()), 0)
        k, v = made(300, 2, 128)
        k[200, 1, 5], v[7, 0, 3], v[9, 1, 4] = NAN, float("inf"), NAN
        outK, outV, _, _ = quantizer.block(k, v, quantizer.statistics(k, v)[None], 300)
        nans = lambda x: floats(x).isnan().nonzero().tolist()
        report("quantize_kv keeps NaN in k", float(nans(outK) != [[key, 1, 5] for key in range(300)]), 0)
        where = [[place[:2] for place in nans(outV)].count(channel) for channel in ([0, 3], [1, 4])]
        report("quantize_kv keeps NaN, makes NaN of infinity in v", float(where[0] < 1 or where[1] != 1 or sum(where) != len(nans(outV))), 0)
        for dim in (32, 64, 128, 40):
            for dtype in (torch.float32, torch.bfloat16):
                x = (torch.randn(301, 3, dim, device="cuda") * 5).to(dtype)
                x[4] = 0
                out, scale = quantizer.rows(x)
                expected = quotient(x.float().abs().amax(2).clamp(min=1e-12), 448)
                report(f"quantize_rows {SHORT[dtype]} heads of {dim}", float((scale != expected).sum() + (floats(out) != (x.float() / expected[..., None]).to(torch.float8_e4m3fn).double()).sum()), 0)

    def sizes():
        for kernel, dims in ((SM90, (32, 64, 128)), (GENERIC, (40, 128, 200))):
            for dim in dims:
                for queries, lengths in ((193, [70, 129, 1]), (64, [128]), (1, [1]), (257, [1000]), (700, [777, 2048]), (130, [33] * 16), (200, [5000])):
                    blocks = quantizer.blocks([made(length, 3, dim) for length in lengths])
                    q = quantizer.rows(torch.randn(queries, 3, dim, device="cuda").bfloat16())
                    expected, expected_lse = reference(q, blocks)
                    name = f"attention e4m3 {'sm90' if kernel == SM90 else 'generic'} dim {dim}, {queries} queries, keys {lengths if len(lengths) < 9 else '16 x 33'}"
                    o, lse = run(q, blocks, torch.float32, kernel)
                    report(name, relative(o, expected), O_LIMIT)
                    report(name + ", lse", float((lse - expected_lse).abs().max()), LSE_LIMIT if sum(lengths) > 256 else LSE_OF_FEW)
                    o, _ = run(q, blocks, torch.bfloat16, kernel)
                    report(name + ", bf16 out", relative(o, expected), O_LIMIT)
                    o2, lse2 = run(q, blocks, torch.bfloat16, kernel)
                    report(name + ", again the same bits", float((o != o2).sum() + (lse != lse2).sum()), 0)

    def hard_inputs():
        for dim in (32, 64, 128):
            name = f"attention e4m3 dim {dim}"
            for label, keys, size, limit in (("scores of hundreds", 700, 12.0, 0.05), ("scores of 1e5", 700, 300.0, 0.01)):
                q, blocks = quantizer.rows((torch.randn(150, 2, dim, device="cuda") * size).bfloat16()), quantizer.blocks([made(keys, 2, dim, size=size)])
                o, _ = run(q, blocks, torch.float32, SM90)
                # Scores leave the matrix unit with 11 bits: rows whose two best keys are closer than that may take either.
                scores = torch.einsum("qhd,khd->qhk", *dequantized(q, blocks)[:2])
                best = scores.topk(2, 2).values
                clear = (best[..., 0] - best[..., 1]) * dim**-0.5 > (0.0 if size < 100 else 20 + 2e-3 * best[..., 0].abs() * dim**-0.5)
                report(f"{name} {label}", relative(o[clear], reference(q, blocks)[0][clear]), limit, f"{int(clear.sum())} clear rows of {clear.numel()}")
            k, v = made(5000, 2, dim)
            k = (k.float() * 0.1 + torch.linspace(-8, 8, 5000, device="cuda")[:, None, None]).bfloat16()
            q, blocks = quantizer.rows(torch.ones(150, 2, dim, device="cuda").bfloat16()), quantizer.blocks([(k, v)])
            o, lse = run(q, blocks, torch.float32, SM90)
            expected, expected_lse = reference(q, blocks)
            report(f"{name} rising scores", relative(o, expected), 0.06)  # few keys matter
            report(f"{name} rising scores, lse", float((lse - expected_lse).abs().max()), LSE_OF_FEW)
            equal = [(k[:1].expand_as(k).contiguous(), v, torch.full_like(scale, 0.01), vScale) for k, v, scale, vScale in blocks]
            o, _ = run(q, equal, torch.float32, SM90)
            report(f"{name} equal keys", relative(o, reference(q, equal)[0]), 2e-3)  # the interpolation cancels
            # v of one sign over 65,536 keys: errors of long sums would add up, those of probabilities cancel
            k, v = made(65536, 1, dim)
            q, blocks = quantizer.rows(torch.randn(64, 1, dim, device="cuda").bfloat16()), quantizer.blocks([(k, (1 + 0.1 * v.float()).bfloat16())])
            o, lse = run(q, blocks, torch.float32, SM90)
            expected, expected_lse = reference(q, blocks)
            report(f"{name} long sums", relative(o, expected), 2e-3)
            report(f"{name} long sums, lse", float((lse - expected_lse).abs().max()), 5e-3)

    def merging():
        for kernel in (SM90, GENERIC):
            for dim in (32, 64, 128):
                blocks, q = quantizer.blocks([made(n, 2, dim) for n in (300, 411)]), quantizer.rows(torch.randn(200, 2, dim, device="cuda").bfloat16())
                expected, expected_lse = reference(q, blocks)
                o, lse = run(q, blocks[:1], torch.float32, kernel)
                args, keep = attention_args(q, blocks[1:], o, lse, previous=(o, lse), kernel=kernel)  # in place
                torch.cuda.synchronize()
                module.attention(args, 0)
                torch.cuda.synchronize()
                name = f"attention e4m3 {'sm90' if kernel == SM90 else 'generic'} dim {dim} merged in place"
                report(name, relative(o, expected), O_LIMIT)
                report(name + ", lse", float((lse - expected_lse).abs().max()), LSE_LIMIT)

    def nans():
        for kernel in (SM90, GENERIC):
            for dim in (32, 64, 128):
                for what in ("q", "k", "v"):
                    blocks, q = quantizer.blocks([made(n, 2, dim) for n in (300, 411)]), quantizer.rows(torch.randn(200, 2, dim, device="cuda").bfloat16())
                    expected = torch.zeros(200, 2, dim, device="cuda", dtype=torch.bool)
                    if what == "q":
                        q[0][5, 1, 3], expected[5, 1] = 0x7f, True
                    elif what == "k":
                        blocks[1][0][400, 1, 3], expected[:, 1] = 0x7f, True
                    else:
                        blocks[1][1][1, 3, 40], expected[:, 1, 3] = 0xff, True
                    o, _ = run(q, blocks, torch.bfloat16, kernel)
                    report(f"attention e4m3 {'sm90' if kernel == SM90 else 'generic'} dim {dim}, NaN in {what} shows where it must", float((o.isnan() != expected).sum()), 0)

    def flags():
        """The second block arrives, and its flag is set, while the kernel waits for it."""
        for dim in (32, 64, 128):
            blocks, q = quantizer.blocks([made(n, 2, dim) for n in (300, 411)]), quantizer.rows(torch.randn(200, 2, dim, device="cuda").bfloat16())
            expected, _ = reference(q, blocks)
            arriving = [torch.full_like(x, 0x7f if x.dtype == torch.uint8 else NAN) for x in blocks[1][:3]]
            words, waits = torch.zeros(2, device="cuda", dtype=torch.int32), torch.zeros(2, device="cuda", dtype=torch.int64)
            o = torch.full(q[0].shape, NAN, device="cuda")
            compute, copies = module.stream_create(0), module.stream_create(1)
            args, keep = attention_args(q, [blocks[0], (*arriving, blocks[1][3])], o, None, flags=[words.data_ptr(), words.data_ptr() + 4], waits=waits, kernel=SM90)
            module.copy(arriving[0].data_ptr(), arriving[0].data_ptr(), 16, copies)  # loads what loading would hold up while a kernel waits
            module.flags_write((ctypes.c_uint64 * 1)(words.data_ptr()), 1, 0, copies)
            torch.cuda.synchronize()
            module.attention(args, compute)
            for i in range(2):
                for source, destination in zip(blocks[1], arriving) if i else ():
                    module.copy(destination.data_ptr(), source.data_ptr(), source.numel() * source.element_size(), copies)
                module.flags_write((ctypes.c_uint64 * 1)(words.data_ptr() + 4 * i), 1, 1, copies)
                module.stream_synchronize(copies)
            module.stream_synchronize(compute)
            report(f"attention e4m3 dim {dim} waits for flags", relative(o, expected), O_LIMIT, f"{int(waits[0])} and {int(waits[1])} ns")
            for stream in (compute, copies):
                module.stream_destroy(stream)

    def shares():
        """The last wave's keys shared out: the same result as without a workspace, whatever it is made of."""
        workspace = torch.full((32 << 20,), 0xff, device="cuda", dtype=torch.uint8)  # NaN
        for dim in (32, 64, 128):
            for queries, heads, keys in ((193, 3, 5000), (1, 1, 2048), (64 * 132, 1, 3001), (2500, 8, 4100)):
                name = f"attention e4m3 dim {dim}, {heads} heads, {queries} queries, {keys} keys in shares"
                parts, q = [made(300, heads, dim), made(keys, heads, dim)], quantizer.rows(torch.randn(queries, heads, dim, device="cuda").bfloat16())
                before, block = quantizer.blocks(parts)
                for o_dtype in (torch.float32, torch.bfloat16):
                    whole, whole_lse = run(q, [block], o_dtype, SM90)
                    o, lse = run(q, [block], o_dtype, SM90, workspace=workspace)
                    report(f"{name} to {SHORT[o_dtype]}", relative(o, whole.double()), 6e-3 if o_dtype == torch.float32 else 7e-3, f"{int((o != whole).any(2).sum())} rows of heads differ")
                    report(f"{name} to {SHORT[o_dtype]}, lse", float((lse - whole_lse).abs().max()), 2e-3)
                if 1 < queries * heads < 3000:  # a single row may be worse
                    expected, expected_lse = reference(q, [block])
                    report(name, relative(o, expected), O_LIMIT)
                    report(name + ", lse", float((lse - expected_lse).abs().max()), LSE_LIMIT)
                previous = run(q, [before], torch.float32, SM90)
                whole, whole_lse = run(q, [block], torch.float32, SM90, previous=previous)
                o, lse = run(q, [block], torch.float32, SM90, previous=previous, workspace=workspace)
                report(name + ", merged", relative(o, whole.double()), 6e-3)
                report(name + ", merged, lse", float((lse - whole_lse).abs().max()), 2e-3)
        block, q = quantizer.blocks([made(5000, 2, 128)])[0], quantizer.rows(torch.randn(200, 2, 128, device="cuda").bfloat16())
        block[0][4000, 1, 3] = 0x7f
        o, _ = run(q, [block], torch.bfloat16, SM90, workspace=workspace)
        report("attention e4m3 in shares, NaN in k shows where it must", float((o[:, 1].isnan() != True).sum() + o[:, 0].isnan().sum()), 0)

    def e4m3_outputs():
        workspace = torch.empty(32 << 20, device="cuda", dtype=torch.uint8)
        for dim in (32, 64, 128):
            for queries, keys in ((193, 777), (321, 5000)):
                for memory in (None, workspace):
                    blocks, q = quantizer.blocks([made(n, 3, dim) for n in (300, keys)]), quantizer.rows(torch.randn(queries, 3, dim, device="cuda").bfloat16())
                    previous = run(q, blocks[:1], torch.float32, SM90)
                    for more in ({}, {"previous": previous}):
                        exact, _ = run(q, blocks[1:], torch.float32, SM90, workspace=memory, **more)
                        oScale = torch.full((queries, 3), NAN, device="cuda")
                        o, _ = run(q, blocks[1:], torch.float8_e4m3fn, SM90, workspace=memory, oScale=oScale, **more)
                        scale = quotient(exact.abs().amax(2).clamp(min=1e-12), 448)
                        wrong = (oScale != scale).sum() + (o.float() != (exact / scale[..., None]).to(torch.float8_e4m3fn).float()).sum()
                        report(f"attention e4m3 to e4m3 dim {dim}, {queries} queries, {keys} keys{', in shares' if memory is not None else ''}{', merged' if more else ''}", float(wrong), 0)

    return {"attention e4m3 shares": shares, "attention e4m3 to e4m3": e4m3_outputs, "quantize_kv": quantizing, "attention e4m3 sizes": sizes, "attention e4m3 hard inputs": hard_inputs, "attention e4m3 merging": merging, "attention e4m3 NaN": nans,
            "attention e4m3 flags": flags}
