"""TMANet: temporal memory attention (Wang, Wang and Liu, ICIP 2021), on any backbone.

    earlier frames -- encode --> features -- position 0 .. T-1 --> keys, values
                                                                        |
                                           query --> key -- attention --+--> read
                                             |                                |
    frame ----------- encode --> features ---+----> value ----------------- concat
                                                                              |
                                                                 logits <-- decoder

Every pixel attends to all cells of T earlier frames at once, under one softmax; products of keys
are not scaled down. Keys and values of each position, the oldest first, are made by convolutions
of its own: T is part of the network, and what a frame leaves behind is its features alone. Where
fewer than T frames came before, the first one stands for those that are missing.

The decoder is one of the backbone's kind, for a map twice as wide as the values; on the published
backbone it is the published one. Modules bear published names, but for the decoder's.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from .backbones.blocks import ConvBNReLU
from .keymaps import KeyMap
from .method import WindowMethod, drawn_offsets, split_rates
from .ops import attention_map, global_attention
from .single import SINGLE_FRAME

VALUES = 256  # channels of values, as published; half of a narrow backbone's
UNSCALED = 1.0  # products of keys are taken as they are

# TMANet's files hold the backbone without a decoder of its own; an auxiliary head may be missing.
TMANET = KeyMap(
    "TMANet",
    (
        (r"backbone\.(?:stem|layer[1-4])\..+", r"\g<0>"),
        (r"decode_head\.((?:query|memory)_(?:key|value)_conv\..+)", r"\1"),
        (r"decode_head\.bottleneck\.(.+)", r"decoder.convs.0.\1"),
        (r"decode_head\.(conv_seg\..+)", r"decoder.\1"),
        (r"auxiliary_head\..+", r"backbone.\g<0>"),
    ),
    covers=r"(?!backbone\.auxiliary_head\.).+",
)


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
        """offsets: of the frames in memory, at least one; ValueError for an empty memory.

        value_channels: by default 256 as published, or half of a backbone's that has fewer than
        512; key_channels: a quarter of that. random_memory (N, W): a training clip has N frames in
        memory, drawn among the last W. head_lr: learning rate of all that is not the encoder,
        relative to the encoder's.
        """
        if not offsets:
            raise ValueError("TMANet reads at least one earlier frame, got no offsets")
        super().__init__(backbone, offsets)
        channels = backbone.channels
        values = value_channels or min(VALUES, channels // 2)
        keys = key_channels or values // 4
        self.random_memory = random_memory
        self.aux_weight = aux_weight
        self.head_lr = head_lr
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
        if self.random_memory:
            return drawn_offsets(rng, *self.random_memory)
        return self.offsets

    def startup(self, past):
        """Where fewer frames came before, the first one stands for those that are missing."""
        return tuple(max(offset, -past) for offset in self.offsets)

    # The drawing

    def memory_entry(self, encoded):
        return encoded.last

    def predict(self, encoded, entries):
        key = self.query_key_conv(encoded.last)
        value = self.query_value_conv(encoded.last)
        keys, values = self.memory(self.filled(encoded.last, entries))
        # Products are unscaled, so rounding them shows: float32 at least.
        with torch.autocast(key.device.type, enabled=False):
            wide = torch.promote_types(key.dtype, torch.float32)
            read = global_attention(
                key.to(wide),
                [x.to(wide) for x in keys],
                [x.to(wide) for x in values],
                scale=UNSCALED,
            )
        return self.decoder(torch.cat([value, read.to(value.dtype)], 1))  # (B, 2 V, h, w)

    def filled(self, own: Tensor, entries: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As many entries as there are positions.

        The oldest, or else the frame itself, stands for missing ones.
        """
        oldest = entries[0] if entries else own
        missing = len(self.offsets) - len(entries)
        return (oldest,) * missing + tuple(entries)

    def memory(self, entries: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """T entries (B, F, h, w) -> T keys (B, C, h, w), T values (B, V, h, w), by position."""
        keys = at_positions(self.memory_key_conv, entries)
        values = at_positions(self.memory_value_conv, entries)
        return keys, values

    # Training

    def losses(self, clip, labels, flows=None):
        """Cross entropy of the last frame, and of its auxiliary head.

        The last frame is encoded first, then the others in their order: batch norm's statistics
        depend on it.
        """
        *past, last = clip.unbind(1)
        encoded = self.encode(last)
        entries = tuple(self.memory_entry(self.encode(frame)) for frame in past)
        logits = self.predict(encoded, entries)
        loss = self.cross_entropy(logits, labels[:, -1])
        return self.with_auxiliary(loss, encoded, labels[:, -1], self.aux_weight)

    def parameter_groups(self, lr, weight_decay):
        encoder = (p for part in self.backbone.encoder_parts() for p in part.parameters())
        return split_rates(self, [(encoder, 1.0)], lr, self.head_lr, weight_decay)

    # For others

    def key_maps(self):
        # The decoder that was taken out is in files of single-frame networks: known, not used.
        tables = (SINGLE_FRAME, *self.backbone.key_maps())
        return [TMANET, *(table.without(*self.dropped) for table in tables)]

    def fp32_modules(self) -> list[nn.Module]:
        """What half precision leaves in float32: keys, since their products are not scaled down."""
        parts = [*self.query_key_conv.modules(), *self.memory_key_conv.modules()]
        return [part.conv for part in parts if isinstance(part, ConvBNReLU)]

    @torch.no_grad()
    def attention(self, frame: Tensor, state, yx: tuple[int, int]) -> Tensor:
        """Where pixel yx of frame (1, 3, H, W) attends in the frames that `step(frame, state)`
        reads -> (T, h, w)."""
        features = self.encode(frame).last
        keys = at_positions(self.memory_key_conv, self.select_entries(state, features))
        stride = self.backbone.stride
        cell = yx[0] // stride, yx[1] // stride
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
    children = list(backbone.named_children())
    names = [name for name, part in children if not any(part is other for other in kept)]
    for name in names:
        delattr(backbone, name)
    return names
