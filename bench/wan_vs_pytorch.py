"""One forward of Wan 2.1's transformer on one GPU: ditrun against PyTorch, speed and accuracy, in one run.

    python3 bench/wan_vs_pytorch.py [--model 1.4B] [--size 832*480] [--frames 81] [--compile] [--ditrun-fp32] [--times-only] [--json FILE]

PyTorch runs the published architecture (Wan2.1, wan/modules/model.py) on the same random weights, latent and text: linear layers in
bf16, residual stream and time step in float32, cuDNN attention, rotary embedding in float32 (the published code's is complex
float64, and slower), eager and (with --compile) each block compiled. Errors are against PyTorch in float32 on those weights.
Weights, latent and text are ditrun's own, made by name and seed through its kernel module. Prints a row as soon as it is measured. --times-only spares the float32 forward, which
takes the 14B model's memory twice and minutes.
"""
import argparse
import ctypes
import json
import os
import sys
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from beside_pytorch import ROOT, ditrun, error_of, median_ms

TEXT_LENGTH, FREQUENCIES, CHANNELS, PATCH, EPSILON, SEED, TIME = 512, 256, 16, 2, 1e-6, 0, 500.0
SIZES = {  # configs/models; 1.4B is wan-1.3b
    "1.4B": dict(width=1536, ffn=8960, heads=12, layers=30, text=4096),
    "14B": dict(width=5120, ffn=13824, heads=40, layers=40, text=4096),
    "wan-slice": dict(width=1536, ffn=8960, heads=12, layers=2, text=512),
    "wan-tiny": dict(width=128, ffn=384, heads=4, layers=6, text=64),
}


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x):
        h = x.float()
        return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype) * self.weight.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RmsNorm(width), RmsNorm(width)

    def forward(self, x, context, rope=None):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(self.norm_q(self.q(x))), split(self.norm_k(self.k(context))), split(self.v(context))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def rotate(x, rope):
    """Each adjacent pair of a head's channels turned by its angle; rope [2, 1, 1, tokens, headDim / 2] are cos and sin."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width, ffn, heads):
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads)
        self.norm3 = nn.LayerNorm(width, EPSILON)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, width))
        self.modulation = nn.Parameter(torch.empty(1, 6, width))

    def forward(self, x, e, context, rope):
        """x float32 [1, tokens, width]; e float32 [1, 6, width]."""
        e = (self.modulation + e).unbind(1)
        dtype = context.dtype
        norm = lambda x, shift, scale: (F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift).to(dtype)
        h = norm(x, e[0], e[1])
        x = x + self.self_attn(h, h, rope) * e[2]
        x = x + self.cross_attn(self.norm3(x).to(dtype), context)
        return x + self.ffn(norm(x, e[3], e[4])) * e[5]


class Head(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.head = nn.Linear(width, out)
        self.modulation = nn.Parameter(torch.empty(1, 2, width))

    def forward(self, x, e):
        shift, scale = (self.modulation + e[:, None]).unbind(1)
        return self.head(F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift)


class Wan(nn.Module):
    def __init__(self, width, ffn, heads, layers, text):
        super().__init__()
        self.head_dim = width // heads
        self.patch_embedding = nn.Conv3d(CHANNELS, width, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.text_embedding = nn.Sequential(nn.Linear(text, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.time_embedding = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, ffn, heads) for _ in range(layers))
        self.head = Head(width, CHANNELS * PATCH**2)

    def lower(self, dtype):
        """Linear layers of the blocks, and the patch and text embeddings, in dtype; the rest stays float32."""
        self.patch_embedding.to(dtype)
        self.text_embedding.to(dtype)
        for block in self.blocks:
            for part in (block.self_attn, block.cross_attn, block.ffn):
                for layer in part.modules():
                    if isinstance(layer, nn.Linear):
                        layer.to(dtype)
        return self

    def embed_text(self, text):
        return self.text_embedding(text.to(self.text_embedding[0].weight.dtype)[None])

    def rope(self, frames, height, width):
        """cos and sin [2, 1, 1, tokens, headDim / 2]: shares of the pairs turn with frame, row and column."""
        pairs = self.head_dim // 2
        shares = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
        grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (frames, height, width)), indexing="ij")
        angles = [position.flatten()[:, None] * 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n) for position, n in zip(grid, shares)]
        angles = torch.cat(angles, 1)[None, None]
        return torch.stack([angles.cos(), angles.sin()]).float().to(self.head.modulation.device)

    def forward(self, latent, t, context, rope):
        """latent float32 [channels, frames, height, width], t [1], context as embed_text gives it -> like latent."""
        x = self.patch_embedding(latent[None].to(self.patch_embedding.weight.dtype))
        frames, height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).float()
        angles = t.double()[:, None] * 10000.0 ** (-torch.arange(FREQUENCIES // 2, device=t.device, dtype=torch.float64) / (FREQUENCIES // 2))
        e = self.time_embedding(torch.cat([angles.cos(), angles.sin()], 1).float())
        six = self.time_projection(e).unflatten(1, (6, -1))
        for block in self.blocks:
            x = block(x, six, context, rope)
        x = self.head(x, e)[0].reshape(frames, height, width, PATCH, PATCH, CHANNELS)
        return x.permute(5, 0, 1, 3, 2, 4).reshape(CHANNELS, frames, height * PATCH, width * PATCH)


class RandomArguments(ctypes.Structure):
    _fields_ = [("out", ctypes.c_uint64), ("seed", ctypes.c_uint64)] + [(name, ctypes.c_int64) for name in ("row0", "column0", "fullColumns", "ldo")] + [
        ("rows", ctypes.c_int32), ("columns", ctypes.c_int32), ("tensorId", ctypes.c_uint32), ("distribution", ctypes.c_int32),
        ("amplitude", ctypes.c_float), ("offset", ctypes.c_float), ("outDtype", ctypes.c_int32), ("reserved", ctypes.c_int32)]


def fill(model, inputs, library):
    """Gives every parameter, and the inputs by name, the values that `ditrun wan profile` gives those of the same name."""
    kernels = ctypes.CDLL(os.path.abspath(library))
    kernels.ditrun_last_error.restype = ctypes.c_char_p

    def call(name, *arguments):
        if getattr(kernels, f"ditrun_{name}")(*arguments) != 0:
            sys.exit(f"ditrun_{name} of {library} failed: {kernels.ditrun_last_error().decode()}")

    stream = ctypes.c_uint64()
    call("device_open", 0)
    call("stream_create", 0, ctypes.byref(stream))
    for name, parameter in [*model.named_parameters(), *inputs.items()]:
        module = model.get_submodule(name.rpartition(".")[0])
        bound, distribution, offset = 0.0, 0, 0.0
        rows = parameter.shape[0]
        if name in inputs:
            bound, distribution, rows = 1.0, 1, parameter.numel() // parameter.shape[-1]
        elif name.endswith("modulation"):
            bound, distribution = parameter.shape[-1] ** -0.5, 1
        elif isinstance(module, (nn.Linear, nn.Conv3d)):
            bound = module.weight[0].numel() ** -0.5
        else:
            offset = float(name.endswith("weight"))
        identity = 0x811C9DC5
        for byte in name.encode():
            identity = (identity ^ byte) * 0x01000193 & 0xFFFFFFFF
        columns = parameter.numel() // rows
        arguments = RandomArguments(parameter.data_ptr(), SEED, 0, 0, columns, columns, rows, columns, identity, distribution, bound, offset, 0, 0)
        call("fill_random", ctypes.byref(arguments), stream)
    call("stream_synchronize", stream)
    call("stream_destroy", stream)


def forward(options, folder, *flags):
    """-> median milliseconds, and the tensors of the forward: latent, text, t and output."""
    dump = os.path.join(folder, "dump.safetensors")
    document = ditrun("--device", options.device, "--nproc", "1", "--seed", str(SEED), "--model", options.model, *flags, "wan", "profile", "--size", options.size,
                      "--frames", str(options.frames), "--warmup", "1", "--iterations", "3", "--dump", dump)
    return document["latencyMs"]["median"], load_file(dump)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="1.4B", choices=SIZES)
    parser.add_argument("--size", default="832*480")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ditrun-fp32", action="store_true", help="ditrun in float32 too: slow at full size")
    parser.add_argument("--times-only", action="store_true", help="no errors, and no float32 forward to take them against")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: small models only, errors without times of PyTorch")
    parser.add_argument("--library", help="kernel module to make the weights with [default: DITRUN_KERNELS, else the one in build/]")
    parser.add_argument("--json")
    options = parser.parse_args()
    library = options.library or os.environ.get("DITRUN_KERNELS") or os.path.join(ROOT, "build", f"libditrun_{options.device}.so")
    cuda = options.device == "cuda"
    if options.times_only and not cuda:
        parser.error("--times-only needs a GPU: nothing is timed on the CPU")
    columns, lines = (int(side) // 8 for side in options.size.split("*"))
    sizes = SIZES[options.model]
    rows = []

    where = f"{torch.cuda.get_device_name()}, cuDNN {torch.backends.cudnn.version()}" if cuda else "the CPU"
    print(f"{options.model}, {options.size}, {options.frames} frames, on {where}, PyTorch {torch.__version__}")
    errors = "" if options.times_only else f" {'mean abs':>10} {'max abs':>10} {'rel L2':>10}   (errors against PyTorch float32)"
    print(f"{'':30} {'ms':>9}{errors}", flush=True)

    def row(name, ms, output):
        if options.times_only:
            rows.append({"name": name, "ms": ms})
            print(f"{name:30} {ms:9.2f}", flush=True)
            return
        error = error_of(output, reference)
        rows.append({"name": name, "ms": ms, **error})
        time = f"{ms:9.2f}" if ms else f"{'':9}"
        print(f"{name:30} {time} {error['meanAbs']:10.2e} {error['maxAbs']:10.2e} {error['relL2']:10.2e}", flush=True)

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        with torch.device(options.device):
            model = Wan(**sizes).eval()
            inputs = {"latent": torch.empty(CHANNELS, (options.frames - 1) // 4 + 1, lines, columns), "text": torch.empty(TEXT_LENGTH, sizes["text"])}
            t = torch.tensor([TIME])
        fill(model, inputs, library)
        latent, text = inputs.values()
        rope = model.rope(latent.shape[1], lines // PATCH, columns // PATCH)
        if not options.times_only:
            with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION] if cuda else [SDPBackend.MATH]):
                reference = model(latent, t, model.embed_text(text), rope).cpu()
        # PyTorch holds no GPU work while ditrun is timed.
        if cuda:
            torch.cuda.empty_cache()
        cases = [("ditrun bf16", "--dtype", "bf16"), ("ditrun --fp8", "--fp8")]
        if options.ditrun_fp32:
            cases.append(("ditrun fp32", "--dtype", "fp32"))
        for name, *flags in cases:
            ms, case = forward(options, folder, *flags)
            for input in inputs:
                if not torch.equal(case[input], inputs[input].cpu()):
                    sys.exit(f"ditrun was given another {input} than PyTorch: the two make random numbers differently.")
            row(name, ms if cuda else None, case["output"])

        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION] if cuda else [SDPBackend.MATH]):
            model.lower(torch.bfloat16)
            context = model.embed_text(text)
            run = lambda: model(latent, t, context, rope)
            for name in ["PyTorch bf16, eager", "PyTorch bf16, blocks compiled"][: 2 if options.compile else 1]:
                if name.endswith("compiled"):
                    for block in model.blocks:
                        block.compile()
                row(name, median_ms(run, 3) if cuda else None, run().cpu())

    if cuda:
        theirs = rows[-1]
        for ours in rows[:2]:
            print(f"{ours['name']}: {theirs['ms'] / ours['ms']:.2f} times as fast as {theirs['name']}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


main()
