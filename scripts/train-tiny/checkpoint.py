"""Reads and writes the files of the published layout."""

import json
import struct

import torch
from vae import Vae

VAE_FILE = "Wan2.1_VAE.pth"
TRANSFORMER_FILE = "diffusion_pytorch_model.safetensors"
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


def read_weights(path):
    """Tensors by name, of one of the files that are written here."""
    if not str(path).endswith(".safetensors"):
        return torch.load(path, map_location="cpu")
    data = open(path, "rb").read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    piece = lambda begin, end: torch.frombuffer(bytearray(data[start + begin : start + end]), dtype=torch.bfloat16)
    return {name: piece(*entry["data_offsets"]).view(entry["shape"]) for name, entry in header.items()}


def write_vae(vae, folder):
    torch.save(in_bf16(vae), folder / VAE_FILE)


def read_vae(folder, width):
    vae = Vae(width)
    vae.load_state_dict(torch.load(folder / VAE_FILE, map_location="cpu"))
    return vae.float().eval()


def write_checkpoint(transformer, text_encoder, folder):
    (folder / "config.json").write_text(json.dumps(transformer.config, indent=2) + "\n")
    write_safetensors(in_bf16(transformer), folder / TRANSFORMER_FILE)
    torch.save(in_bf16(text_encoder), folder / TEXT_FILE)
