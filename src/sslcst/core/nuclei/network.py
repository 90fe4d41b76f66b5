"""The bundled network: a small residual encoder and decoder from a stain image to nuclei's foreground and flow.

Convolutions at full resolution are what costs on a CPU, so there are none: the first one halves the resolution, most
channels sit at an eighth and a sixteenth of it, and the last one predicts the four pixels of each 2 x 2 block at once.
Normalisation is by batch, not by layer or group: at inference it is a fixed scale, folded into the convolutions, so
that no output depends on what is far away in the image, and tiles agree with the whole.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle
from torch.nn.utils import fuse_conv_bn_eval

CHANNELS = (32, 64, 96, 128)  # at a half, a quarter, an eighth and a sixteenth of the resolution
MULTIPLE = 2 ** len(CHANNELS)  # of which the sides of an input must be
OUTPUTS = 3  # foreground logit, flow (dy, dx)
Network = TypeVar("Network", bound=nn.Module)


class NucleusNetwork(nn.Module):
    """Foreground and flow of nuclei about 20 pixels wide."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = CHANNELS
        self.stem = ConvNorm(2, half, size=5, stride=2)
        self.down = nn.ModuleList(
            [
                Residual(half, quarter, stride=2),
                nn.Sequential(Residual(quarter, eighth, stride=2), Residual(eighth, eighth)),
                nn.Sequential(Residual(eighth, sixteenth, stride=2), Residual(sixteenth, sixteenth)),
            ]
        )
        self.lateral = nn.ModuleList(
            [nn.Conv2d(sixteenth, eighth, 1), nn.Conv2d(eighth, quarter, 1), nn.Conv2d(quarter, half, 1)]
        )
        self.up = nn.ModuleList([Residual(eighth, eighth), Residual(quarter, quarter), ConvNorm(half, half)])
        self.head = nn.Conv2d(half, 4 * OUTPUTS, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (n, 1, height, width), sides multiples of 16, to outputs (n, 3, height, width).

        Images are scaled so that their low and high percentiles are 0 and 1. Outputs are the logit of the foreground,
        and the flow (dy, dx) towards the centre of the pixel's nucleus, of length 1 but near the centre, and 0 outside.
        """
        x = self.stem(two_views(image))  # (n, 32, h/2, w/2)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)  # ... (n, 128, h/16, w/16)
        for lateral, up in zip(self.lateral, self.up, strict=True):
            x = up(skips.pop() + interpolate(lateral(x), scale_factor=2, mode="nearest"))  # ... (n, 32, h/2, w/2)
        return pixel_shuffle(self.head(x), 2)


def fold(network: Network) -> Network:
    """Fold the batch normalisation of each `ConvNorm` of a network into its convolution, for inference, in place."""
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
    return network


def two_views(image: Tensor) -> Tensor:
    """Stack an image clipped at twice its high percentile and its logarithm, in which dim nuclei show too."""
    image = image.clamp(-0.5, 2)
    return torch.cat([image, torch.asinh(20 * image) / 3], dim=1)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, rectification."""

    def __init__(self, before: int, after: int, *, size: int = 3, stride: int = 1, rectify: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, before, h, w) to (n, after, h / stride, w / stride)."""
        x = self.norm(self.conv(x))
        return x.relu_() if self.rectify else x


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(before, after, stride=stride)
        self.second = ConvNorm(after, after, rectify=False)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(before, after, size=1, stride=stride, rectify=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, before, h, w) to (n, after, h / stride, w / stride)."""
        return self.second(self.first(x)).add_(self.shortcut(x)).relu_()
