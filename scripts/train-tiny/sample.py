"""Euler's steps with guidance, to look at a model while it is trained."""

import torch
from vae import published_scale


@torch.no_grad()
def sample(transformer, text_encoder, vae, words, texts, size, steps, device, shift=5.0, guidance=5.0, seed=0):
    """@returns [texts, 3, frames, height, width] in [-1, 1]."""
    frames, height, width = size
    negative = [words.ids["▁"], *([3, words.ids[","]] * 20), 1]
    rows = [words.encode(text) for text in texts] + [negative] * len(texts)
    most = max(map(len, rows))
    ids = torch.tensor([row + [0] * (most - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    context = text_encoder(ids, lengths)
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(len(texts), 16, (frames - 1) // 4 + 1, height // 8, width // 8, generator=generator, device=device)
    u = torch.linspace(1, 0, steps + 1)
    sigmas = shift * u / (1 + (shift - 1) * u)
    for now, then in zip(sigmas, sigmas[1:]):
        t = torch.full((2 * len(texts),), 1000 * now.item(), device=device)
        with_prompt, without = transformer(torch.cat([x, x]), t, context, lengths).chunk(2)
        x = x + (then - now).item() * (without + guidance * (with_prompt - without))
    mean, std = published_scale(device)
    return torch.cat([vae.decode(part * std + mean).clamp(-1, 1) for part in x.split(25)])
