"""Building blocks of heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import initialize


class ConvBNReLU(nn.Module):
    """Convolution that keeps the map's size, batch norm, ReLU: (B, in, h, w) -> (B, out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        # No bias: the batch norm that follows has one
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        initialize(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)
