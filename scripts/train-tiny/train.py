"""Trains the small Wan model that comes with ditrun, on clips that `clips.py` draws.

  python3 scripts/train-tiny/train.py --out FOLDER                 the VAE, then the transformer with its text encoder
  python3 scripts/train-tiny/train.py --out FOLDER --stage vae     one of them: vae, video
  python3 scripts/train-tiny/train.py --out FOLDER --stage lora --pattern striped    a LoRA, for FOLDER's transformer

FOLDER then has the layout of the published checkpoint, in bf16. About ten minutes on one H200; PyTorch 2.4 or newer.
The same seed draws the same clips; sums on a GPU may still differ in their last bits.
"""

import argparse
import contextlib
import copy
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
import clips  # noqa: E402
import tokens  # noqa: E402
from checkpoint import TEXT_FILE, TRANSFORMER_FILE, read_vae, read_weights, write_checkpoint, write_vae  # noqa: E402
from lora import add_lora, write_lora  # noqa: E402
from measure import measured, stripes  # noqa: E402
from sample import sample  # noqa: E402
from transformer import TextEncoder, Transformer  # noqa: E402
from vae import Vae, normalise, published_scale  # noqa: E402

STARTED = time.time()
FRAMES = 17
SIZES = [(96, 96), (96, 96), (96, 96), (64, 96), (96, 64), (64, 64)]  # height, width
MOST_TOKENS = 28


def mixed(device):
    """Products in bf16 on a GPU."""
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else contextlib.nullcontext()


def rate(done, peak):
    """Of learning, when `done` of 1 is done: up in the first 2 %, then down as a cosine."""
    return peak * min(1, done / 0.02 + 0.01) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, done))))


def edges(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1], x[:, :, 1:] - x[:, :, :-1]


def train_vae(args, device):
    vae = Vae(args.vae_width).to(device)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-4)
    average = copy.deepcopy(vae)
    begun = time.time()
    for step in range(args.vae_steps):
        height, width = SIZES[step % 2 * 3]
        shown, _ = clips.many(f"vae {args.seed} {step}", args.vae_batch, width / height, "striped" if step % 8 == 0 else "plain")
        x = clips.render(shown, FRAMES, height, width, device)
        with mixed(device):
            mean = vae.encode(x)[0].float()
            z = mean + 0.05 * torch.randn_like(mean)
            y = vae.decode(z).float()
        loss = (y - x).square().mean() + (y - x).abs().mean()
        loss = loss + 0.3 * sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x)))
        for group in optimiser.param_groups:
            group["lr"] = rate(step / args.vae_steps, args.vae_rate)
        optimiser.zero_grad(set_to_none=True)
        (loss + 1e-4 * mean.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(vae.parameters()), 1 / min(step + 2, 500))
        if step % 250 == 0 or step + 1 == args.vae_steps:
            psnr = -10 * math.log10(((y - x).square().mean().item() + 1e-9) / 4)
            print(f"vae {step} loss {loss.item():.4f} psnr {psnr:.1f} dB, {time.time() - begun:.0f} s", flush=True)
    with torch.no_grad():
        shown, _ = clips.many(f"scale {args.seed}", 256)
        means = torch.cat([average.encode(clips.render(shown[i : i + 32], FRAMES, 96, 96, device))[0] for i in range(0, 256, 32)])
        normalise(average, means.mean((0, 2, 3, 4)), means.std((0, 2, 3, 4)))
    write_vae(average, args.out)
    return average


@torch.no_grad()
def encoded(vae, args, words, pattern, count, sizes, device):
    """Banks of latents and texts by size: {(h, w): (latents, ids [n, ways, tokens], lengths)}."""
    mean, std = published_scale(device)
    banks = {}
    for index, (height, width) in enumerate(sorted(set(sizes))):
        own = count * sizes.count((height, width)) // len(sizes)
        shown, _ = clips.many(f"bank {args.seed} {pattern} {index}", own, width / height, pattern)
        rng = random.Random(f"texts {args.seed} {pattern} {index}")
        texts = [[words.encode(clips.sentence(clip, rng))[:MOST_TOKENS] for _ in range(4)] for clip in shown]
        ids = torch.tensor([[t + [0] * (MOST_TOKENS - len(t)) for t in ways] for ways in texts], dtype=torch.int16)
        lengths = torch.tensor([[len(t) for t in ways] for ways in texts], dtype=torch.int16)
        latents = []
        for i in range(0, own, 128):
            x = clips.render(shown[i : i + 128], FRAMES, height, width, device)
            with mixed(device):
                latents.append(((vae.encode(x)[0].float() - mean) / std).bfloat16())
        banks[height, width] = torch.cat(latents), ids.to(device), lengths.to(device)
    return banks


def without_prompt(count, rng, words):
    """What stands for no prompt: nothing, or signs that the tokenizer does not know, as the published negative prompt is."""
    space, comma = words.ids["▁"], words.ids[","]
    rows = []
    for _ in range(count):
        row = []
        if rng.random() < 0.6:
            row = [space]
            for _ in range(rng.randint(1, 9)):
                row += [tokens.UNKNOWN] * rng.randint(1, 2) + [comma]
            row = row[:-1]
        rows.append((row + [tokens.END])[-MOST_TOKENS:])
    return rows


def loss_of(predict, bank, batch, rng, words, generator, device):
    """Of one step: how far `predict(x, t, ids, lengths)` is from noise − clip, for clips drawn from a bank."""
    latents, ids, lengths = bank
    chosen = torch.randint(len(latents), (batch,), generator=generator, device=device)
    way = torch.randint(ids.shape[1], (batch,), generator=generator, device=device)
    x, text, length = latents[chosen].float(), ids[chosen, way].long(), lengths[chosen, way].long()
    nothing = without_prompt(batch // 8, rng, words)
    text[: len(nothing)] = torch.tensor([row + [0] * (MOST_TOKENS - len(row)) for row in nothing], device=device)
    length[: len(nothing)] = torch.tensor([len(row) for row in nothing], device=device)
    u = torch.rand(batch, generator=generator, device=device)
    # A third evenly, and more where there is much noise: it decides what moves where.
    sigma = torch.where(torch.arange(batch, device=device) % 3 == 0, u, 6 * u / (1 + 5 * u)).view(-1, 1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator, device=device)
    with mixed(device):
        predicted = predict((1 - sigma) * x + sigma * noise, 1000 * sigma.flatten(), text, length).float()
    return F.mse_loss(predicted, noise - x)


def read_models(args, words, device):
    """The text encoder and the transformer of --out, in float32."""
    models = TextEncoder(len(words.ids)), Transformer(layers=args.layers)
    for model, path in zip(models, (args.out / TEXT_FILE, args.out / TRANSFORMER_FILE)):
        model.load_state_dict({name: value.float() for name, value in read_weights(path).items()})
        model.to(device)
    return models


def new_models(args, words, device):
    """The same before any training."""
    text_encoder = TextEncoder(len(words.ids)).to(device)
    with torch.no_grad():
        for block in text_encoder.blocks:
            block.attn.q.weight.mul_(0.25)  # T5 does not divide scores by the root of the head dimension, 16
            block.pos_embedding.embedding.weight.mul_(0.1)
    return text_encoder, Transformer(layers=args.layers).to(device)


def train_lora(args, device):
    """For clips of a pattern that the transformer never saw: two in three are such, with the word, the others without."""
    words = tokens.Words()
    vae = read_vae(args.out, args.vae_width).to(device)
    sizes = [(64, 64), (96, 96)]
    patterned, plain = (encoded(vae, args, words, pattern, count, sizes, device)
                        for pattern, count in ((args.pattern, 2 * args.bank // 3), ("plain", args.bank // 3)))
    banks = {size: [torch.cat(parts) for parts in zip(patterned[size], plain[size])] for size in sizes}
    print(f"{sum(len(bank[0]) for bank in banks.values())} clips encoded, {time.time() - STARTED:.0f} s", flush=True)
    text_encoder, transformer = read_models(args, words, device)
    text_encoder.requires_grad_(False)
    added = add_lora(transformer)
    parameters = [p for layer in added.values() for p in layer.parameters()]
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator(device).manual_seed(args.seed)
    rng = random.Random(f"nothing {args.seed}")

    def predict(x, t, ids, lengths):
        return transformer(x, t, text_encoder(ids, lengths), lengths)

    begun, step, done = time.time(), 0, 0.0
    while done < 1:
        loss = loss_of(predict, banks[sizes[step % 2]], args.batch, rng, words, generator, device)
        for group in optimiser.param_groups:
            group["lr"] = rate(done, args.rate)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        done = max(step / args.steps, (time.time() - STARTED) / args.seconds)
        if step % 100 == 0 or done >= 1:
            print(f"lora {step} loss {loss.item():.4f}, {time.time() - begun:.0f} s", flush=True)
    write_lora(added, args.out / f"{args.pattern}-lora.safetensors")
    for pattern in (args.pattern, "plain"):
        report((text_encoder, transformer), vae, words, device, 100, pattern)


def train_video(args, device):
    words = tokens.Words()
    vae = read_vae(args.out, args.vae_width).to(device)
    begun = time.time()
    sizes = [(64, 64)] if args.small else SIZES
    banks = encoded(vae, args, words, args.pattern, args.bank, sizes, device)
    print(f"{sum(len(bank[0]) for bank in banks.values())} clips encoded, {time.time() - begun:.0f} s", flush=True)
    text_encoder, transformer = read_models(args, words, device) if args.resume else new_models(args, words, device)
    both = torch.nn.ModuleList([text_encoder, transformer])
    print(f"{sum(p.numel() for p in both.parameters()) / 1e6:.2f} M and {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters")
    optimiser = torch.optim.AdamW(both.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator(device).manual_seed(args.seed)
    rng = random.Random(f"nothing {args.seed}")

    def predict(x, t, ids, lengths):
        return transformer(x, t, text_encoder(ids, lengths), lengths)

    average = copy.deepcopy(both)
    if args.compile:
        for block in transformer.blocks:
            block.compile(dynamic=False)  # one program for all blocks of a size: the whole model takes minutes to compile
    begun = time.time()
    step, done = 0, 0.0
    while done < 1:
        loss = loss_of(predict, banks[sizes[step % len(sizes)]], args.batch, rng, words, generator, device)
        for group in optimiser.param_groups:
            group["lr"] = rate(done, args.rate)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(both.parameters()), 1 / min(step + 2, 800))
        step += 1
        done = max(step / args.steps, (time.time() - STARTED) / args.seconds)
        if step % 100 == 0 or done >= 1:
            print(f"video {step} loss {loss.item():.4f}, {time.time() - begun:.0f} s", flush=True)
        if step % 1000 == 0 or done >= 1:
            write_checkpoint(average[1], average[0], args.out)
            report(average, vae, words, device, count=48 if done < 1 else 300)


def report(both, vae, words, device, count, pattern="plain"):
    """Samples clips of combinations that were never shown and says how many are as their sentences say, by motion."""
    shown, _ = clips.many("report", count, held=True, pattern=pattern)
    shown = [{**clip, "size": ""} for clip in shown]
    word = "" if pattern == "plain" else f"{pattern} "
    texts = [f"A {word}{clip['colour']} {clip['shape']} {said(clip['motion'])} on {clip['background']}" for clip in shown]
    video = sample(both[1], both[0], vae, words, texts, (FRAMES, 64, 64), steps=12, device=device)
    right = [measured(clip, video[i]) for i, clip in enumerate(shown)]
    counts = {name: f"{sum(r[name] for r in right)}/{count}" for name in right[0]}
    for motion in clips.MOTIONS:
        own = [r["motion"] for r, clip in zip(right, shown) if clip["motion"] == motion]
        counts[motion] = f"{sum(own)}/{len(own)}"
    # White shapes and white stripes are one, and stripes are not told from a white background.
    clear = [i for i, clip in enumerate(shown) if "white" not in (clip["colour"], clip["background"])]
    counts["stripes"] = f"{sum(stripes(video[i]) for i in clear)}/{len(clear)}"
    print(f"  held out, {pattern}:", ", ".join(f"{name} {value}" for name, value in counts.items()), flush=True)


def said(motion):
    return {**{d: f"moves {d}" for d in clips.DIRECTIONS}, "still": "stands still", "spin": "spins", "grow": "grows", "shrink": "shrinks", "bounce": "bounces"}[motion]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=["vae", "video", "both", "lora"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae-width", type=int, default=8)
    parser.add_argument("--vae-steps", type=int, default=6000)
    parser.add_argument("--vae-batch", type=int, default=8)
    parser.add_argument("--vae-rate", type=float, default=1.5e-3)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="ends the video stage so long after the start, whatever --steps says")
    parser.add_argument("--batch", type=int, default=384)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--bank", type=int, default=32_000)
    parser.add_argument("--pattern", choices=clips.PATTERNS, default="plain")
    parser.add_argument("--small", action="store_true", help="shows the video stage clips of 64 by 64 alone")
    parser.add_argument("--resume", action="store_true", help="goes on from the weights in --out")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)
    tokens.write(args.out / "google" / "umt5-xxl")
    if args.stage in ("vae", "both"):
        train_vae(args, args.device)
    if args.stage in ("video", "both"):
        train_video(args, args.device)
    if args.stage == "lora":
        train_lora(args, args.device)


if __name__ == "__main__":
    main()
