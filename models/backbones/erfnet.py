"""ERFNet (Romera et al., T-ITS 2018): factorised convolutions, real time on 512x1024 frames.

    frame -- initial_block --> 1/2 -- layers.0 --> 1/4 -- 5 blocks, layers.6 --> 1/8 -- 8 dilated blocks --> last
    last -- decoder.layers: up, 2 blocks, up, 2 blocks --> 1/2 -- output_conv --> logits 1/1
    last -- decoder.output_conv_stm_shallow --> logits 1/8          (the shallow decoder of LMANet)

One output more than there are classes: the last is "ignore", learned. Frames enter as they are, in [0, 1].
Module names are the published ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, ERFNET, ERFNET_ENCODER, ERFNET_SHALLOW, KeyMap
from .backbone import Backbone, Features, SizeRule

EPS = 1e-3  # of every batch norm of this network


def halve(x: Tensor) -> Tensor:
    """F.max_pool2d(x, 2); without gradients as a maximum of slices, which for three channels takes a CPU a tenth."""
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class Down(nn.Module):
    """x (B, in, h, w) -> (B, out, h/2, w/2): a strided convolution beside a pooling; h and w even."""

    def __init__(self, in_channels: int, out_channels: int, use_bn: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, 2, padding=1)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)
        self.use_bn = use_bn

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([self.conv(x), halve(x)], dim=1)
        return F.relu(self.bn(out) if self.use_bn else out, inplace=True)


class NonBottleneck(nn.Module):
    """A residual block of 3x1 and 1x3 convolutions, the second pair dilated: (B, F, h, w) -> the same."""

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0, use_bn: bool = True):
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=EPS)
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
        out = self.conv1x3_1(F.relu(self.conv3x1_1(x), inplace=True))
        out = F.relu(self.bn1(out) if self.use_bn else out, inplace=True)
        out = self.conv1x3_2(F.relu(self.conv3x1_2(out), inplace=True))
        if self.use_bn:  # without batch norm the published block has no dropout either
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
        return F.relu(self.bn(out) if self.use_bn else out, inplace=True)


class Encoder(nn.Module):
    """frame (B, 3, H, W) -> (B, 128, H/8, W/8). dropout: of the blocks with 64 and of those with 128 channels."""

    def __init__(self, dropout: tuple[float, float], use_bn: bool):
        super().__init__()
        early, late = dropout
        self.initial_block = Down(3, 16, use_bn)
        self.layers = nn.Sequential(
            Down(16, 64, use_bn),
            *(NonBottleneck(64, 1, early, use_bn) for _ in range(5)),
            Down(64, 128, use_bn),
            *(NonBottleneck(128, dilation, late, use_bn) for dilation in (2, 4, 8, 16) * 2),
        )

    def forward(self, frame: Tensor) -> Tensor:
        return self.layers(self.initial_block(frame))


class Decoder(nn.Module):
    """x (B, F, h, w) -- embed --> (B, 16, 4h, 4w) -- classify --> logits (B, num_outputs, 8h, 8w)."""

    def __init__(self, channels: int, num_outputs: int, use_bn: bool = True):
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            Up(channels, half, use_bn),
            *(NonBottleneck(half, use_bn=use_bn) for _ in range(2)),
            Up(half, 16, use_bn),
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
    """x (B, F, h, w) -> logits (B, num_outputs, h, w), as the classifier ERFNet's encoder is pretrained with."""

    def __init__(self, channels: int, num_outputs: int):
        super().__init__()
        self.output_conv_stm_shallow = nn.Conv2d(channels, num_outputs, 1)

    def embed(self, x: Tensor) -> Tensor:
        return x

    def classify(self, embedding: Tensor) -> Tensor:
        return self.output_conv_stm_shallow(embedding)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x)


def freeze_bn(part: nn.Module, use_bn: bool) -> None:
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
        """use_bn=False skips every batch norm and the dropout beside it; their weights stay in the state dict."""
        super().__init__()
        self.num_outputs = num_classes + 1
        self.shallow_decoder, self.use_bn = shallow_decoder, use_bn
        self.encoder = Encoder(dropout, use_bn)
        freeze_bn(self.encoder, use_bn)
        self.decoder = self.second_decoder(self.channels)

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
        freeze_bn(decoder, self.use_bn)
        return decoder

    def encoder_parts(self) -> list[nn.Module]:
        return [self.encoder]

    def key_maps(self) -> list[KeyMap]:
        key_maps = (ERFNET_SHALLOW,) if self.shallow_decoder else (ERFNET, ERFNET_ENCODER)
        return [key_map.prefixed(BACKBONE) for key_map in key_maps]
