"""The DiT benchmark on one GPU: ditrun against PyTorch, speed and accuracy, in one run.

    python3 bench/dit_vs_pytorch.py [--model dit] [--compile] [--json FILE]

PyTorch runs the same model on the same random weights: bf16, cuDNN attention, eager and (with --compile) torch.compile.
Errors of both are taken against PyTorch in float32 on those weights. Prints a row as soon as it is measured; speed-ups of ditrun
are over PyTorch's last row.
"""
import argparse
import json
import math
import os
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from beside_pytorch import ditrun, error_of, median_ms

SIZES = {
    "dit": dict(img_size=2048, patch_size=8, in_c=4, d=512, depth=28, heads=16, n_cls=1000),
    "dit-1k": dict(img_size=256, patch_size=8, in_c=4, d=512, depth=28, heads=16, n_cls=1000),
}


def embed(positions, width):
    half = width // 2
    angles = positions[:, None].double() * torch.exp(-math.log(10000) * torch.arange(half, device=positions.device).double() / half)
    return torch.cat([angles.sin(), angles.cos()], 1).float()


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = Attention(d, heads)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        x = x + self.attn(self.n1(x))
        return x + self.mlp(self.n2(x))


class DiT(nn.Module):
    def __init__(self, img_size, patch_size, in_c, d, depth, heads, n_cls):
        super().__init__()
        self.p, self.c, self.d, self.g = patch_size, in_c, d, img_size // patch_size
        self.patch = nn.ModuleDict({"proj": nn.Conv2d(in_c, d, patch_size, patch_size)})
        self.time = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))})
        self.label = nn.ModuleDict({"table": nn.Embedding(n_cls + 1, d)})
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, patch_size**2 * in_c)
        index = torch.arange(self.g)
        rows, columns = torch.meshgrid(index, index, indexing="ij")
        self.register_buffer("pos", torch.cat([embed(rows.flatten(), d // 2), embed(columns.flatten(), d // 2)], 1), persistent=False)

    def forward(self, img, t, y):
        dtype = self.head.weight.dtype
        x = self.patch["proj"](img.to(dtype)).flatten(2).transpose(1, 2)
        x = x + self.pos.to(dtype) + (self.time["mlp"](embed(t, self.d).to(dtype)) + self.label["table"](y))[:, None]
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm(x))
        g, p, c = self.g, self.p, self.c
        return x.reshape(-1, g, g, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(-1, c, g * p, g * p)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dit", choices=SIZES)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    sizes = SIZES[options.model]
    rows, theirs = [], []
    print(f"{options.model} on {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print(f"{'':36} {'ms':>9} {'speed-up':>9} {'mean abs':>10} {'max abs':>10} {'rel L2':>10}   (errors against PyTorch float32)", flush=True)

    def row(name, ms, error):
        rows.append({"name": name, "ms": ms, **{key: error[key] for key in ("meanAbs", "maxAbs", "relL2")}})
        time = f"{ms:9.2f}" if ms else f"{'':9}"
        ratio = f"{theirs[-1] / ms:8.2f}x" if ms and theirs else f"{'':9}"
        print(f"{name:36} {time} {ratio} {error['meanAbs']:10.2e} {error['maxAbs']:10.2e} {error['relL2']:10.2e}", flush=True)

    with torch.no_grad(), sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]), tempfile.TemporaryDirectory() as folder:
        model = DiT(**sizes).cuda().eval()
        case = {"img": torch.randn(1, sizes["in_c"], sizes["img_size"], sizes["img_size"]),
                "t": torch.rand(1) * 1000, "y": torch.randint(sizes["n_cls"], (1,))}
        inputs = [value.cuda() for value in case.values()]
        reference = model(*inputs).cpu()
        json.dump(sizes, open(os.path.join(folder, "config.json"), "w"))
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, os.path.join(folder, "model.safetensors"))
        case_file = os.path.join(folder, "case.safetensors")
        save_file({**case, "output": reference.contiguous()}, case_file)

        model = model.bfloat16()
        for name in ["PyTorch bf16, eager, cuDNN", "PyTorch bf16, torch.compile, cuDNN"][: 2 if options.compile else 1]:
            run = torch.compile(model) if "compile" in name else model
            ms = median_ms(lambda: run(*inputs), 5)
            row(name, ms, error_of(run(*inputs).float().cpu(), reference))
            theirs.append(ms)
        del model, run
        torch.cuda.empty_cache()
        checked = ("accuracy", "--weights", folder, "--reference", case_file)
        for name, flags in (("ditrun bf16", ["--plan", "single"]), ("ditrun bf16, attention fp16", ["--plan", "single-fp16"]), ("ditrun fp8", ["--plan", "single-fp8"])):
            profile = ditrun(*flags, "--model", options.model, "profile")
            row(name, profile["latencyMs"]["median"], ditrun(*flags, *checked)["results"][0])
        row("ditrun fp32", None, ditrun("--plan", "single", "--dtype", "fp32", *checked)["results"][0])

    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


main()
