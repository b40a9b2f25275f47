"""PSPNet (Zhao et al., CVPR 2017): a dilated ResNet, pooled at four scales.

    frame -- layer0..4 --> last -- ppm --> pooled maps beside `last` -- cls --> logits 1/8
                    |
                 layer3 -- aux --> logits 1/8 (training only)

    ppm: pool to 1, 2, 3 and 6 cells a side, 1x1 convolution, back to the size of `last`

PSPNet50 and PSPNet101 are semseg's (deep stem, sides 8n+1). PSPNet18 is ETC's (plain stem, any
size). Logits stay at 1/8 and are upsampled with aligned corners. Module names are the published
ones.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, FC, LAYERS, KeyMap
from .backbone import Backbone, Features, SizeRule, imagenet_normalize
from .resnet import (
    STAGE_STRIDES,
    channels_of,
    deep_stem,
    dilated_layers,
    initialize,
    plain_stem,
    run_layers,
)

# Published files: PSPNet whole, and ImageNet classifiers as a start.
PSPNET = rf"(?:layer0\.\d\.{BN}|{LAYERS}|ppm\.features\.[0-3]\.[12]\.{BN}|(?:cls|aux)\.[014]\.{BN})"
PSPNET_COVERS = r"(?:layer[0-4]|ppm|cls)\..+"  # the auxiliary head is optional
SEMSEG_PSPNET = KeyMap("semseg's PSPNet", ((PSPNET, r"\g<0>"),), covers=PSPNET_COVERS)
# ETC's trainer saves student, flow network, losses and teacher in one. Its evaluation files hold
# the student alone; where both spellings of a key occur, the student's counts.
ETC_PSPNET18 = KeyMap(
    "ETC's PSPNet18",
    (
        (r"(?:(?:module|student)\.)*(?:flownet|teacher|criterion)\..+", None),
        (rf"student\.(?:(?:module|student)\.)*({PSPNET})", r"\1"),
        (PSPNET, r"\g<0>"),
    ),
    covers=PSPNET_COVERS,
)


# ImageNet classifiers, as a start

RESNET18_PSPNET = KeyMap(
    "torchvision's ResNet-18",
    (
        (r"conv1\.(weight)", r"layer0.0.\1"),
        (rf"bn1\.({BN})", r"layer0.1.\1"),
        (LAYERS, r"\g<0>"),
        (FC, None),
    ),
    covers=r"layer[0-4]\..+",
)
# ResNets with a deep stem of 64, 64, 128 channels: resnet50_v2.pth, resnet101_v2.pth
RESNET_V2_PSPNET = KeyMap(
    "ResNet-v2 (deep stem)",
    (
        (r"conv1\.(weight)", r"layer0.0.\1"),
        (rf"bn1\.({BN})", r"layer0.1.\1"),
        (r"conv2\.(weight)", r"layer0.3.\1"),
        (rf"bn2\.({BN})", r"layer0.4.\1"),
        (r"conv3\.(weight)", r"layer0.6.\1"),
        (rf"bn3\.({BN})", r"layer0.7.\1"),
        (LAYERS, r"\g<0>"),
        (FC, None),
    ),
    covers=r"layer[0-4]\..+",
)


class PyramidPooling(nn.Module):
    """x (B, F, h, w) -> (B, 2F, h, w): x beside its means over grids of several sizes.

    bins: cells along each side of a grid; each grid gives F/4 channels.
    """

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        width = channels // len(bins)  # F/4
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(cells),  # (B, F, cells, cells)
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for cells in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        maps = [x]
        for scale in self.features:
            pooled = scale(x)  # (B, F/4, cells, cells)
            maps.append(F.interpolate(pooled, size, mode="bilinear", align_corners=True))
        return torch.cat(maps, dim=1)  # (B, 2F, h, w)


def classifier(in_channels: int, width: int, num_outputs: int, dropout: float) -> nn.Sequential:
    """(B, in, h, w) -> logits (B, num_outputs, h, w); the modules 0, 1 and 4 have weights."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(width, num_outputs, 1),
    )


class PSPNet(Backbone):
    """Any depth. `last` is layer4's output at 1/8, `stages` are the outputs of layer1 to layer4.

    `embed` gives the pooled map beside `last`, (B, 2F, h, w).
    """

    depth: int
    head_width: int = 512
    stride = 8
    align_corners = True
    stage_strides = STAGE_STRIDES

    def __init__(self, num_classes: int, *, dropout: float = 0.1):
        super().__init__()
        self.num_outputs = num_classes
        self.dropout = dropout
        self.channels = channels_of(self.depth)
        self.normalize = imagenet_normalize()
        self.layer0 = self.make_stem()
        # A stem ends with batch norm, ReLU, pooling
        stem_channels = self.layer0[-3].num_features
        layers = dilated_layers(self.depth, stem_channels)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        initialize(*self.encoder_parts())
        self.ppm = PyramidPooling(self.channels)
        # As many channels from pooling as in `last`
        self.cls = classifier(2 * self.channels, self.head_width, num_classes, dropout)
        self.aux = classifier(self.channels // 2, 256, num_classes, dropout)

    @staticmethod
    def make_stem() -> nn.Sequential:
        """(B, 3, H, W) -> (B, C, H/4, W/4), C = 128 here."""
        return deep_stem(64, 64, 128)

    def encode(self, frame: Tensor) -> Features:
        x = self.layer0(self.normalize(frame))  # (B, C, H/4, W/4)
        return run_layers(x, (self.layer1, self.layer2, self.layer3, self.layer4))

    def embed(self, features: Features) -> Tensor:
        return self.ppm(features.last)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.cls(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        ppm = PyramidPooling(channels)
        cls = classifier(2 * channels, self.head_width, self.num_outputs, self.dropout)
        return nn.Sequential(OrderedDict(ppm=ppm, cls=cls))

    def auxiliary(self, features: Features) -> Tensor:
        return self.aux(features.stages[2])  # layer3's output

    def auxiliary_parts(self) -> list[nn.Module]:
        return [self.aux]

    def encoder_parts(self) -> list[nn.Module]:
        return [self.layer0, self.layer1, self.layer2, self.layer3, self.layer4]

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in (SEMSEG_PSPNET, RESNET_V2_PSPNET)]


class PSPNet18(PSPNet):
    """ETC's student: 512 channels, 1024 pooled, a narrower classifier, any size."""

    depth = 18
    head_width = 256

    @staticmethod
    def make_stem() -> nn.Sequential:
        return plain_stem()

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in (ETC_PSPNET18, RESNET18_PSPNET)]


class PSPNet50(PSPNet):
    """semseg's: 2048 channels, 4096 pooled."""

    depth = 50
    size_rule = SizeRule(8, 1)


class PSPNet101(PSPNet):
    """semseg's: 2048 channels, 4096 pooled. LMANet's larger backbone and the teacher of ETC."""

    depth = 101
    size_rule = SizeRule(8, 1)
