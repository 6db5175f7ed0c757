"""A LoRA of the small Wan: what is added to each linear layer of its blocks, and its file."""

import torch
import torch.nn as nn
from checkpoint import write_safetensors
from torch.nn.utils import parametrize

RANK, ALPHA = 4, 8.0
LAYERS = [f"{part}.{name}" for part in ("self_attn", "cross_attn") for name in "qkvo"] + ["ffn.0", "ffn.2"]


class Added(nn.Module):
    """weight [out, in] → weight + alpha / rank · up [out, rank] · down [rank, in]. `up` starts as zero."""

    def __init__(self, weight):
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(RANK, columns, device=weight.device) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, RANK, device=weight.device))

    def forward(self, weight):
        return weight + ALPHA / RANK * (self.up @ self.down)


def add_lora(transformer):
    """Freezes the transformer and adds to its linear layers. @returns what was added, by the layer's name."""
    transformer.requires_grad_(False)
    added = {}
    for index, block in enumerate(transformer.blocks):
        for name in LAYERS:
            linear = block.get_submodule(name)
            added[f"blocks.{index}.{name}"] = Added(linear.weight)
            parametrize.register_parametrization(linear, "weight", added[f"blocks.{index}.{name}"])
    return added


def write_lora(added, path):
    """One file in bf16, with the names that most files in circulation have."""
    tensors = {}
    for name, layer in added.items():
        tensors[f"diffusion_model.{name}.lora_A.weight"] = layer.down
        tensors[f"diffusion_model.{name}.lora_B.weight"] = layer.up
        tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(ALPHA)
    write_safetensors({name: value.detach().bfloat16().cpu().contiguous() for name, value in tensors.items()}, path)
