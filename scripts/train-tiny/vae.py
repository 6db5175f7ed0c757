"""The VAE of Wan 2.1 for training: whole clips at once, with the names of the published checkpoint.

The published code goes through a clip in pieces of four frames and keeps what the causal convolutions saw. That is the same as
going through all frames at once, if the first frame is left out of every change of the frame rate, as here.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

# Of the latent's channels, as the published code divides by them.
MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]


class Causal(nn.Conv3d):
    """A convolution that sees no later frame: all padding in time is in front."""

    def forward(self, x):
        t, h, w = self.padding
        return F.conv3d(F.pad(x, (w, w, h, h, 2 * t, 0)), self.weight, self.bias, self.stride)


class Norm(nn.Module):
    def __init__(self, width, images=False):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1) if images else torch.ones(width, 1, 1, 1))

    def forward(self, x):
        return F.normalize(x.float(), dim=1).to(x.dtype) * x.shape[1] ** 0.5 * self.gamma


class Residual(nn.Module):
    def __init__(self, wide_in, wide_out):
        super().__init__()
        self.residual = nn.Sequential(
            Norm(wide_in), nn.SiLU(), Causal(wide_in, wide_out, 3, padding=1),
            Norm(wide_out), nn.SiLU(), nn.Identity(), Causal(wide_out, wide_out, 3, padding=1),
        )
        self.shortcut = nn.Identity() if wide_in == wide_out else Causal(wide_in, wide_out, 1)

    def forward(self, x):
        return self.shortcut(x) + self.residual(x)


class Attention(nn.Module):
    """One head, each frame for itself."""

    def __init__(self, width):
        super().__init__()
        self.norm = Norm(width, images=True)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x):
        b, c, t, h, w = x.shape
        frames = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
        q, k, v = self.to_qkv(self.norm(frames)).reshape(b * t, 3, c, h * w).transpose(2, 3).unbind(1)
        weights = torch.softmax((q @ k.transpose(1, 2)).float() * c**-0.5, -1).to(v.dtype)
        mixed = (weights @ v).transpose(1, 2).reshape(b * t, c, h, w)
        return x + self.proj(mixed).reshape(b, t, c, h, w).permute(0, 2, 1, 3, 4)


def each_frame(layer, x):
    b, c, t, h, w = x.shape
    y = layer(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    return y.reshape(b, t, *y.shape[1:]).permute(0, 2, 1, 3, 4)


class Down(nn.Module):
    """Half the rows and columns; with `time` also half the frames, but for the first."""

    def __init__(self, width, time):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2))
        if time:
            self.time_conv = Causal(width, width, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x):
        x = each_frame(self.resample, x)
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
        return x


class Up(nn.Module):
    """Twice the rows and columns; with `time` also twice the frames, but for the first."""

    def __init__(self, width, time):
        super().__init__()
        nearest = nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
        self.resample = nn.Sequential(nearest, nn.Conv2d(width, width // 2, 3, padding=1))
        if time:
            self.time_conv = Causal(width, 2 * width, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x):
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            b, c, t, h, w = x.shape
            two = self.time_conv(x[:, :, 1:]).reshape(b, 2, c, t - 1, h, w)
            x = torch.cat([x[:, :, :1], torch.stack([two[:, 0], two[:, 1]], 3).reshape(b, c, 2 * t - 2, h, w)], 2)
        return each_frame(self.resample, x)


class Encoder(nn.Module):
    def __init__(self, width, channels):
        super().__init__()
        widths = [width * m for m in (1, 1, 2, 4, 4)]
        self.conv1 = Causal(3, width, 3, padding=1)
        layers = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [Residual(a, b), Residual(b, b)]
            if i < 3:
                layers.append(Down(b, time=i > 0))
        self.downsamples = nn.Sequential(*layers)
        self.middle = nn.Sequential(Residual(b, b), Attention(b), Residual(b, b))
        self.head = nn.Sequential(Norm(b), nn.SiLU(), Causal(b, 2 * channels, 3, padding=1))

    def forward(self, x):
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    def __init__(self, width, channels):
        super().__init__()
        widths = [width * m for m in (4, 4, 4, 2, 1)]
        self.conv1 = Causal(channels, widths[0], 3, padding=1)
        self.middle = nn.Sequential(Residual(widths[0], widths[0]), Attention(widths[0]), Residual(widths[0], widths[0]))
        layers = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [Residual(a if i == 0 else a // 2, b), Residual(b, b), Residual(b, b)]
            if i < 3:
                layers.append(Up(b, time=i < 2))
        self.upsamples = nn.Sequential(*layers)
        self.head = nn.Sequential(Norm(b), nn.SiLU(), Causal(b, 3, 3, padding=1))

    def forward(self, x):
        return self.head(self.upsamples(self.middle(self.conv1(x))))


class Vae(nn.Module):
    def __init__(self, width=8, channels=16):
        super().__init__()
        self.encoder = Encoder(width, channels)
        self.conv1 = Causal(2 * channels, 2 * channels, 1)
        self.conv2 = Causal(channels, channels, 1)
        self.decoder = Decoder(width, channels)
        # PyTorch's own start is too small for widths like 8: training stays at 13 dB for thousands of steps.
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, Residual):
                layer.residual[6].weight.data *= 0.3

    def encode(self, x):
        """[b, 3, f, h, w] in [-1, 1] → mean and log variance, [b, 16, (f - 1) / 4 + 1, h / 8, w / 8] each, not normalised."""
        return self.conv1(self.encoder(x)).chunk(2, 1)

    def decode(self, z):
        return self.decoder(self.conv2(z))


def published_scale(device):
    shape = (1, 16, 1, 1, 1)
    return torch.tensor(MEAN, device=device).view(shape), torch.tensor(STD, device=device).view(shape)


@torch.no_grad()
def normalise(vae, mean, std):
    """Changes the weights so that the latent has the published mean and deviation, where it now has `mean` and `std` [16].

    conv1 and conv2 are linear maps of the channels next to the latent, so that decode(encode(x)) stays the same.
    """
    to_mean, to_std = (value.view(16) for value in published_scale(mean.device))
    ratio = to_std / std
    rows = vae.conv1.weight[:16]
    rows *= ratio.view(16, 1, 1, 1, 1)
    vae.conv1.bias[:16] = (vae.conv1.bias[:16] - mean) * ratio + to_mean
    vae.conv1.bias[16:] += 2 * torch.log(ratio)
    weight = vae.conv2.weight / ratio.view(1, 16, 1, 1, 1)
    shift = weight.view(16, 16) @ (-to_mean) + vae.conv2.weight.view(16, 16) @ mean
    vae.conv2.bias += shift
    vae.conv2.weight.copy_(weight)
