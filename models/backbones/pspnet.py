"""PSPNet (Zhao et al., CVPR 2017): a dilated ResNet, pooled at four scales.

    frame -- layer0..4 --> last -- ppm: pool to 1, 2, 3, 6 cells, 1x1 conv, back --> concat -- cls --> logits 1/8
                    |
                 layer3 -- aux --> logits 1/8 (training only)

PSPNet50 and PSPNet101 are semseg's (deep stem, sides 8n+1), PSPNet18 is that of ETC (plain stem, any size).
Logits stay at 1/8 and are upsampled with aligned corners. Module names are the published ones.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import (
    BACKBONE,
    ETC_PSPNET18,
    RESNET18_PSPNET,
    RESNET_V2_PSPNET,
    SEMSEG_PSPNET,
    KeyMap,
)
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


class PyramidPooling(nn.Module):
    """x (B, F, h, w) -> (B, 2F, h, w): x, and its means over a grid of each number of cells, F/4 channels each."""

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        width = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(cells),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for cells in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        scales = [
            F.interpolate(scale(x), x.shape[-2:], mode="bilinear", align_corners=True)
            for scale in self.features
        ]
        return torch.cat([x, *scales], dim=1)


def classifier(in_channels: int, width: int, num_outputs: int, dropout: float) -> nn.Sequential:
    """(B, in, h, w) -> logits (B, num_outputs, h, w); indices 0, 1, 4 have weights."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(width, num_outputs, 1),
    )


class PSPNet(Backbone):
    """Any depth. `last` is layer4's output at 1/8, `stages` are layer1 to layer4, `embed` gives the pooled map."""

    depth: int
    head_width: int = 512
    stride = 8
    align_corners = True
    stage_strides = STAGE_STRIDES

    def __init__(self, num_classes: int, *, dropout: float = 0.1):
        super().__init__()
        self.num_outputs, self.dropout = num_classes, dropout
        self.channels = channels_of(self.depth)
        self.normalize = imagenet_normalize()
        self.layer0 = self.make_stem()
        stem_channels = self.layer0[-3].num_features  # of the batch norm before ReLU and pooling
        self.layer1, self.layer2, self.layer3, self.layer4 = dilated_layers(
            self.depth, stem_channels
        )
        initialize(*self.encoder_parts())
        self.ppm = PyramidPooling(self.channels)
        self.cls = classifier(2 * self.channels, self.head_width, num_classes, dropout)
        self.aux = classifier(self.channels // 2, 256, num_classes, dropout)

    @staticmethod
    def make_stem() -> nn.Sequential:
        return deep_stem(64, 64, 128)

    def encode(self, frame: Tensor) -> Features:
        x = self.layer0(self.normalize(frame))
        return run_layers(x, (self.layer1, self.layer2, self.layer3, self.layer4))

    def embed(self, features: Features) -> Tensor:
        return self.ppm(features.last)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.cls(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        return nn.Sequential(
            OrderedDict(
                ppm=PyramidPooling(channels),
                cls=classifier(2 * channels, self.head_width, self.num_outputs, self.dropout),
            )
        )

    def auxiliary(self, features: Features) -> Tensor:
        return self.aux(features.stages[2])

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
    """semseg's, 2048 channels, 4096 pooled."""

    depth = 50
    size_rule = SizeRule(8, 1)


class PSPNet101(PSPNet):
    """semseg's, 2048 channels, 4096 pooled: LMANet's larger backbone and the teacher of ETC."""

    depth = 101
    size_rule = SizeRule(8, 1)
