#!/usr/bin/env python3
"""Runs the kernels on small odd sizes, each buffer an allocation of exactly its size, for compute-sanitizer to watch:

    compute-sanitizer --tool memcheck python3 test/gpu/sanitize.py build/libditrun_cuda.so

(or --tool racecheck, synccheck, initcheck). Says nothing about results: check_kernels.py does. Without PyTorch, which
under compute-sanitizer takes minutes. Exits 1 when a kernel refuses its arguments.
"""
import argparse
import ctypes
import sys
import tempfile

from ditrun_abi import BF16, DEVICE, E4M3, F16, F32, GELU, IDENTITY, NORMAL, SILU, Attention, Conv3d, Decode, Gemm, KvBlock, LayerNorm, Module, QuantizeKv, Random, RmsNorm

BYTES = {F32: 4, BF16: 2, F16: 2, E4M3: 1}


class Buffers:
    """Device memory of exactly the size asked for, filled with normal numbers; freed all at once."""

    def __init__(self, module):
        self.module, self.owned = module, []

    def empty(self, count, dtype=F32):
        self.owned.append(self.module.malloc(count * BYTES[dtype], DEVICE))
        return self.owned[-1]

    def zeros(self, count, dtype=F32):
        at = self.empty(count, dtype)
        self.module.fill_zero(at, count * BYTES[dtype], 0)
        return at

    def normal(self, count, dtype=F32):
        wide = dtype in (E4M3, F16)
        at = self.empty(count, F32 if wide else dtype)
        self.module.fill_random(ctypes.byref(Random(out=at, seed=1, fullColumns=count, ldo=count, rows=1, columns=count, distribution=NORMAL, amplitude=1,
                                                    outDtype=F32 if wide else dtype)), 0)
        if not wide:
            return at
        if dtype == F16:
            half = self.empty(count, F16)
            self.module.cast(half, F16, at, F32, count, 0)
            return half
        small = self.empty(count, E4M3)
        self.module.quantize_rows(small, self.empty(1), at, count, 1, count, F32, 0)
        return small

    def free(self):
        self.module.stream_synchronize(0)
        while self.owned:
            self.module.free(self.owned.pop())


def attention(module, new, heads, queries, lengths, dim, dtype, kernel, out_dtype=BF16, merge=False):
    width = heads * dim
    array = (KvBlock * len(lengths))(*(KvBlock(k=new.normal(n * width, dtype), v=new.normal(n * width, dtype), kStride=width, vStride=width, length=n) for n in lengths))
    previous = (new.normal(queries * width), new.normal(heads * queries)) if merge else (0, 0)
    module.attention(ctypes.byref(Attention(
        q=new.normal(queries * width, dtype), o=new.empty(queries * width, out_dtype), lse=new.empty(heads * queries), previousO=previous[0], previousLse=previous[1],
        oScale=new.empty(queries * heads) if out_dtype == E4M3 else 0, blocks=array, qStride=width, oStride=width, queries=queries, heads=heads, headDim=dim,
        blockCount=len(lengths), dtype=dtype, oDtype=out_dtype, kernel=kernel, scale=dim**-0.5)), 0)


def attentions(module, new):
    for dim in (32, 64, 128):
        for kernel in (1, 2, 3):
            attention(module, new, 2, 193, [70, 129, 1], dim, BF16, kernel)
            attention(module, new, 1, 65, [300], dim, BF16, kernel, F32, merge=True)
            attention(module, new, 3, 257, [512], dim, BF16, kernel)
            new.free()
        for kernel in (1, 3):
            attention(module, new, 2, 193, [70, 129, 1], dim, F16, kernel)
            attention(module, new, 1, 65, [300], dim, F16, kernel, F32, merge=True)
            attention(module, new, 3, 257, [1024], dim, F16, kernel)
            new.free()
    for keys in (512, 3000):
        attention(module, new, 2, 257, [keys], 128, BF16, 3, E4M3)
    attention(module, new, 2, 33, [47], 20, F32, 1, F32)
    attention(module, new, 2, 33, [47], 20, F16, 1, F32)


def fp8_attention(module, new, heads, queries, lengths, dim, kernel, out_dtype=BF16, merge=False, workspace=0):
    width, blocks = heads * dim, []
    v_scale = new.empty(width)
    for rows in lengths:
        k, v, padded = new.normal(rows * width, BF16), new.normal(rows * width, BF16), -(-rows // 128) * 128
        statistics = new.empty(2 * width)
        module.kv_statistics(statistics, new.empty(64 * 2 * width), k, width, v, width, rows, width, BF16, 0)
        block = KvBlock(k=new.empty(rows * width, E4M3), v=new.empty(width * padded, E4M3), kScale=new.empty(heads * padded // 128), kStride=width, vStride=padded, length=rows)
        module.quantize_kv(ctypes.byref(QuantizeKv(k=k, v=v, statistics=statistics, outK=block.k, outV=block.v, kScale=block.kScale, vScale=v_scale, ldk=width, ldv=width,
                                                   totalRows=rows, rows=rows, heads=heads, headDim=dim, statisticsCount=1, dtype=BF16)), 0)
        blocks.append(block)
    q, q_scale = new.empty(queries * width, E4M3), new.empty(queries * heads)
    module.quantize_rows(q, q_scale, new.normal(queries * width, BF16), dim, queries * heads, dim, BF16, 0)
    previous = (new.normal(queries * width), new.normal(heads * queries)) if merge else (0, 0)
    module.attention(ctypes.byref(Attention(
        q=q, o=new.empty(queries * width, out_dtype), lse=new.empty(heads * queries), previousO=previous[0], previousLse=previous[1], blocks=(KvBlock * len(blocks))(*blocks),
        oScale=new.empty(queries * heads) if out_dtype == E4M3 else 0, workspace=new.empty(workspace) if workspace else 0, workspaceBytes=4 * workspace,
        qScale=q_scale, vScale=v_scale, qStride=width, oStride=width, queries=queries, heads=heads, headDim=dim, blockCount=len(blocks), dtype=E4M3, oDtype=out_dtype,
        kernel=kernel, scale=dim**-0.5)), 0)


def fp8_attentions(module, new):
    for dim, kernels in ((32, (1, 3)), (64, (1, 3)), (128, (1, 3)), (40, (1,))):
        for kernel in kernels:
            fp8_attention(module, new, 2, 193, [70, 129, 1], dim, kernel)
            fp8_attention(module, new, 1, 65, [300], dim, kernel, F32, merge=True)
            fp8_attention(module, new, 3, 257, [1024], dim, kernel)
            new.free()
        for out_dtype in (BF16, E4M3) if dim != 40 else ():
            fp8_attention(module, new, 2, 193, [2100], dim, 3, out_dtype, workspace=1 << 20)
            new.free()


def gemm(module, new, m, n, k, dtype, out_dtype, **more):
    scales = dict(aScale=new.normal(m), wScale=new.normal(n)) if dtype == E4M3 else {}
    more = dict(scales, **dict(dict(residual=new.normal(m * n)), **more))
    module.gemm(ctypes.byref(Gemm(
        a=new.normal(m * k, dtype), w=new.normal(n * k, dtype), bias=new.normal(n), out=new.empty(m * n, out_dtype), lda=k, ldw=k, ldo=n,
        ldResidual=n, m=m, n=n, k=k, batch=1, dtype=dtype, outDtype=out_dtype, biasDtype=F32, residualDtype=F32, alpha=1, **more)), 0)


def gemms(module, new):
    for m, n, k in ((77, 51, 33), (257, 264, 128), (129, 512, 256)):
        gemm(module, new, m, n, k, F32, F32)
        for activation in (IDENTITY, GELU, SILU):
            gemm(module, new, m, n, k, BF16, BF16, activation=activation)
        gemm(module, new, m, n, k, BF16, F32)
        gemm(module, new, m, n, k, BF16, F16, residual=0)
        new.free()
    for m, n, k in ((33, 64, 48), (257, 512, 512)):
        gemm(module, new, m, n, k, E4M3, BF16)
        gemm(module, new, m, n, k, E4M3, F32)
        gemm(module, new, m, n, k, E4M3, E4M3, residual=0, outScale=new.normal(m))
        gemm(module, new, m, n, k, E4M3, F16, residual=0)


def gemm_scales_of_blocks(module, new):
    for m, n, k in ((33, 64, 128), (257, 1536, 512)):
        gemm(module, new, m, n, k, E4M3, BF16, residual=0, aScale=new.normal(m * k // 128), aScaleColumns=128)
        gemm(module, new, m, n, k, E4M3, F32, aScale=new.normal(m * k // 128), aScaleColumns=128)


def gemm_tiles(module, new):
    """Each tile of sm_90 with gate and residual, and with an activation; one that does not take the arguments is passed over."""
    for tile in range(7):
        for dtype, out_dtype, more in ((BF16, F32, dict(gate=new.normal(512))), (E4M3, F32, dict(gate=new.normal(512))), (BF16, BF16, dict(activation=GELU)),
                                       (E4M3, BF16, dict(activation=GELU)), (BF16, F16, {}), (E4M3, F16, {}),
                                       (E4M3, E4M3, dict(activation=GELU, outScale=new.normal(300)))):
            more = dict(more) if out_dtype == F32 else dict(more, residual=0)
            for m, k in ((300, 256), (129, 1536)):
                try:
                    gemm(module, new, m, 512, k, dtype, out_dtype, kernel=2 + tile, **more)
                except RuntimeError as error:
                    if "does not take these arguments" not in str(error):
                        raise
        new.free()


def norms(module, new):
    for rows, columns in ((5, 512), (33, 1536), (7, 5120), (3, 72), (3, 8960)):
        for dtype in (F32, BF16):
            module.layer_norm(ctypes.byref(LayerNorm(
                x=new.normal(rows * columns), weight=new.normal(columns), bias=new.normal(columns), out=new.empty(rows * columns, dtype),
                quantized=new.empty(rows * columns, E4M3), quantizedScale=new.empty(rows), modScale=new.normal(columns), modShift=new.normal(columns), ldx=columns, ldo=columns,
                rows=rows, columns=columns, xDtype=F32, weightDtype=F32, outDtype=dtype, epsilon=1e-6)), 0)
            head = 8 if columns == 72 else 128
            module.rms_norm(ctypes.byref(RmsNorm(
                x=new.normal(rows * columns, dtype), weight=new.normal(columns), out=new.empty(rows * columns, dtype), rope=new.normal(rows * head), ldx=columns, ldo=columns,
                rows=rows, columns=columns, fullColumns=columns, headDim=head, xDtype=dtype, weightDtype=F32, outDtype=dtype, epsilon=1e-6)), 0)
            module.rms_norm(ctypes.byref(RmsNorm(
                x=new.normal(rows * columns, dtype), weight=new.normal(columns), quantized=new.empty(rows * columns, E4M3), quantizedScale=new.empty(rows * columns // head),
                rope=new.normal(rows * head), ldx=columns, rows=rows, columns=columns, fullColumns=columns, headDim=head, xDtype=dtype, weightDtype=F32, epsilon=1e-6)), 0)
            module.layer_norm(ctypes.byref(LayerNorm(
                x=new.normal(rows * columns, dtype), quantized=new.empty(rows * columns, E4M3), quantizedScale=new.empty(rows), bound=new.empty(rows),
                modScale=new.normal(columns), modShift=new.normal(columns), ldx=columns, rows=rows, columns=columns, xDtype=dtype, weightDtype=F32, epsilon=1e-6)), 0)
            module.rms_norm(ctypes.byref(RmsNorm(
                x=new.normal(rows * columns, dtype), weight=new.normal(columns), out=new.empty(2 * rows * columns, dtype), ldx=columns, ldo=columns, groupStride=4 * columns,
                rows=rows, columns=columns, fullColumns=columns, groupRows=2, xDtype=dtype, weightDtype=F32, outDtype=dtype, activation=SILU, epsilon=1e-6)), 0)
            module.row_sum_squares(new.empty(rows), new.normal(rows * columns, dtype), columns, rows, columns, dtype, 0)
            module.quantize_rows(new.empty(rows * columns, E4M3), new.empty(rows), new.normal(rows * columns, dtype), columns, rows, columns, dtype, 0)
            for narrow in (BF16, F16) if dtype == F32 else (BF16,):
                module.softmax_rows(new.empty(rows * columns, narrow), narrow, new.normal(rows * columns, dtype), dtype, rows, columns, 0.5, 0)
            module.transpose(new.empty(rows * columns, dtype), new.normal(rows * columns, dtype), 1, rows, columns, dtype, 0)
        new.free()


def elementwise(module, new):
    sources = (ctypes.c_uint64 * 2)
    for count, columns in ((4097, 241), (8192, 512)):
        rows = count // columns
        for dtype in (F32, BF16):
            x, y, out = (new.normal(count, dtype) for _ in range(3))
            module.activate(out, x, count, dtype, GELU, 0)
            module.add(out, x, y, count, dtype, 0)
            module.multiply(out, x, y, count, dtype, 0)
            module.sum(out, x, new.normal(columns, dtype), columns, sources(x, y), 2, rows * columns, dtype, dtype, 0)
            module.count_nonfinite(new.empty(1), x, count, dtype, 0)
            module.cast(new.empty(count), F32, x, dtype, count, 0)
            module.to_bytes(new.empty(count, E4M3), new.empty(1), x, dtype, count, 0)
            module.copy_2d(new.empty(rows * columns, dtype), columns * BYTES[dtype], x, columns * BYTES[dtype], (columns - 8) * BYTES[dtype], rows, 0)
            module.add_rows(out, x, y, new.normal(columns, dtype), rows, columns, dtype, 0)
            module.add_gated(new.empty(count), new.normal(count), F32, y, dtype, new.normal(columns), rows, columns, 0)
        module.combine(new.empty(count), sources(new.normal(count), new.normal(count)), (ctypes.c_float * 2)(1, 2), 2, count, 0)
        new.free()


def tokens(module, new):
    module.patchify(new.empty(30 * 12, BF16), BF16, new.normal(3 * 12 * 20), F32, 3, 12, 20, 2, 7, 30, 0)
    module.unpatchify(new.zeros(3 * 12 * 20), F32, new.normal(30 * 12, BF16), BF16, 3, 12, 20, 2, 7, 30, 0)
    module.patchify_video(new.empty(31 * 64, BF16), BF16, new.normal(16 * 3 * 6 * 10), F32, 16, 3, 6, 10, 2, 9, 31, 0)
    module.unpatchify_video(new.zeros(16 * 3 * 6 * 10), F32, new.normal(31 * 64), F32, 16, 3, 6, 10, 2, 9, 31, 0)
    module.sincos_embedding(new.empty(3 * 64), F32, new.normal(3), 3, 64, 0, 64, 0)
    module.sincos_2d(new.empty(17 * 64), F32, 9, 5, 17, 64, 0, 64, 0)
    module.rope_3d(new.empty(17 * 128), 3, 5, 11, 17, 128, 0)


def convolutions(module, new):
    # Channels, kernel, upsampling, frames and pixels; the last have fewer tiles than the device multiprocessors, so that blocks share them.
    shapes = ((16, 96, 3, 1, 2, 5, 7), (96, 96, 3, 2, 2, 5, 7), (33, 5, 1, 1, 2, 5, 7), (64, 3, 3, 1, 2, 17, 20), (128, 192, 3, 1, 1, 24, 40), (192, 200, 1, 1, 1, 9, 40))
    for dtype in (F32, BF16, F16):
        for inner, outer, kernel, upsample, frames, height, width in shapes:
            high, wide = height * upsample, width * upsample
            for chosen in (0, 2) if dtype != F32 and inner % 8 == 0 else (0,):
                module.conv3d(ctypes.byref(Conv3d(
                    x=new.normal(frames * height * width * inner, dtype), history=new.normal(max(kernel - 1, 1) * height * width * inner, dtype),
                    weight=new.normal(outer * kernel**3 * inner, dtype), bias=new.normal(outer, dtype), residual=new.normal(frames * high * wide * outer, dtype),
                    out=new.empty(frames * high * wide * outer, dtype), frames=frames, height=height, width=width, inChannels=inner, outChannels=outer, kernelT=kernel,
                    kernelH=kernel, kernelW=kernel, strideT=1, strideH=1, strideW=1, padTop=kernel // 2, padBottom=kernel // 2, padLeft=kernel // 2, padRight=kernel // 2,
                    upsample=upsample, dtype=dtype, kernel=chosen)), 0)
        new.free()


def decoding(module, new):
    """Every stored kind, by a kernel and through a reader, of rows cut in the middle of a block."""
    rows, columns, first, count = 3, 512, 37, 400
    kinds = {kind: (1, width) for kind, width in enumerate((4, 2, 2, 8, 1, 1, 1))}
    kinds |= {7 + i: (32, width) for i, width in enumerate((34, 18, 20, 22, 24, 18))} | {13 + i: (256, width) for i, width in enumerate((84, 110, 144, 176, 210, 136))}
    with tempfile.TemporaryFile() as file:
        file.write(bytes(rows * columns * 8))
        file.flush()
        reader = module.reader_open(2, 65536)
        for stored, (elements, width) in kinds.items():
            row_bytes = columns // elements * width
            for dtype in (F32, BF16, F16, E4M3):
                scales = {"outScale": new.empty(rows), "squares": new.empty(rows)} if dtype == E4M3 else {}
                args = Decode(out=new.empty(rows * count, dtype), rows=rows, columns=count, firstColumn=first, rowBytes=row_bytes, ldo=count, stored=stored, outDtype=dtype, scaleRows=1, **scales)
                ticket = module.reader_submit(reader, file.fileno(), 0, ctypes.byref(args), (ctypes.c_float * rows)(1, 2, 3), rows, 0)
                module.reader_wait(reader, ticket, 0)
                args.x, args.scale = new.zeros(rows * row_bytes // 4), new.normal(rows)
                module.decode(ctypes.byref(args), 0)
                module.stream_synchronize(0)
        module.reader_close(reader)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--only", help="run only the parts whose name contains this")
    options = parser.parse_args()
    module = Module(options.module)
    module.device_open(0)
    new = Buffers(module)
    failed = 0
    for part in (attentions, fp8_attentions, gemms, gemm_scales_of_blocks, gemm_tiles, norms, elementwise, tokens, convolutions, decoding):
        if options.only and options.only not in part.__name__:
            continue
        try:
            part(module, new)
            new.free()
            print(f"{part.__name__}: ran", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{part.__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
