"""Reads and writes the files of the published layout."""

import json
import struct

import torch
from vae import Vae

VAE_FILE = "Wan2.1_VAE.pth"
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"


def in_bf16(model):
    return {name: value.detach().bfloat16().cpu().contiguous() for name, value in model.state_dict().items()}


def write_safetensors(tensors, path):
    header, offset = {}, 0
    for name, value in sorted(tensors.items()):
        size = value.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in sorted(tensors.items()):
            file.write(value.view(torch.int16).numpy().tobytes())


def write_vae(vae, folder):
    torch.save(in_bf16(vae), folder / VAE_FILE)


def read_vae(folder, width):
    vae = Vae(width)
    vae.load_state_dict(torch.load(folder / VAE_FILE, map_location="cpu"))
    return vae.float().eval()


def write_checkpoint(transformer, text_encoder, folder):
    (folder / "config.json").write_text(json.dumps(transformer.config, indent=2) + "\n")
    write_safetensors(in_bf16(transformer), folder / "diffusion_pytorch_model.safetensors")
    torch.save(in_bf16(text_encoder), folder / TEXT_FILE)
