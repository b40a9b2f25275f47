"""ERFNet (Romera et al., T-ITS 2018): factorised convolutions, real time on 512x1024 frames.

    frame -- initial_block --> 1/2 -- layers.0 --> 1/4 -- 5 blocks, layers.6 --> 1/8
                                                              -- 8 dilated blocks --> last
    last -- decoder.layers: up, 2 blocks, up, 2 blocks --> 1/2 -- output_conv --> logits 1/1
    last -- decoder.output_conv_stm_shallow --> logits 1/8        (the shallow decoder of LMANet)

The network has one output more than there are classes: the last one is "ignore", which is learned.
Frames are not normalised: they enter in [0, 1]. Module names are the published ones.
"""

from __future__ import annotations

from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, KeyMap
from .backbone import Backbone, Features, SizeRule

EPS = 1e-3  # of every batch norm of this network

# Published files. The encoder is pretrained with a classifier of its own, `encoder.output_conv`.
ERFNET_PARTS = r"encoder\.(?:initial_block|layers)\..+"
ERFNET = KeyMap(
    "ERFNet",
    (
        (r"encoder\.output_conv\.(?:weight|bias)", None),
        (ERFNET_PARTS, r"\g<0>"),
        (r"decoder\.(?:layers|output_conv)\..+", r"\g<0>"),
    ),
    covers=r"(?:encoder|decoder)\..+",
)
ERFNET_ENCODER = KeyMap(
    "ERFNet's encoder",
    ((r"encoder\.output_conv\.(?:weight|bias)", None), (ERFNET_PARTS, r"\g<0>")),
    covers=r"encoder\..+",
)
ERFNET_SHALLOW = KeyMap(
    "ERFNet for the shallow decoder",
    (
        (r"encoder\.output_conv\.(weight|bias)", r"decoder.output_conv_stm_shallow.\1"),
        (ERFNET_PARTS, r"\g<0>"),
        (rf"decoder\.(?:layers\.[0-5]\.\w+|output_conv)\.{BN}", None),
    ),
    covers=r"encoder\..+",
)


def halve(x: Tensor) -> Tensor:
    """F.max_pool2d(x, 2): (B, C, h, w) -> (B, C, h/2, w/2), h and w even."""
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    # The same maximum of slices. For three channels a CPU needs a tenth of the time for it.
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class Down(nn.Module):
    """x (B, in, h, w) -> (B, out, h/2, w/2): a strided convolution beside a pooling; h, w even."""

    def __init__(self, in_channels: int, out_channels: int, use_bn: bool = True):
        super().__init__()
        # The pooled input gives the other in_channels of the output
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, 2, padding=1)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)
        self.use_bn = use_bn

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([self.conv(x), halve(x)], dim=1)  # (B, out, h/2, w/2)
        if self.use_bn:
            out = self.bn(out)
        return F.relu(out, inplace=True)


class NonBottleneck(nn.Module):
    """A residual block: 3x1 and 1x3 convolutions twice, the second pair dilated.

    (B, F, h, w) -> the same shape.
    """

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0, use_bn: bool = True):
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=EPS)
        # As much padding as dilation: the map keeps its size
        self.conv3x1_2 = nn.Conv2d(
            channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.conv1x3_2 = nn.Conv2d(
            channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.bn2 = nn.BatchNorm2d(channels, eps=EPS)
        self.dropout = nn.Dropout2d(dropout)
        self.use_bn = use_bn

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.conv3x1_1(x), inplace=True)
        out = self.conv1x3_1(out)
        if self.use_bn:
            out = self.bn1(out)
        out = F.relu(out, inplace=True)

        out = F.relu(self.conv3x1_2(out), inplace=True)
        out = self.conv1x3_2(out)
        # Without batch norm the published block has no dropout either
        if self.use_bn:
            out = self.dropout(self.bn2(out))
        return F.relu(out + x, inplace=True)


class Up(nn.Module):
    """x (B, in, h, w) -> (B, out, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int, use_bn: bool = True):
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)
        self.use_bn = use_bn

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.use_bn:
            out = self.bn(out)
        return F.relu(out, inplace=True)


class Encoder(nn.Module):
    """frame (B, 3, H, W) -> (B, 128, H/8, W/8)."""

    def __init__(self, dropout: tuple[float, float], use_bn: bool):
        """dropout: of the blocks with 64 channels, and of those with 128."""
        super().__init__()
        early, late = dropout
        self.initial_block = Down(3, 16, use_bn)  # (B, 16, H/2, W/2)
        # The indices in `layers` are part of the published names
        self.layers = nn.Sequential(
            Down(16, 64, use_bn),  # (B, 64, H/4, W/4)
            *(NonBottleneck(64, 1, early, use_bn) for _ in range(5)),
            Down(64, 128, use_bn),  # (B, 128, H/8, W/8)
            *(NonBottleneck(128, dilation, late, use_bn) for dilation in (2, 4, 8, 16) * 2),
        )

    def forward(self, frame: Tensor) -> Tensor:
        return self.layers(self.initial_block(frame))


class Decoder(nn.Module):
    """x (B, F, h, w) -- embed --> (B, 16, 4h, 4w) -- classify --> (B, num_outputs, 8h, 8w)."""

    def __init__(self, channels: int, num_outputs: int, use_bn: bool = True):
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            Up(channels, half, use_bn),  # (B, F/2, 2h, 2w)
            *(NonBottleneck(half, use_bn=use_bn) for _ in range(2)),
            Up(half, 16, use_bn),  # (B, 16, 4h, 4w)
            *(NonBottleneck(16, use_bn=use_bn) for _ in range(2)),
        )
        self.output_conv = nn.ConvTranspose2d(16, num_outputs, 2, 2)

    def embed(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.output_conv(embedding)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.embed(x))


class ShallowDecoder(nn.Module):
    """x (B, F, h, w) -> logits (B, num_outputs, h, w): one 1x1 convolution.

    ERFNet's encoder is pretrained with a classifier of the same form.
    """

    def __init__(self, channels: int, num_outputs: int):
        super().__init__()
        self.output_conv_stm_shallow = nn.Conv2d(channels, num_outputs, 1)

    def embed(self, x: Tensor) -> Tensor:
        return x

    def classify(self, embedding: Tensor) -> Tensor:
        return self.output_conv_stm_shallow(embedding)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x)


def freeze_unused_bn(part: nn.Module, use_bn: bool) -> None:
    """A batch norm that is skipped is not trained either."""
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(use_bn)


class ERFNet(Backbone):
    """`last` is the encoder's output at 1/8 (128 channels); no stages, no auxiliary head."""

    channels = 128
    learned_ignore = True
    stride = 8
    size_rule = SizeRule(8)

    def __init__(
        self,
        num_classes: int,
        *,
        shallow_decoder: bool = False,
        use_bn: bool = True,
        dropout: tuple[float, float] = (0.03, 0.3),
    ):
        """use_bn=False skips every batch norm and the dropout beside it.

        The weights of skipped batch norms stay in the state dict.
        """
        super().__init__()
        self.num_outputs = num_classes + 1  # the last one is "ignore"
        self.shallow_decoder = shallow_decoder
        self.use_bn = use_bn
        self.loss_at_logits = shallow_decoder
        self.encoder = Encoder(dropout, use_bn)
        freeze_unused_bn(self.encoder, use_bn)
        self.decoder = self.second_decoder(self.channels)

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> ERFNet:
        use_bn = not args.backbone_nobn
        return cls(num_classes, shallow_decoder=args.shallow_dec, use_bn=use_bn)

    def encode(self, frame: Tensor) -> Features:
        return Features(self.encoder(self.normalize(frame)))

    def embed(self, features: Features) -> Tensor:
        return self.decoder.embed(features.last)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.decoder.classify(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        if self.shallow_decoder:
            return ShallowDecoder(channels, self.num_outputs)
        decoder = Decoder(channels, self.num_outputs, self.use_bn)
        freeze_unused_bn(decoder, self.use_bn)
        return decoder

    def encoder_parts(self) -> list[nn.Module]:
        return [self.encoder]

    def key_maps(self) -> list[KeyMap]:
        if self.shallow_decoder:
            return [ERFNET_SHALLOW.prefixed(BACKBONE)]
        return [ERFNET.prefixed(BACKBONE), ERFNET_ENCODER.prefixed(BACKBONE)]
