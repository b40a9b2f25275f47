"""TMANet: temporal memory attention (Wang, Wang and Liu, ICIP 2021), on any backbone.

    earlier frames -- encode --> features -- position 0 .. T-1 --> keys, values
                                                                          |
                                          query --> key -- attention -----+--> read
                                            |                                   |
    frame ----------- encode --> features --+----> value ------------------- concat -- decoder --> logits

Every pixel looks at all cells of T earlier frames at once, under one softmax; products of keys are not scaled down.
Keys and values of each position, the oldest first, are made by convolutions of its own: T is part of the network, and
what a frame leaves behind is its features alone. Where fewer than T frames came before, the first one stands for those
that are missing.

The decoder is one of the backbone's kind, for a map twice as wide as the values; on the published backbone it is the
published one. Modules bear published names, but for the decoder's.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from .backbones.blocks import ConvBNReLU
from .keymaps import SINGLE_FRAME, TMANET
from .method import WindowMethod, drawn_offsets, split_rates
from .ops import attention_map, global_attention

VALUES = 256  # channels of values, as published; half of a narrow backbone's
UNSCALED = 1.0


def embedding(in_channels: int, channels: int) -> list[nn.Module]:
    """The two layers that make keys, or values, of features; keys are not negative."""
    return [ConvBNReLU(in_channels, channels, 1), ConvBNReLU(channels, channels, 3)]


class TMANet(WindowMethod):
    """State: features of the last frames (models.method.History of maps)."""

    def __init__(
        self,
        backbone,
        offsets: tuple[int, ...] = (-2, -1),
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        random_memory: tuple[int, int] | None = None,
        aux_weight: float = 0.0,
        head_lr: float = 1.0,
    ):
        """offsets: of the frames in memory, at least one. key_channels, value_channels: by default as published, 64 and
        256, or a quarter and all of half the backbone's channels where it has fewer than 512.

        random_memory (N, W): a training clip has N frames in memory, drawn among the last W. head_lr: learning rate of
        all that is not the encoder, relative to the encoder's. ValueError for an empty memory.
        """
        if not offsets:
            raise ValueError("TMANet reads at least one earlier frame, got no offsets")
        super().__init__(backbone, offsets)
        channels = backbone.channels
        values = value_channels or min(VALUES, channels // 2)
        keys = key_channels or values // 4
        self.random_memory, self.aux_weight, self.head_lr = random_memory, aux_weight, head_lr
        self.query_key_conv = nn.Sequential(*embedding(channels, keys))
        self.query_value_conv = nn.Sequential(*embedding(channels, values))
        self.memory_key_conv = per_position(channels, keys, len(offsets))
        self.memory_value_conv = per_position(channels, values, len(offsets))
        self.decoder = backbone.second_decoder(2 * values)
        self.dropped = tuple(f"backbone.{name}." for name in drop_decoder(backbone))

    @classmethod
    def from_args(cls, backbone, args):
        return cls(
            backbone,
            args.offsets,
            key_channels=args.key_channels,
            value_channels=args.value_channels,
            random_memory=args.random_memory,
            aux_weight=args.aux_weight,
            head_lr=args.head_lr,
        )

    def training_offsets(self, rng: random.Random):
        return drawn_offsets(rng, *self.random_memory) if self.random_memory else self.offsets

    def startup(self, past):
        return tuple(max(offset, -past) for offset in self.offsets)

    # The drawing

    def remember(self, encoded):
        return encoded.last

    def read(self, encoded, entries):
        key, value = self.query_key_conv(encoded.last), self.query_value_conv(encoded.last)
        keys, values = self.memory(self.filled(encoded.last, entries))
        with torch.autocast(
            key.device.type, enabled=False
        ):  # products are unscaled: rounding them shows
            wide = torch.promote_types(key.dtype, torch.float32)
            read = global_attention(
                key.to(wide),
                [x.to(wide) for x in keys],
                [x.to(wide) for x in values],
                scale=UNSCALED,
            )
        return self.decoder(torch.cat([value, read.to(value.dtype)], 1))

    def filled(self, own: Tensor, entries: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As many entries as there are positions: the oldest, or else the frame itself, stands for missing ones."""
        return (entries[0] if entries else own,) * (len(self.offsets) - len(entries)) + tuple(
            entries
        )

    def memory(self, entries: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """T entries (B, F, h, w) -> T keys (B, C, h, w), T values (B, V, h, w), each by its position."""
        return at_positions(self.memory_key_conv, entries), at_positions(
            self.memory_value_conv, entries
        )

    # Training

    def losses(self, clip, labels, flows=None):
        """Cross entropy of the last frame, and of its auxiliary head.

        The last frame is encoded first, then the others in their order: batch norm's statistics depend on it.
        """
        *past, last = clip.unbind(1)
        encoded = self.encode(last)
        logits = self.read(encoded, tuple(self.remember(self.encode(frame)) for frame in past))
        loss = self.cross_entropy(logits, labels[:, -1])
        return self.with_auxiliary(loss, encoded, labels[:, -1], self.aux_weight)

    def parameter_groups(self, lr, weight_decay):
        encoder = (p for part in self.backbone.encoder_parts() for p in part.parameters())
        return split_rates(self, [(encoder, 1.0)], lr, self.head_lr, weight_decay)

    # For others

    def key_maps(self):
        return [
            TMANET,
            *(table.without(*self.dropped) for table in (SINGLE_FRAME, *self.backbone.key_maps())),
        ]

    def exact_parts(self) -> list[nn.Module]:
        """What half precision leaves in float32: keys, since their products are not scaled down."""
        return [
            part.conv
            for convs in (self.query_key_conv, self.memory_key_conv)
            for part in convs.modules()
            if isinstance(part, ConvBNReLU)
        ]

    @torch.no_grad()
    def attention(self, frame: Tensor, state, yx: tuple[int, int]) -> Tensor:
        """Where pixel yx of frame (1, 3, H, W) looks in the frames that `step(frame, state)` reads -> (T, h, w)."""
        features = self.encode(frame).last
        keys = at_positions(self.memory_key_conv, self.recalled(state, features))
        cell = yx[0] // self.backbone.stride, yx[1] // self.backbone.stride
        return attention_map(self.query_key_conv(features), keys, cell, None, scale=UNSCALED)


def per_position(in_channels: int, channels: int, positions: int) -> nn.ModuleList:
    """Layers by positions, the order of published names: layer 0 of all positions, then layer 1."""
    pairs = [embedding(in_channels, channels) for _ in range(positions)]
    return nn.ModuleList(nn.ModuleList(layer) for layer in zip(*pairs, strict=True))


def at_positions(layers: nn.ModuleList, entries: tuple[Tensor, ...]) -> list[Tensor]:
    """T maps through the layers of their positions."""
    maps = list(entries)
    for layer in layers:
        maps = [convolve(x) for convolve, x in zip(layer, maps, strict=True)]
    return maps


def drop_decoder(backbone: nn.Module) -> list[str]:
    """Take out what only the backbone's own logits need; -> the names of these parts."""
    kept = [*backbone.encoder_parts(), *backbone.auxiliary_parts(), backbone.normalize]
    names = [
        name for name, part in backbone.named_children() if not any(part is other for other in kept)
    ]
    for name in names:
        delattr(backbone, name)
    return names
