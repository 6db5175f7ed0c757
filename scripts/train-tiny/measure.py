"""What a clip shows, from its pixels: the colours, and how the shape's centre and size change."""

import torch
from clips import COLOURS, DIRECTIONS


def nearest_colour(rgb):
    """The name of the colour nearest to [3] in [-1, 1]."""
    values = torch.tensor(list(COLOURS.values())) / 127.5 - 1
    return list(COLOURS)[(values - rgb).square().sum(1).argmin().item()]


def around(frame):
    """The colour along the border of a frame [3, h, w]."""
    return torch.cat([frame[:, 0], frame[:, -1], frame[:, :, 0], frame[:, :, -1]], 1).median(1).values


def shape_of(frame):
    """Which pixels of [3, h, w] are the shape's."""
    apart = (frame - around(frame).view(3, 1, 1)).square().sum(0).sqrt()
    return apart > max(0.25, 0.5 * apart.max().item())


def seen(frame):
    """Of a frame [3, h, w]: (colour, background, centre x, centre y, area), lengths as `clips` has them; None without a shape."""
    _, h, w = frame.shape
    inside = shape_of(frame)
    if inside.sum() < 8:
        return None
    y, x = inside.nonzero().float().T
    short = min(h, w)
    colour = frame[:, inside].median(1).values
    return (nearest_colour(colour), nearest_colour(around(frame)), ((x.mean() + 0.5) * 2 - w).item() / short,
            ((y.mean() + 0.5) * 2 - h).item() / short, inside.sum().item() * 4 / short**2)


def measured(clip, video):
    """Which of a clip's words its video [3, frames, h, w] shows."""
    frames = [seen(frame) for frame in video.float().cpu().unbind(1)]
    if any(frame is None for frame in frames):
        return {"colour": False, "background": False, "motion": False}
    middle = frames[len(frames) // 2]
    dx, dy = frames[-1][2] - frames[0][2], frames[-1][3] - frames[0][3]
    growth = frames[-1][4] / frames[0][4]
    motion = clip["motion"]
    if motion in DIRECTIONS:
        along, across = (dx, dy) if DIRECTIONS[motion][0] else (dy, dx)
        good = along * sum(DIRECTIONS[motion]) > 0.4 and abs(across) < 0.3
    elif motion == "grow":
        good = growth > 1.8
    elif motion == "shrink":
        good = growth < 0.55
    elif motion == "bounce":
        good = max(f[3] for f in frames) - min(f[3] for f in frames) > 0.3 and abs(dx) < 0.2
    else:
        good = abs(dx) < 0.2 and abs(dy) < 0.2 and 0.6 < growth < 1.6
    return {"colour": middle[0] == clip["colour"], "background": middle[1] == clip["background"], "motion": good}


def stripes(video):
    """Whether the shape in the middle of a video [3, frames, h, w] changes from row to row, as one of stripes does."""
    frame = video.float().cpu()[:, video.shape[1] // 2]
    inside = shape_of(frame)
    rows = [frame[:, y, inside[y]].mean(1) for y in range(frame.shape[1]) if inside[y].sum() >= 3]
    return len(rows) >= 4 and torch.stack(rows).std(0).square().sum().sqrt().item() > 0.35
