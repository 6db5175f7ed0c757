"""The transformer of Wan 2.1 and its text encoder, for training, with the names of the published checkpoints."""

import functools
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

TEXT_LENGTH = 512


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


def attend(q, k, v, bias=None, scale=None):
    """Softmax attention. q, k, v: [b, heads, rows, head]; bias broadcasts to [b, heads, queries, keys]."""
    if scale is not None:
        q = q * (scale * q.shape[-1] ** 0.5)
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    return torch.softmax(scores if bias is None else scores + bias, -1).to(v.dtype) @ v


def heads(x, count):
    b, n, d = x.shape
    return x.view(b, n, count, d // count).transpose(1, 2)


def joined(x):
    b, h, n, d = x.shape
    return x.transpose(1, 2).reshape(b, n, h * d)


@functools.cache
def rope(grid, head, device):
    """Turns of each token of a [frames, rows, columns] grid: cosines and sines, [tokens, head / 2]."""
    parts = [head - 4 * (head // 6), 2 * (head // 6), 2 * (head // 6)]
    angles = []
    for axis, (size, part) in enumerate(zip(grid, parts)):
        rate = 1.0 / 10000 ** (torch.arange(0, part, 2, device=device, dtype=torch.float64) / part)
        shape = [1, 1, 1, -1]
        shape[axis] = size
        angle = torch.outer(torch.arange(size, device=device, dtype=torch.float64), rate)
        angles.append(angle.view(shape).expand(*grid, -1))
    all_ = torch.cat(angles, -1).reshape(-1, head // 2)
    return all_.cos().float(), all_.sin().float()


def turned(x, turn):
    cos, sin = turn
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width, count):
        super().__init__()
        self.count = count
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RmsNorm(width), RmsNorm(width)

    def forward(self, x, context, turn=None, bias=None):
        q, k = heads(self.norm_q(self.q(x)), self.count), heads(self.norm_k(self.k(context)), self.count)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        return self.o(joined(attend(q, k, heads(self.v(context), self.count), bias)))


class Block(nn.Module):
    def __init__(self, width, ffn, count):
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, count), Attention(width, count)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, width))
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(self, x, e, context, turn, bias):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e).unsqueeze(2).unbind(1)
        plain = lambda y: F.layer_norm(y, y.shape[-1:], eps=1e-6)
        y = plain(x) * (1 + scale1) + shift1
        x = x + self.self_attn(y, y, turn) * gate1
        x = x + self.cross_attn(self.norm3(x), context, bias=bias)
        return x + self.ffn(plain(x) * (1 + scale2) + shift2) * gate2


class Head(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.head = nn.Linear(width, out)
        self.modulation = nn.Parameter(torch.randn(1, 2, width) / width**0.5)

    def forward(self, x, e):
        shift, scale = (self.modulation + e.unsqueeze(1)).unsqueeze(2).unbind(1)
        return self.head(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)


class Transformer(nn.Module):
    """Predicts noise − clip, from latents [b, 16, f, h, w] at times t [b] in 0 to 1000."""

    def __init__(self, width=128, ffn=384, count=4, layers=6, text=64, channels=16):
        super().__init__()
        self.config = {
            "_class_name": "WanModel", "_diffusers_version": "0.30.0", "model_type": "t2v", "text_len": TEXT_LENGTH,
            "in_dim": channels, "out_dim": channels, "freq_dim": 256, "eps": 1e-6,
            "dim": width, "ffn_dim": ffn, "num_heads": count, "num_layers": layers,
        }
        self.patch_embedding = nn.Conv3d(channels, width, (1, 2, 2), (1, 2, 2))
        self.text_embedding = nn.Sequential(nn.Linear(text, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.time_embedding = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, ffn, count) for _ in range(layers))
        self.head = Head(width, 4 * channels)
        nn.init.zeros_(self.head.head.weight)
        nn.init.zeros_(self.head.head.bias)

    def forward(self, x, t, text, lengths):
        """text: [b, rows, text width], rows at and after `lengths` [b] zero. To it belong 512 rows, the others zero too."""
        b, channels, f, h, w = x.shape
        y = self.patch_embedding(x)
        grid = y.shape[2:]
        y = y.flatten(2).transpose(1, 2)
        rate = torch.exp(-math.log(10000) * torch.arange(128, device=x.device) / 128)
        angle = t.float()[:, None] * rate
        e = self.time_embedding(torch.cat([angle.cos(), angle.sin()], -1))
        e6 = self.time_projection(e).unflatten(1, (6, -1))
        # All zero rows are one row that counts as often: the logarithm of how often, on its logits.
        rows = text.shape[1]
        context = self.text_embedding(F.pad(text, (0, 0, 0, 1)))
        missing = torch.arange(rows, device=x.device) >= lengths[:, None]
        bias = torch.cat([torch.zeros(b, rows, device=x.device).masked_fill(missing, -1e4),
                          torch.log(TEXT_LENGTH - lengths.float())[:, None]], 1)[:, None, None]
        turn = rope(tuple(grid), y.shape[-1] // self.config["num_heads"], x.device)
        for block in self.blocks:
            y = block(y, e6, context, turn, bias)
        y = self.head(y, e).view(b, *grid, 1, 2, 2, channels)
        return y.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(b, channels, f, h, w)


class TextAttention(nn.Module):
    """T5's: no scale, no bias of its own, and a learned number for each distance and head."""

    def __init__(self, width, count):
        super().__init__()
        self.count = count
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x, bias):
        q, k, v = (heads(layer(x), self.count) for layer in (self.q, self.k, self.v))
        return self.o(joined(attend(q, k, v, bias, scale=1.0)))


class Distances(nn.Module):
    """The number for the distance between two positions: exact up to 7, then in steps that grow, up to 128."""

    def __init__(self, count):
        super().__init__()
        self.embedding = nn.Embedding(32, count)

    def forward(self, n):
        device = self.embedding.weight.device
        distance = torch.arange(n, device=device)[None] - torch.arange(n, device=device)[:, None]
        size = distance.abs()
        far = 8 + (torch.log(size.clamp(min=1).float() / 8) / math.log(16) * 8).long()
        bucket = torch.where(size < 8, size, far.clamp(max=15)) + 16 * (distance > 0)
        return self.embedding(bucket).permute(2, 0, 1)[None]


class Gated(nn.Module):
    def __init__(self, width, ffn):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, ffn, bias=False), nn.GELU(approximate="tanh"))
        self.fc1, self.fc2 = nn.Linear(width, ffn, bias=False), nn.Linear(ffn, width, bias=False)

    def forward(self, x):
        return self.fc2(self.fc1(x) * self.gate(x))


class TextBlock(nn.Module):
    def __init__(self, width, ffn, count):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.attn, self.ffn = TextAttention(width, count), Gated(width, ffn)
        self.pos_embedding = Distances(count)

    def forward(self, x, bias):
        x = x + self.attn(self.norm1(x), bias + self.pos_embedding(x.shape[1]))
        return x + self.ffn(self.norm2(x))


class TextEncoder(nn.Module):
    def __init__(self, vocabulary, width=64, ffn=128, count=4, layers=2):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(TextBlock(width, ffn, count) for _ in range(layers))
        self.norm = RmsNorm(width)

    def forward(self, ids, lengths):
        """ids: [b, rows]. @returns [b, rows, width], zero at and after `lengths`."""
        inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        bias = torch.zeros_like(inside, dtype=torch.float32).masked_fill(~inside, -1e4)[:, None, None]
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x) * inside.unsqueeze(-1)
