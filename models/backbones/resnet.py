"""Dilated residual networks without a classifier, shared by PSPNet and the FCN networks.

    frame -- stem --> 1/4 -- layer1 --> 1/4 -- layer2 --> 1/8 -- layer3 --> 1/8 -- layer4 --> 1/8

ResNet: He et al., CVPR 2016; dilation: Yu et al., CVPR 2017. layer3 and layer4 keep stride 1 and
dilate their 3x3 convolutions instead. Module names are those of the published files: conv1, bn1,
conv2, bn2 (conv3, bn3), downsample.0, downsample.1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Features


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut of x). A subclass gives `residual` and sets `downsample`."""

    expansion: int  # output channels / width
    downsample: nn.Sequential | None  # see `shortcut`

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return F.relu(out + x, inplace=True)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: (B, in, h, w) -> (B, width, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        # Only the second convolution is dilated
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(out))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions: (B, in, h, w) -> (B, 4 * width, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        # The 3x3 convolution has the stride and the dilation
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return self.bn3(self.conv3(out))


LAYOUTS = {  # depth: the block and how many of it each layer has
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
# Of layer1 to layer4. Strides and dilations together keep the field of view of ResNet's stride 32
# at stride 8.
WIDTHS = (64, 128, 256, 512)
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
STAGE_STRIDES = (4, 8, 8, 8)  # H / h of their outputs


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The module that brings a block's input to the shape of its output; None where they agree."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def plain_stem() -> nn.Sequential:
    """One 7x7 convolution and a pooling: (B, 3, H, W) -> (B, 64, H/4, W/4)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
    )


def deep_stem(first: int, second: int, third: int) -> nn.Sequential:
    """Three 3x3 convolutions and a pooling: (B, 3, H, W) -> (B, third, H/4, W/4).

    The modules 0, 1, 3, 4, 6 and 7 have weights.
    """
    convolutions = ((3, first, 2), (first, second, 1), (second, third, 1))
    modules: list[nn.Module] = []
    for in_channels, out_channels, stride in convolutions:
        modules += [
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*modules, nn.MaxPool2d(3, 2, padding=1))


def dilated_layers(
    depth: int, in_channels: int, *, contract_dilation: bool = False
) -> list[nn.Sequential]:
    """layer1 to layer4 with strides 1, 2, 1, 1 and dilations 1, 1, 2, 4.

    in_channels: of the stem. contract_dilation: the first block of a dilated layer uses half its
    dilation (ResNet-v1c of open-mmlab); otherwise all blocks of a layer use the same (semseg).
    ValueError for an unknown depth.
    """
    if depth not in LAYOUTS:
        raise ValueError(f"no ResNet-{depth}: choose its depth from {', '.join(map(str, LAYOUTS))}")
    block, counts = LAYOUTS[depth]
    layers = []
    for count, width, stride, dilation in zip(counts, WIDTHS, STRIDES, DILATIONS, strict=True):
        first_dilation = dilation
        if contract_dilation:
            first_dilation = max(dilation // 2, 1)
        out_channels = width * block.expansion
        blocks = [block(in_channels, width, stride, first_dilation)]
        blocks += [block(out_channels, width, 1, dilation) for _ in range(count - 1)]
        layers.append(nn.Sequential(*blocks))
        in_channels = out_channels
    return layers


def channels_of(depth: int) -> int:
    """Channels of layer4's output; layer3 has half of them."""
    block, _ = LAYOUTS[depth]
    return WIDTHS[-1] * block.expansion


def initialize(*parts: nn.Module) -> None:
    """Convolutions: kaiming normal by fan_out (He et al., ICCV 2015). Batch norms keep 1 and 0."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def run_layers(x: Tensor, layers: Iterable[nn.Module]) -> Features:
    """x (B, C, H/4, W/4) from the stem through layer1 to layer4.

    Each layer's output is a stage, the last one is `last`.
    """
    stages = []
    for layer in layers:
        x = layer(x)
        stages.append(x)
    return Features(x, tuple(stages))
