"""Pyramidal SwiftNet on ResNet-18 (Orsic et al., CVPR 2019): one encoder sees three sizes.

    frame 1/1 -- encoder --> 1/4   1/8   1/16  1/32
    frame 1/2 -- encoder -->       1/8   1/16  1/32  1/64
    frame 1/4 -- encoder -->             1/16  1/32  1/64  1/128
                              |     |     |     |     |     |
    sums of equal size        0     1     2     3     4     5

    sum 5 -- up, + sum 4 -- up, + sum 3 -- up, + sum 2 --> last 1/16
    last --- up, + sum 1 -- up, + sum 0 --> 1/4 -- logits --> logits 1/4

The sizes share all convolutions, and each has batch norms of its own. What leaves the encoder is
not activated. Module names are the published ones, but for the first three blends: they belong to
`encode` and are `coarse_blends.0` to `.2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, FC, KeyMap
from ..ops.resize import resize_bilinear
from .backbone import Features, SizeRule
from .resnet import WIDTHS, initialize, shortcut
from .swiftnet import (
    SWIFTNET_BUFFERS,
    SWIFTNET_LOGITS,
    WIDTH,
    BNReLUConv,
    SwiftNet,
    swiftnet_logits,
)

LEVELS = 3  # sizes of the frame, each half of the one before
LAYER = r"layer[1-4]\.[01]"
SHARED = rf"conv1\.weight|{LAYER}\.(?:conv[12]\.weight|downsample\.[01]\.{BN})"
BLEND = rf"blend_conv\.(?:norm|conv)\.{BN}"

# Published files. The buffers are those of the single scale.
SWIFTNET18_PYRAMID = KeyMap(
    "SwiftNet with a pyramid",
    (
        (SWIFTNET_BUFFERS, None),
        (rf"backbone\.({SHARED}|(?:bn1|{LAYER}\.bn[12])\.[0-2]\.{BN})", r"\1"),
        (r"backbone\.(upsample_bottlenecks\.[0-3]\.weight)", r"\1"),
        (rf"backbone\.upsample_blends\.([0-2]\.{BLEND})", r"coarse_blends.\1"),
        (rf"backbone\.(upsample_blends\.[34]\.{BLEND})", r"\1"),
        (SWIFTNET_LOGITS, r"\g<0>"),
    ),
    covers=r".+",
)
# The ImageNet classifier, as a start: its batch norms begin those of all levels
RESNET18_PYRAMID = KeyMap(
    "torchvision's ResNet-18",
    ((SHARED, r"\g<0>"), (rf"(bn1|{LAYER}\.bn[12])\.({BN})", r"\1.*.\2"), (FC, None)),
    covers=r"(?:conv1|bn1|layer[1-4])\..+",
    copies=tuple(map(str, range(LEVELS))),
)


def norms(channels: int) -> nn.ModuleList:
    """A batch norm for each level."""
    return nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(LEVELS))


class PyramidBlock(nn.Module):
    """A residual block that does not activate its output, for maps of any level.

    x (B, in, h, w) -> (B, width, h / stride, w / stride)
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = norms(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norms(width)
        self.downsample = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor, level: int) -> Tensor:
        out = F.relu(self.bn1[level](self.conv1(x)), inplace=True)
        out = self.bn2[level](self.conv2(out))
        if self.downsample is not None:
            x = self.downsample(x)
        return out + x


class Blend(nn.Module):
    """x (B, 128, h, w), skip (B, 128, h', w') -> (B, 128, h', w')."""

    def __init__(self):
        super().__init__()
        self.blend_conv = BNReLUConv(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.blend_conv(resize_bilinear(x, skip.shape[-2:]) + skip)


class SwiftNet18Pyramid(SwiftNet):
    """Three sizes. `stages` are the sums at 1/4 to 1/32, all of 128 channels.

    `last` is made of the third one and of all that are coarser: the first place in which all parts
    of the encoder have their share.
    """

    stride = 16
    # Then both halves of a side are whole numbers, and maps that are summed have equal sizes.
    size_rule = SizeRule(4)

    def __init__(self, num_classes: int, *, logits_kernel: int = 1):
        super().__init__(num_classes, logits_kernel)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = norms(64)
        in_channels = 64
        for number, width in enumerate(WIDTHS, 1):
            stride = 1 if width == in_channels else 2
            blocks = PyramidBlock(in_channels, width, stride), PyramidBlock(width, width)
            self.add_module(f"layer{number}", nn.ModuleList(blocks))
            in_channels = width
        # From the coarsest to the finest: of layer4 first
        self.upsample_bottlenecks = nn.ModuleList(
            nn.Conv2d(width, WIDTH, 1, bias=False) for width in reversed(WIDTHS)
        )
        # One list in the published files: each keeps its number
        self.coarse_blends = nn.ModuleDict({str(number): Blend() for number in (0, 1, 2)})
        initialize(*self.encoder_parts())
        self.upsample_blends = nn.ModuleDict({str(number): Blend() for number in (3, 4)})
        self.logits = swiftnet_logits(num_classes, logits_kernel)

    def encode(self, frame: Tensor) -> Features:
        images = pyramid(self.normalize(frame))
        sums = list(self.skips(images[0], 0))
        for level, image in enumerate(images[1:], 1):
            *finer, coarsest = self.skips(image, level)
            for place, skip in enumerate(finer, level):
                sums[place] = sums[place] + skip
            sums.append(coarsest)
        x = sums[5]
        for blend, skip in zip(self.coarse_blends.values(), sums[4:1:-1], strict=True):
            x = blend(x, skip)
        return Features(x, tuple(sums[:4]))

    def skips(self, image: Tensor, level: int) -> Iterator[Tensor]:
        """image (B, 3, h, w) -> maps (B, 128, ...) of layer1 to layer4, at 1/4 to 1/32 of it."""
        x = F.relu(self.bn1[level](self.conv1(image)), inplace=True)
        x = F.max_pool2d(x, 3, 2, padding=1)
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        for layer, bottleneck in zip(layers, reversed(self.upsample_bottlenecks), strict=True):
            for block in layer:
                out = block(x, level)
                x = F.relu(out)  # not in place: `out` is read below
            yield bottleneck(out)

    def steps(self) -> Iterable[nn.Module]:
        return self.upsample_blends.values()

    def encoder_parts(self) -> list[nn.Module]:
        layers = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [self.conv1, self.bn1, *layers, self.upsample_bottlenecks, self.coarse_blends]

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in (SWIFTNET18_PYRAMID, RESNET18_PYRAMID)]


def pyramid(frame: Tensor) -> list[Tensor]:
    """frame (B, 3, H, W), H and W multiples of 4 -> itself, a half and a quarter of it, bicubic.

    Each is made from the whole frame.
    """
    images = [frame]
    height, width = frame.shape[-2:]
    for level in range(1, LEVELS):
        size = (height >> level, width >> level)
        images.append(F.interpolate(frame, size, mode="bicubic", align_corners=False))
    return images
