"""Times ditrun's GEMM beside cuBLASLt and PyTorch, in one run on one GPU, at the shapes of the two models.

    python3 bench/gemm.py build/libditrun_cuda.so [--only TEXT] [--tiles 0,3] [--json out.json]

Columns: PyTorch (torch.nn.functional.linear or torch._scaled_mm with scales per row and column, then what it takes to do the rest),
ditrun through cuBLASLt (kernel 1), and each sm_90 tile that takes the arguments (kernel 2 + i; a * marks ditrun's own choice). Microseconds,
medians over rounds in which the candidates take turns, several calls in a row each. Relative L2 errors are against float64 on the
same inputs, over 256 of the rows; inputs are random and e4m3 operands have one scale a row.
"""
import argparse
import json
import os
import statistics
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "gpu"))
from check_operators import ACTIVATIONS, gemm_args, relative  # noqa: E402
from ditrun_abi import GELU, GELU_TANH, IDENTITY, Module  # noqa: E402

TILES = 6
FLOAT, HALF = torch.float32, torch.bfloat16
# name, batch, m, n, k, output, activation, residual in place, gate
SHAPES = [
    ("DiT qkv", 3, 65536, 512, 512, HALF, IDENTITY, False, False),
    ("DiT out", 1, 65536, 512, 512, FLOAT, IDENTITY, True, False),
    ("DiT mlp 1", 1, 65536, 2048, 512, HALF, GELU, False, False),
    ("DiT mlp 2", 1, 65536, 512, 2048, FLOAT, IDENTITY, True, False),
    ("plain", 1, 65536, 1536, 512, HALF, IDENTITY, False, False),
    ("DiT qkv cp4 tp2", 3, 16384, 256, 512, HALF, IDENTITY, False, False),
    ("DiT mlp 1 cp4 tp2", 1, 16384, 1024, 512, HALF, GELU, False, False),
    ("DiT qkv cp8", 3, 8192, 512, 512, HALF, IDENTITY, False, False),
    ("Wan qkv", 3, 32760, 1536, 1536, HALF, IDENTITY, False, False),
    ("Wan q", 1, 32760, 1536, 1536, HALF, IDENTITY, False, False),
    ("Wan out", 1, 32760, 1536, 1536, FLOAT, IDENTITY, True, True),
    ("Wan cross out", 1, 32760, 1536, 1536, FLOAT, IDENTITY, True, False),
    ("Wan ffn 1", 1, 32760, 8960, 1536, HALF, GELU_TANH, False, False),
    ("Wan ffn 2", 1, 32760, 1536, 8960, FLOAT, IDENTITY, True, True),
    ("plain, long k", 1, 32760, 1536, 8960, HALF, IDENTITY, False, False),
    ("Wan qkv cp4", 3, 8190, 1536, 1536, HALF, IDENTITY, False, False),
    ("Wan ffn 1 cp8", 1, 4095, 8960, 1536, HALF, GELU_TANH, False, False),
    ("Wan ffn 2 cp8", 1, 4095, 1536, 8960, FLOAT, IDENTITY, True, True),
    ("Wan ffn 1 cp4 tp2", 1, 8190, 4480, 1536, HALF, GELU_TANH, False, False),
    ("Wan ffn 2 cp4 tp2", 1, 8190, 1536, 4480, HALF, IDENTITY, False, False),
    ("large", 1, 8192, 8192, 8192, HALF, IDENTITY, False, False),
]


def random(*shape, dtype=FLOAT, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def quantized(x):
    scale = x.abs().amax(-1) / 448
    return (x / scale[..., None]).to(torch.float8_e4m3fn), scale


class Case:
    def __init__(self, shape, fp8):
        self.name, self.batch, self.m, self.n, self.k, self.dtype, self.activation, self.in_place, gated = shape
        b, m, n, k = self.batch, self.m, self.n, self.k
        a, w = random(m, k), random(b, n, k, scale=k**-0.5)
        self.scales = {}
        if fp8:
            a, self.aScale = quantized(a)
            w, self.wScale = quantized(w)
            self.scales = dict(aScale=self.aScale, wScale=self.wScale)
        self.fp8, self.a, self.w = fp8, a if fp8 else a.to(HALF), w if fp8 else w.to(HALF)
        self.bias = random(b, n, dtype=self.dtype)
        self.gate = random(n) if gated else None
        self.residual = random(b, m, n, dtype=self.dtype) if self.in_place else None
        self.out = torch.full((b, m, n), float("nan"), device="cuda", dtype=self.dtype)
        self.work = 2.0 * b * m * n * k

    def call(self, module, kernel, out):
        residual = out if self.in_place else None
        a = self.a.expand(self.batch, self.m, self.k)
        args = gemm_args(a, self.w, out, self.bias, residual, self.activation, gate=self.gate, kernel=kernel, **self.scales)
        stream = torch.cuda.current_stream().cuda_stream
        return lambda: module.gemm(args, stream)

    def torch_call(self):
        functional = torch.nn.functional
        w, bias = self.w.reshape(-1, self.k), self.bias.reshape(-1).to(HALF)
        rows, columns = (self.aScale[:, None], self.wScale.reshape(1, -1)) if self.fp8 else (None, None)

        def call():
            if self.fp8:
                y = torch._scaled_mm(self.a, w.t(), scale_a=rows, scale_b=columns, bias=bias, out_dtype=HALF, use_fast_accum=True)
            else:
                y = functional.linear(self.a, w, bias)
            if self.activation != IDENTITY:
                y = functional.gelu(y, approximate="tanh" if self.activation == GELU_TANH else "none")
            if self.in_place and self.gate is not None:
                return torch.addcmul(self.residual[0], y.float(), self.gate)
            return self.residual[0] + y if self.in_place else y
        return call

    def error(self, out, fresh):
        rows = torch.randperm(self.m, device="cuda")[:256]
        rows[0], rows[1] = 0, self.m - 1
        expected = self.a[rows].double() @ self.w.double().mT
        if self.fp8:
            expected = expected * self.aScale[rows].double()[:, None] * self.wScale.double()[:, None]
        expected = ACTIVATIONS[self.activation](expected + self.bias.double()[:, None])
        if self.gate is not None:
            expected = expected * self.gate.double()
        if fresh is not None:
            expected = expected + fresh[:, rows].double()
        return relative(out[:, rows], expected)


def run(module, shape, fp8, tiles, rounds, calls):
    case = Case(shape, fp8)
    candidates, errors = {"torch": case.torch_call()}, {}
    names = {"cuBLASLt": 1, **{f"tile {i}": 2 + i for i in tiles}}
    for name, kernel in names.items():
        out = case.residual.clone() if case.in_place else case.out.fill_(float("nan"))
        call = case.call(module, kernel, out)
        try:
            call()
        except RuntimeError as refused:
            if kernel == 1:
                print(refused)
            continue
        torch.cuda.synchronize()
        errors[name] = case.error(out, case.residual)
        candidates[name] = call
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            call()
            start.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end) * 1e3 / calls)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in medians if name != "torch"), key=medians.get)
    cells = "  ".join(f"{name} {value:.0f}" + (f" ({errors[name]:.2e})" if name in errors else "") for name, value in medians.items())
    title = f"{'e4m3' if fp8 else 'bf16'} {case.name} {case.batch}x{case.m}x{case.n}x{case.k}"
    print(f"{title:44s} {cells} | best {best} {case.work / medians[best] / 1e6:.0f} TF/s", flush=True)
    return {"case": title, "us": medians, "error": errors}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--only", default="", help="run only the cases whose title contains this")
    parser.add_argument("--tiles", default=",".join(map(str, range(TILES))))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--json")
    options = parser.parse_args()
    module = Module(os.path.abspath(options.module))
    module.device_open(0)
    tiles = [int(tile) for tile in options.tiles.split(",") if tile]
    results = []
    for fp8 in (False, True):
        for shape in SHAPES:
            if options.only in f"{'e4m3' if fp8 else 'bf16'} {shape[0]} {shape[1]}x{shape[2]}x{shape[3]}x{shape[4]}":
                results.append(run(module, shape, fp8, tiles, options.rounds, options.calls))
                torch.cuda.empty_cache()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
