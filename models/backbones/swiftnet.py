"""SwiftNet on ResNet-18 (Orsic et al., CVPR 2019): a light decoder that climbs from 1/32 to 1/4.

    frame -- conv1 --> layer1 --> layer2 --> layer3 --> layer4: last, 1/32
                         |          |          |           |
                         |          |          |          spp
                         |          |          |           |
                         |          |          +------ upsample.0
                         |          +----------------- upsample.1
                         +---------------------------- upsample.2 --> 1/4 -- logits --> logits 1/4

Every map is resized to the exact size of the skip it meets, so any frame size works. All modules
that are not ResNet's are batch norm, ReLU, convolution, in this order: the embedding is not
activated. Module names are the published ones, but for one `spp.` that is doubled in the files.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, FC, LAYERS, KeyMap
from ..ops.resize import resize_bilinear
from .backbone import Backbone, Features, Normalize
from .resnet import WIDTHS, BasicBlock, initialize, run_layers

WIDTH = 128  # of all maps of the decoder
STAGE_STRIDES = (4, 8, 16, 32)  # H / h of the outputs of layer1 to layer4
MEAN = (73.15, 82.90, 72.30)  # of the published training images, RGB from 0 to 255
STD = (47.67, 48.49, 47.73)

# Published files. The buffers hold MEAN and STD; older files lack them.
SWIFTNET_BUFFERS = r"backbone\.img_(?:mean|std)"
SWIFTNET_LOGITS = rf"logits\.(?:norm|conv)\.{BN}"
UPSAMPLE = rf"upsample\.[0-2]\.(?:bottleneck|blend_conv)\.(?:norm|conv)\.{BN}"
SWIFTNET18 = KeyMap(
    "SwiftNet",
    (
        (SWIFTNET_BUFFERS, None),
        (rf"backbone\.((?:conv1|bn1)\.{BN}|{LAYERS}|{UPSAMPLE})", r"\1"),
        (rf"backbone\.spp\.(spp\.(?:spp_bn|spp[0-2]|spp_fuse)\.(?:norm|conv)\.{BN})", r"\1"),
        (SWIFTNET_LOGITS, r"\g<0>"),
    ),
    covers=r".+",
)
# The ImageNet classifier, as a start
RESNET18_SWIFTNET = KeyMap(
    "torchvision's ResNet-18",
    ((rf"conv1\.weight|bn1\.{BN}", r"\g<0>"), (LAYERS, r"\g<0>"), (FC, None)),
    covers=r"(?:conv1|bn1|layer[1-4])\..+",
)


class BNReLUConv(nn.Module):
    """Batch norm, ReLU, convolution that keeps the map's size: (B, in, h, w) -> (B, out, h, w)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = False,
        momentum: float = 0.1,
    ):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(x)))


class SpatialPyramidPooling(nn.Module):
    """x (B, in, h, w) -> (B, 128, h, w): x beside its means over grids of several sizes.

    The grids have 8, 4 and 2 rows, and columns in the proportion of the map's sides.
    """

    ROWS = (8, 4, 2)
    MOMENTUM = 0.005  # of all its batch norms

    def __init__(self, in_channels: int):
        super().__init__()
        narrow = WIDTH // len(self.ROWS)  # 42
        self.spp_bn = BNReLUConv(in_channels, WIDTH, 1, momentum=self.MOMENTUM)
        # A child for each grid, as the published names of their weights have it
        for level in range(len(self.ROWS)):
            pooled = BNReLUConv(WIDTH, narrow, 1, momentum=self.MOMENTUM)
            self.add_module(f"spp{level}", pooled)
        total = WIDTH + narrow * len(self.ROWS)  # 254
        self.spp_fuse = BNReLUConv(total, WIDTH, 1, momentum=self.MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spp_bn(x)  # (B, 128, h, w)
        height, width = x.shape[-2:]
        maps = [x]
        for level, rows in enumerate(self.ROWS):
            # A grid may be finer than the map: then cells repeat
            columns = max(1, round(rows * width / height))
            cells = F.adaptive_avg_pool2d(x, (rows, columns))
            narrow = self.get_submodule(f"spp{level}")(cells)  # (B, 42, rows, columns)
            maps.append(resize_bilinear(narrow, (height, width)))
        return self.spp_fuse(torch.cat(maps, dim=1))


class Upsample(nn.Module):
    """x (B, 128, h, w), skip (B, S, h', w') -> (B, 128, h', w')."""

    def __init__(self, skip_channels: int):
        super().__init__()
        self.bottleneck = BNReLUConv(skip_channels, WIDTH, 1)
        self.blend_conv = BNReLUConv(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        skip = self.bottleneck(skip)
        return self.blend_conv(resize_bilinear(x, skip.shape[-2:]) + skip)


def swiftnet_logits(num_outputs: int, kernel_size: int) -> BNReLUConv:
    """(B, 128, h, w) -> logits. Published as 1x1 with a bias, and older as 3x3 without."""
    return BNReLUConv(WIDTH, num_outputs, kernel_size, bias=kernel_size == 1)


def plain_decoder(channels: int, num_outputs: int, kernel_size: int) -> nn.Sequential:
    """(B, channels, h, w) -> logits (B, num_outputs, h, w): the decoder's last block, no skips."""
    parts = OrderedDict(
        blend_conv=BNReLUConv(channels, WIDTH, 3), logits=swiftnet_logits(num_outputs, kernel_size)
    )
    return nn.Sequential(parts)


def layers18() -> list[nn.Sequential]:
    """ResNet-18's layer1 to layer4, not dilated: maps at 1/4, 1/8, 1/16 and 1/32."""
    layers = []
    in_channels = 64
    for width in WIDTHS:
        stride = 1 if width == in_channels else 2
        blocks = BasicBlock(in_channels, width, stride), BasicBlock(width, width)
        layers.append(nn.Sequential(*blocks))
        in_channels = width
    return layers


class SwiftNet(Backbone):
    """What both SwiftNets share: steps from `last` up to 1/4, each with a skip.

    `embed` reads the stages finer than `last` and gives (B, 128, H/4, W/4), rounded up.
    """

    channels = WIDTH
    stage_strides = STAGE_STRIDES
    stage_channels = (WIDTH,) * len(STAGE_STRIDES)
    embedding_channels = WIDTH
    logits: nn.Module

    def __init__(self, num_classes: int, logits_kernel: int):
        """logits_kernel: 1, or 3 for older published files (see `swiftnet_logits`)."""
        super().__init__()
        self.num_outputs = num_classes
        self.logits_kernel = logits_kernel
        self.normalize = Normalize(tuple(x / 255 for x in MEAN), tuple(x / 255 for x in STD))

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> SwiftNet:
        return cls(num_classes, logits_kernel=args.logits_kernel)

    def steps(self) -> Iterable[nn.Module]:
        """The modules (x, skip) -> x of the decoder, in order."""
        raise NotImplementedError

    def embed(self, features: Features) -> Tensor:
        x = features.last
        steps = tuple(self.steps())
        skips = features.stages[: len(steps)]
        for step, skip in zip(steps, reversed(skips), strict=True):
            x = step(x, skip)
        return x

    def classify(self, embedding: Tensor) -> Tensor:
        return self.logits(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        return plain_decoder(channels, self.num_outputs, self.logits_kernel)


class SwiftNet18(SwiftNet):
    """Single scale. `stages` are the outputs of layer1 to layer4, `last` is that of layer4."""

    channels = WIDTHS[-1]
    stage_channels = WIDTHS
    stride = 32

    def __init__(self, num_classes: int, *, logits_kernel: int = 1):
        super().__init__(num_classes, logits_kernel)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers18()
        self.spp = SpatialPyramidPooling(WIDTHS[-1])
        initialize(*self.encoder_parts())
        # Up to the sizes of layer3, layer2 and layer1
        self.upsample = nn.ModuleList(Upsample(width) for width in reversed(WIDTHS[:-1]))
        self.logits = swiftnet_logits(num_classes, logits_kernel)

    def encode(self, frame: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(self.normalize(frame))), inplace=True)  # 1/2
        x = F.max_pool2d(x, 3, 2, padding=1)  # (B, 64, H/4, W/4)
        return run_layers(x, (self.layer1, self.layer2, self.layer3, self.layer4))

    def steps(self) -> Iterable[nn.Module]:
        return self.upsample

    def embed(self, features: Features) -> Tensor:
        return super().embed(features._replace(last=self.spp(features.last)))

    def encoder_parts(self) -> list[nn.Module]:
        layers = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [self.conv1, self.bn1, *layers]

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in (SWIFTNET18, RESNET18_SWIFTNET)]
