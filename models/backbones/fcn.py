"""Dilated ResNet-v1c with an FCN head (Long et al., CVPR 2015): TMANet's backbone on single frames.

    frame -- stem --> layer1..4 --> last -- head: 3x3 conv, dropout, 1x1 conv --> logits 1/8
                           |
                        layer3 -- auxiliary_head, the same form --> logits 1/8 (training only)

stem, layer1..4 and auxiliary_head have their published names. `head` is ours: TMANet has its memory
in that place.
"""

from __future__ import annotations

from argparse import Namespace

from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, FC, LAYERS, KeyMap
from .backbone import Backbone, Features, imagenet_normalize
from .blocks import ConvBNReLU
from .resnet import (
    STAGE_STRIDES,
    Bottleneck,
    channels_of,
    deep_stem,
    dilated_layers,
    initialize,
    run_layers,
)

# Published files of ImageNet classifiers, as a start.
STEM_V1C = rf"stem\.[013467]\.{BN}"
# open-mmlab's: a deep stem of 32, 32, 64 channels
RESNET_V1C = KeyMap(
    "ResNet-v1c",
    ((STEM_V1C, r"\g<0>"), (LAYERS, r"\g<0>"), (FC, None)),
    covers=r"(?:stem|layer[1-4])\..+",
)
RESNET_V1C_STEM = KeyMap("the stem of ResNet-v1c", ((STEM_V1C, r"\g<0>"),), covers=r"stem\..+")
# torchvision's, whose plain stem does not fit a ResNet-v1c: to go with a stem of its own
RESNET_BODY = KeyMap(
    "the layers of torchvision's ResNet",
    ((rf"conv1\.weight|bn1\.{BN}", None), (LAYERS, r"\g<0>"), (FC, None)),
    covers=r"layer[1-4]\..+",
)


class FCNHead(nn.Module):
    """x (B, in, h, w) -> logits (B, num_outputs, h, w)."""

    def __init__(self, in_channels: int, width: int, num_outputs: int, dropout: float = 0.1):
        super().__init__()
        # A sequence of one, as the published names of its weights have it: convs.0
        self.convs = nn.Sequential(ConvBNReLU(in_channels, width, 3))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(width, num_outputs, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def classify(self, embedding: Tensor) -> Tensor:
        """What `convs` gives, (B, width, h, w) -> logits (B, num_outputs, h, w)."""
        return self.conv_seg(self.dropout(embedding))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.convs(x))


class ResNetV1c(Backbone):
    """Any depth and frame size.

    `last` is layer4's output at 1/8 (2048 channels), `stages` are the outputs of layer1 to layer4.
    """

    depth: int
    stride = 8
    stage_strides = STAGE_STRIDES

    def __init__(self, num_classes: int, *, align_corners: bool = False, dropout: float = 0.1):
        """align_corners: of the upsampling of logits; TMANet has it for Cityscapes, not CamVid."""
        super().__init__()
        self.num_outputs = num_classes
        self.dropout = dropout
        self.channels = channels_of(self.depth)
        self.align_corners = align_corners
        self.normalize = imagenet_normalize()
        self.stem = deep_stem(32, 32, 64)  # narrower than semseg's 64, 64, 128
        layers = dilated_layers(self.depth, 64, contract_dilation=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        initialize(*self.encoder_parts())
        # A block begins as its shortcut: the batch norm that ends its residual gives zero
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
        self.head = FCNHead(self.channels, 512, num_classes, dropout)
        self.auxiliary_head = FCNHead(self.channels // 2, 256, num_classes, dropout)

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> ResNetV1c:
        if args.align_corners is None:
            return cls(num_classes)
        return cls(num_classes, align_corners=args.align_corners)

    def encode(self, frame: Tensor) -> Features:
        x = self.stem(self.normalize(frame))  # (B, 64, H/4, W/4)
        return run_layers(x, (self.layer1, self.layer2, self.layer3, self.layer4))

    def embed(self, features: Features) -> Tensor:
        return self.head.convs(features.last)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.head.classify(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        return FCNHead(channels, 512, self.num_outputs, self.dropout)

    def auxiliary(self, features: Features) -> Tensor:
        return self.auxiliary_head(features.stages[2])  # layer3's output

    def auxiliary_parts(self) -> list[nn.Module]:
        return [self.auxiliary_head]

    def encoder_parts(self) -> list[nn.Module]:
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def key_maps(self) -> list[KeyMap]:
        published = (RESNET_V1C, RESNET_V1C_STEM, RESNET_BODY)
        return [key_map.prefixed(BACKBONE) for key_map in published]


class ResNet50V1c(ResNetV1c):
    """23.5 million parameters without the heads."""

    depth = 50


class ResNet101V1c(ResNetV1c):
    """42.5 million parameters without the heads."""

    depth = 101
