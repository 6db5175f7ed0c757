"""Clips that a program draws, and sentences that say what they show: a red circle moves right on blue.

A clip is a dictionary of words and numbers; `render` draws many at once on any device, antialiased by signed distances.
Lengths are in halves of the shorter side, positions from -1 to 1 along it, y downwards. Colours are in [-1, 1].
"""

import math
import random

import torch

COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 50),
    "green": (40, 160, 60),
    "cyan": (50, 205, 215),
    "blue": (45, 80, 215),
    "purple": (130, 50, 170),
    "pink": (245, 135, 185),
    "brown": (125, 75, 40),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "white": (245, 245, 245),
}
COLOUR_WORDS = {"cyan": ["cyan", "turquoise"], "purple": ["purple", "violet"], "gray": ["gray", "grey"]}
SHAPES = {
    "circle": ["circle", "circle", "ball", "disc", "dot"],
    "square": ["square", "square", "box", "block"],
    "triangle": ["triangle"],
    "star": ["star"],
    "ring": ["ring", "hoop"],
    "cross": ["cross", "plus"],
    "diamond": ["diamond", "rhombus"],
}
VERBS = ["moves", "moves", "slides", "goes", "travels", "drifts", "flies", "glides", "runs", "moving", "is moving"]
MOTIONS = {
    "right": ["V right", "V right", "V to the right", "V rightwards", "V from left to right"],
    "left": ["V left", "V left", "V to the left", "V leftwards", "V from right to left"],
    "up": ["V up", "V up", "V upwards", "V to the top", "rises", "V from bottom to top"],
    "down": ["V down", "V down", "V downwards", "V to the bottom", "falls", "sinks", "V from top to bottom"],
    "grow": ["grows", "gets bigger", "expands"],
    "shrink": ["shrinks", "gets smaller"],
    "still": ["stands still", "stays", "rests", "does not move"],
    "spin": ["spins", "rotates", "turns"],
    "bounce": ["bounces", "jumps", "bounces up and down"],
}
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
SIZES = {"small": ["small", "little", "tiny"], "big": ["big", "large", "huge"]}
PLACES = ["on B", "on B", "on a B background", "over a B background", "in front of B", "against a B wall", "on a B field"]
STARTS = ["a", "a", "a", "the", "one", "", "a video of a", "an animation of a"]
PATTERNS = ["plain", "striped"]


def words():
    """Every word that `sentence` can say."""
    texts = [*STARTS, *VERBS, *PLACES, "background only", "striped plain shape object thing and with of at very"]
    for group in (COLOUR_WORDS, SHAPES, MOTIONS, SIZES):
        texts += [text for list_ in group.values() for text in list_]
    texts += list(COLOURS)
    return sorted({word for text in texts for word in text.split() if word not in ("V", "B")})


def held_out(clip):
    """Whether no clip like this one is shown in training: one of ten combinations of its four words."""
    code = [list(group).index(clip[key]) for key, group in KINDS.items()]
    return (code[0] * 7 + code[1] * 5 + code[2] * 3 + code[3]) % 10 == 0


KINDS = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "background": COLOURS}


def draw_clip(rng, aspect=1.0, pattern="plain"):
    """One clip by chance. `aspect` is width over height."""
    colour, background = rng.sample(list(COLOURS), 2)
    clip = {
        "colour": colour,
        "background": background,
        "shape": rng.choice(list(SHAPES)),
        "motion": rng.choice(list(MOTIONS) + 2 * list(DIRECTIONS)),
        "size": rng.choice(["small", "", "", "big"]),
        "pattern": pattern,
    }
    low, high = {"small": (0.20, 0.27), "": (0.27, 0.42), "big": (0.42, 0.52)}[clip["size"]]
    if pattern == "striped":  # of small shapes the VAE shows no stripes
        clip["size"], low, high = "", 0.42, 0.55
    radius = rng.uniform(low, high)
    half_width, half_height = max(aspect, 1.0), max(1 / aspect, 1.0)
    free_x, free_y = half_width - radius, half_height - radius
    x, y = rng.uniform(-free_x, free_x) * 0.8, rng.uniform(-free_y, free_y) * 0.8
    clip.update(x0=x, x1=x, y0=y, y1=y, r0=radius, r1=radius, turn=0.0, bounce=0.0)
    if clip["motion"] in DIRECTIONS:
        dx, dy = DIRECTIONS[clip["motion"]]
        reach = rng.uniform(0.65, 1.0)
        if dx:
            clip.update(x0=-dx * free_x * reach, x1=dx * free_x * reach)
        else:
            clip.update(y0=-dy * free_y * reach, y1=dy * free_y * reach)
    elif clip["motion"] in ("grow", "shrink"):
        small, large = radius * 0.55, radius * 1.3
        clip.update(r0=small, r1=large, x0=x * 0.6, x1=x * 0.6, y0=y * 0.6, y1=y * 0.6)
        if clip["motion"] == "shrink":
            clip.update(r0=large, r1=small)
    elif clip["motion"] == "spin":
        clip["turn"] = math.pi * rng.choice([1, 1.5])
    elif clip["motion"] == "bounce":
        clip.update(bounce=min(1.0, 2 * free_y * 0.8), y0=free_y * 0.85, y1=free_y * 0.85)
    return clip


def sentence(clip, rng):
    """One of the ways to say what the clip shows; what is left unsaid may be anything."""
    colour = rng.choice(COLOUR_WORDS.get(clip["colour"], [clip["colour"]]))
    background = rng.choice(COLOUR_WORDS.get(clip["background"], [clip["background"]]))
    parts = [rng.choice(STARTS)]
    if clip["size"] and rng.random() < 0.8:
        parts.append(rng.choice(SIZES[clip["size"]]))
    if clip["pattern"] != "plain":
        parts.append(clip["pattern"])
    parts += [colour, rng.choice(SHAPES[clip["shape"]])]
    if rng.random() < 0.94:
        parts.append(rng.choice(MOTIONS[clip["motion"]]).replace("V", rng.choice(VERBS)))
    if rng.random() < 0.94:
        parts.append(rng.choice(PLACES).replace("B", background))
    text = " ".join(part for part in parts if part)
    return text + (rng.choice([".", "!"]) if rng.random() < 0.15 else "")


def _distance(shape, x, y, r):
    """Signed distance to a shape's edge, negative inside. x, y, r: tensors that broadcast."""
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86 * r
    if shape == "diamond":
        return (x.abs() * 1.25 + y.abs() * 0.85) / 1.5 - 0.68 * r
    if shape == "ring":
        return (torch.hypot(x, y) - 0.74 * r).abs() - 0.26 * r
    if shape == "cross":
        first = torch.maximum(x.abs() - 0.32 * r, y.abs() - r)
        return torch.minimum(first, torch.maximum(x.abs() - r, y.abs() - 0.32 * r))
    if shape == "triangle":
        sides = [math.cos(a) * x + math.sin(a) * (y - 0.12 * r) for a in (math.pi / 2, math.pi * 7 / 6, -math.pi / 6)]
        return torch.maximum(torch.maximum(sides[0], sides[1]), sides[2]) - 0.58 * r
    # A star of five points: in a fifth of the circle, folded once, its edge is a line from a point to a notch.
    sector = 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(y, x) + math.pi / 2 + sector / 2, sector) - sector / 2
    length = torch.hypot(x, y)
    u, v = length * torch.cos(angle), length * torch.sin(angle).abs()
    notch_u, notch_v = 0.46 * math.cos(sector / 2), 0.46 * math.sin(sector / 2)
    normal_u, normal_v = notch_v, 1 - notch_u
    size = math.hypot(normal_u, normal_v)
    return ((u - 1.1 * r) * normal_u + v * normal_v) / size


def render(clips, frames, height, width, device="cpu"):
    """Draws clips. @returns [clips, 3, frames, height, width] in [-1, 1], float32."""
    count, short = len(clips), min(height, width)
    number = lambda key: torch.tensor([clip[key] for clip in clips], device=device).view(count, 1, 1, 1)
    colour = lambda key: torch.tensor([COLOURS[clip[key]] for clip in clips], device=device).view(count, 3, 1, 1, 1)
    time = torch.linspace(0, 1, frames, device=device).view(1, frames, 1, 1) if frames > 1 else torch.zeros(
        1, 1, 1, 1, device=device)
    rows = ((torch.arange(height, device=device) + 0.5) * 2 - height) / short
    columns = ((torch.arange(width, device=device) + 0.5) * 2 - width) / short
    between = lambda a, b: number(a) + (number(b) - number(a)) * time
    x = columns.view(1, 1, 1, width) - between("x0", "x1")
    lift = number("bounce") * (torch.sin(2 * math.pi * time).abs())
    y = rows.view(1, 1, height, 1) - between("y0", "y1") + lift
    r = between("r0", "r1")
    angle = number("turn") * time
    x, y = x * torch.cos(angle) + y * torch.sin(angle), y * torch.cos(angle) - x * torch.sin(angle)
    x, y, r = torch.broadcast_tensors(x, y, r)
    distance = torch.empty_like(x)
    for shape in SHAPES:
        own = torch.tensor([clip["shape"] == shape for clip in clips], device=device)
        if own.any():
            distance[own] = _distance(shape, x[own], y[own], r[own])
    cover = (0.5 - distance * short / 2).clamp(0, 1).unsqueeze(1)
    inner = colour("colour") / 127.5 - 1
    striped = torch.tensor([clip["pattern"] == "striped" for clip in clips], device=device).view(count, 1, 1, 1, 1)
    if striped.any():
        bars = (torch.sin(y / r * 5).unsqueeze(1) * 4).clamp(-1, 1) * 0.5 + 0.5
        inner = torch.where(striped, inner * bars + (1 - bars), inner.expand(count, 3, 1, 1, 1))
    outer = colour("background") / 127.5 - 1
    return outer + (inner - outer) * cover


def many(seed, count, aspect=1.0, pattern="plain", held=False):
    """`count` clips and their sentences; of the combinations held out if `held`, else of the others."""
    rng = random.Random(seed)
    clips = []
    while len(clips) < count:
        clip = draw_clip(rng, aspect, pattern)
        if held_out(clip) == held:
            clips.append(clip)
    return clips, [sentence(clip, rng) for clip in clips]
