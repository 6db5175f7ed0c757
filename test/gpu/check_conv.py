#!/usr/bin/env python3
"""Checks the convolution, transpose and row softmax of libditrun_cuda.so against PyTorch, and times the convolutions of Wan's VAE.

    python3 test/gpu/check_conv.py build/libditrun_cuda.so [--no-bench]

Prints a table and exits 1 when a check fails. The reference is float64; the time beside ours is cuDNN's on the same data in
the same run. Needs PyTorch with CUDA.
"""
import argparse
import ctypes
import os
import sys

import torch

from bench_kernels import median_ms
from ditrun_abi import BF16, F16, F32, Conv3d, Module

AUTOMATIC, GENERIC, SM80 = 0, 1, 2
KERNEL = {AUTOMATIC: "chosen", GENERIC: "generic", SM80: "sm80"}
CODE = {torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16}
SHORT = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Relative L2 error: float32 sums against float64; one rounding to bf16 (2^-9 at most) or f16 (2^-12).
LIMIT = {torch.float32: 2e-6, torch.bfloat16: 2.3e-3, torch.float16: 2.9e-4}
failed = []


def report(name, error, limit):
    """One line of the table; NaN never passes."""
    passed = error <= limit
    if not passed:
        failed.append(name)
    print(f"{'ok  ' if passed else 'FAIL'} {name:76s} {error:10.3g} (limit {limit:g})", flush=True)


def relative(out, reference):
    return float((out.double() - reference).norm() / reference.norm())


def random(*shape, dtype):
    return torch.randn(*shape, device="cuda").to(dtype)


class Case:
    """Tensors of one convolution, channels last: x [frames, height, width, channels], weight [out, kt, kh, kw, in]."""

    def __init__(self, frames, height, width, inChannels, outChannels, kernel, stride=(1, 1, 1), pad=(1, 1, 1, 1), upsample=1, history=True,
                 residual=False, dtype=torch.bfloat16):
        self.kernel, self.stride, self.pad, self.upsample, self.dtype = kernel, stride, pad, upsample, dtype
        self.x = random(frames, height, width, inChannels, dtype=dtype)
        # Where the kernel has one frame an address is given too; nothing is read there.
        self.history = random(max(kernel[0] - 1, 1), height, width, inChannels, dtype=dtype) if history else None
        depth = kernel[0] * kernel[1] * kernel[2] * inChannels
        self.weight = (torch.randn(outChannels, *kernel, inChannels, device="cuda") / depth**0.5).to(dtype)
        self.bias = random(outChannels, dtype=dtype)
        self.out_shape = ((frames - 1) // stride[0] + 1, (upsample * height + pad[0] + pad[1] - kernel[1]) // stride[1] + 1,
                          (upsample * width + pad[2] + pad[3] - kernel[2]) // stride[2] + 1, outChannels)
        self.out = torch.full(self.out_shape, float("nan"), device="cuda", dtype=dtype)
        self.residual = random(*self.out_shape, dtype=dtype) if residual else None
        self.flops = 2 * depth * self.out.numel()

    def tensor_cores(self):
        """Whether the kernels on the tensor cores take it."""
        _, kh, kw = self.kernel
        return (self.dtype != torch.float32 and kh == kw and (kh == 3 or (kh == 1 and self.upsample == 1)) and self.stride[1:] == (1, 1) and
                self.x.shape[3] % 8 == 0)

    def run(self, module, stream=0, kernel=AUTOMATIC):
        address = lambda tensor: 0 if tensor is None else tensor.data_ptr()
        frames, height, width, channels = self.x.shape
        kt, kh, kw = self.kernel
        args = Conv3d(x=address(self.x), history=address(self.history), weight=address(self.weight), bias=address(self.bias), residual=address(self.residual),
                      out=address(self.out), frames=frames, height=height, width=width, inChannels=channels, outChannels=self.weight.shape[0], kernelT=kt,
                      kernelH=kh, kernelW=kw, strideT=self.stride[0], strideH=self.stride[1], strideW=self.stride[2], padTop=self.pad[0], padBottom=self.pad[1],
                      padLeft=self.pad[2], padRight=self.pad[3], upsample=self.upsample, dtype=CODE[self.dtype], kernel=kernel)
        module.conv3d(ctypes.byref(args), stream)

    def reference(self, dtype=torch.float64):
        functional = torch.nn.functional
        before = self.history[:self.kernel[0] - 1] if self.history is not None else torch.zeros(self.kernel[0] - 1, *self.x.shape[1:], device="cuda", dtype=self.dtype)
        x = torch.cat([before, self.x]).to(dtype).permute(3, 0, 1, 2)[None]
        if self.upsample == 2:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
        top, bottom, left, right = self.pad
        x = functional.pad(x, (left, right, top, bottom, 0, 0))
        y = functional.conv3d(x, self.weight.to(dtype).permute(0, 4, 1, 2, 3), self.bias.to(dtype), self.stride)[0].permute(1, 2, 3, 0)
        return y if self.residual is None else y + self.residual.to(dtype)


def convolutions(f32=torch.float32):
    """The arguments of a Case by name; dtype is bf16 or f16 where it is not said."""
    case = lambda *shape, **options: (shape, options)
    return {
        "3x3x3 96 -> 96, history, residual": case(2, 33, 50, 96, 96, (3, 3, 3), residual=True),
        "3x3x3 192 -> 192, many tiles a block": case(3, 100, 130, 192, 192, (3, 3, 3)),
        "3x3x3 384 -> 384, one frame, no history": case(1, 20, 26, 384, 384, (3, 3, 3), history=False),
        "3x3x3 192 -> 384, no history, later frames": case(4, 17, 19, 192, 384, (3, 3, 3), history=False),
        "3x3x3 384 -> 384, tiles divided among 2 blocks": case(1, 32, 104, 384, 384, (3, 3, 3), pad=(0, 0, 1, 1), residual=True),
        "3x3x3 384 -> 384, tiles divided among 4 blocks": case(1, 15, 104, 384, 384, (3, 3, 3), residual=True),
        "3x3x3 384 -> 104, whole tiles and divided ones": case(2, 72, 208, 384, 104, (3, 3, 3)),
        "3x3x3 192 -> 192, flat tiles, no history": case(4, 120, 209, 192, 192, (3, 3, 3), history=False, residual=True),
        "3x3x3 64 -> 20, flat tiles divided": case(1, 24, 300, 64, 20, (3, 3, 3), history=False),
        "upsample 384 -> 192, divided, between neighbours' rows": case(1, 18, 52, 384, 192, (1, 3, 3), upsample=2, pad=(-1, -1, 1, 1)),
        "time 3x1x1 384 -> 768, divided": case(1, 16, 52, 384, 768, (3, 1, 1), pad=(0, 0, 0, 0)),
        "3x3x3 between neighbours' rows": case(4, 12, 40, 96, 96, (3, 3, 3), pad=(0, 0, 1, 1), residual=True),
        "3x3x3 16 -> 384": case(1, 60, 104, 16, 384, (3, 3, 3)),
        "3x3x3 96 -> 3 (few channels)": case(4, 40, 70, 96, 3, (3, 3, 3)),
        "3x3x3 40 -> 104 (no round numbers)": case(2, 18, 21, 40, 104, (3, 3, 3)),
        "3x3x3 8 -> 16": case(2, 18, 21, 8, 16, (3, 3, 3), residual=True),
        "upsample 384 -> 192": case(2, 15, 26, 384, 192, (1, 3, 3), upsample=2),
        "upsample between neighbours' rows": case(2, 17, 26, 192, 96, (1, 3, 3), upsample=2, pad=(-1, -1, 1, 1)),
        "upsample, a neighbour above alone": case(1, 17, 26, 192, 96, (1, 3, 3), upsample=2, pad=(-1, 1, 1, 1)),
        "time 3x1x1 384 -> 768": case(2, 20, 26, 384, 768, (3, 1, 1), pad=(0, 0, 0, 0)),
        "time 3x1x1, stride 2": case(3, 20, 26, 192, 192, (3, 1, 1), stride=(2, 1, 1), pad=(0, 0, 0, 0)),
        "1x1x1 192 -> 384": case(1, 20, 26, 192, 384, (1, 1, 1), pad=(0, 0, 0, 0)),
        "stride 2 in space": case(2, 32, 48, 96, 96, (1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 0, 1)),
        "3 -> 96": case(1, 33, 50, 3, 96, (3, 3, 3)),
        "3x3x3 f32": case(2, 17, 23, 32, 48, (3, 3, 3), residual=True, dtype=f32),
        "upsample f32": case(1, 9, 11, 20, 12, (1, 3, 3), upsample=2, dtype=f32),
        "stride 2 in space f32": case(2, 16, 20, 12, 20, (1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 0, 1), dtype=f32),
    }


def check_convolutions(module):
    cases = [(name, Case(*shape, **{"dtype": dtype, **options})) for name, (shape, options) in convolutions().items()
             for dtype in ((torch.bfloat16, torch.float16) if "dtype" not in options else (options["dtype"],))]
    for name, case in cases:
        reference = case.reference()
        for kernel in (AUTOMATIC, GENERIC, SM80) if case.tensor_cores() else (AUTOMATIC,):
            # More than once: a race shows itself only now and then.
            errors = []
            for _ in range(1 if kernel == GENERIC else 5):
                case.out.fill_(float("nan"))
                case.run(module, kernel=kernel)
                torch.cuda.synchronize()
                errors.append(relative(case.out, reference))
            worst = max(errors, key=lambda error: (error != error, error))
            report(f"conv3d {SHORT[case.dtype]} {KERNEL[kernel]} {name}", worst, LIMIT[case.dtype])


def check_overflow(module):
    """What f16 cannot hold becomes infinite, in every kernel, and only that; sums in between may be larger."""
    for name, shape, options in (("96 -> 96", (2, 33, 50, 96, 96, (3, 3, 3)), {"residual": True}), ("96 -> 3", (1, 20, 30, 96, 3, (3, 3, 3)), {}),
                                 ("384 -> 384, divided", (1, 15, 104, 384, 384, (3, 3, 3)), {}), ("upsample 192 -> 96", (1, 17, 26, 192, 96, (1, 3, 3)), {"upsample": 2})):
        case = Case(*shape, dtype=torch.float16, **options)
        case.weight *= 64
        case.x *= 512
        reference = case.reference()
        for kernel in (AUTOMATIC, GENERIC, SM80):
            case.out.fill_(float("nan"))
            case.run(module, kernel=kernel)
            torch.cuda.synchronize()
            out, large = case.out, reference.abs()
            wrong = (out.isinf() & (large < 65500)) | (out.isfinite() & (large > 65540)) | (out.isinf() & (out.sign() != reference.sign())) | out.isnan()
            report(f"conv3d f16 {KERNEL[kernel]} {name}, overflow", float(wrong.sum()) + (0 if out.isinf().any() and out.isfinite().any() else 1), 0)


def check_others(module):
    for dtype, narrow in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float16), (torch.float16, torch.float16)):
        for batch, rows, columns in ((1, 6240, 384), (3, 37, 65), (96, 96, 27)):
            x, out = random(batch, rows, columns, dtype=dtype), torch.full((batch, columns, rows), float("nan"), device="cuda", dtype=dtype)
            module.transpose(out.data_ptr(), x.data_ptr(), batch, rows, columns, CODE[dtype], 0)
            torch.cuda.synchronize()
            report(f"transpose {dtype} {batch}x{rows}x{columns}", 0 if torch.equal(out, x.transpose(1, 2)) else 1, 0)
        for rows, columns in ((6240, 6240), (5, 131), (3, 8)):
            x = random(rows, columns, dtype=dtype) * 30
            expected = torch.softmax(x.double() * 0.7, -1)
            rounded = torch.full((rows, columns), float("nan"), device="cuda", dtype=narrow)
            module.softmax_rows(rounded.data_ptr(), CODE[narrow], x.data_ptr(), CODE[dtype], rows, columns, 0.7, 0)
            module.softmax_rows(x.data_ptr(), CODE[dtype], x.data_ptr(), CODE[dtype], rows, columns, 0.7, 0)
            torch.cuda.synchronize()
            report(f"softmax_rows {dtype} to {SHORT[narrow]} {rows}x{columns}", 0 if torch.equal(rounded, x.to(narrow)) else 1, 0)
            # e^x of large arguments through 2^x: a few units in the last place of the argument.
            report(f"softmax_rows {dtype} {rows}x{columns}", relative(x, expected), 1e-5 if dtype == torch.float32 else LIMIT[dtype])


def bench(module, dtype):
    """Every convolution of a decode of 832 × 480 × 81 with how often it runs: 21 chunks, the first of one frame (counted as a whole one)."""
    functional = torch.nn.functional
    layers = [
        ("60x104   16 -> 384", 1, (1, 60, 104, 16, 384, (3, 3, 3)), {}),
        ("60x104  384 -> 384", 10, (1, 60, 104, 384, 384, (3, 3, 3)), {"residual": True}),
        ("60x104  time 384 -> 768", 1, (1, 60, 104, 384, 768, (3, 1, 1)), {"pad": (0, 0, 0, 0)}),
        ("60x104  up 384 -> 192", 1, (2, 60, 104, 384, 192, (1, 3, 3)), {"upsample": 2}),
        ("120x208 192 -> 384", 1, (2, 120, 208, 192, 384, (3, 3, 3)), {}),
        ("120x208 384 -> 384", 5, (2, 120, 208, 384, 384, (3, 3, 3)), {"residual": True}),
        ("120x208 time 384 -> 768", 1, (2, 120, 208, 384, 768, (3, 1, 1)), {"pad": (0, 0, 0, 0)}),
        ("120x208 up 384 -> 192", 1, (4, 120, 208, 384, 192, (1, 3, 3)), {"upsample": 2}),
        ("240x416 192 -> 192", 6, (4, 240, 416, 192, 192, (3, 3, 3)), {"residual": True}),
        ("240x416 up 192 -> 96", 1, (4, 240, 416, 192, 96, (1, 3, 3)), {"upsample": 2}),
        ("480x832  96 -> 96", 6, (4, 480, 832, 96, 96, (3, 3, 3)), {"residual": True}),
        ("480x832  96 -> 3", 1, (4, 480, 832, 96, 3, (3, 3, 3)), {}),
    ]
    print(f"--- bench, {SHORT[dtype]}; ratio above 1: faster than cuDNN (channels last)")
    total = 0.0
    for name, count, shape, options in layers:
        case = Case(*shape, dtype=dtype, **options)
        ours = median_ms(lambda: case.run(module), 10)
        before = case.history[:case.kernel[0] - 1]
        x = torch.cat([before, case.x]).permute(3, 0, 1, 2)[None]
        if case.upsample == 2:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        weight = case.weight.permute(0, 4, 1, 2, 3).contiguous(memory_format=torch.channels_last_3d)
        padding = (0, 1, 1) if case.kernel[1] == 3 else 0
        theirs = median_ms(lambda: functional.conv3d(x, weight, case.bias, 1, padding), 10)
        total += count * ours
        print(f"conv3d {name:26s} {ours * 1e3:9.1f} us {case.flops / ours / 1e9:7.1f} TF/s | cuDNN {theirs * 1e3:9.1f} us | ratio {theirs / ours:5.2f} | {count} a chunk", flush=True)
    print(f"all convolutions of a decode, {SHORT[dtype]}: {total * 21:.0f} ms")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--no-bench", action="store_true")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module = Module(os.path.abspath(options.module))
    module.device_open(0)
    check_convolutions(module)
    check_overflow(module)
    check_others(module)
    if not options.no_bench:
        bench(module, torch.bfloat16)
        bench(module, torch.float16)
    if failed:
        print(f"{len(failed)} checks failed: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
