"""How LMANet fuses a frame with what it has read from memory (Paul et al., IROS 2021, III-D).

    value (B, V, h, w) of the frame --+-- gates --> sum of both, gated --> fused map (B, F, h, w)
    read  (B, V, h, w) of the memory -+                                    the decoder's input

FUSIONS holds the choices of --fusion-strategy: the channels of key and value that go with each, and
how it is built. Module names are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # of every batch norm here


class Fusion(nn.Module):
    """Base: batch norm, dropout and ReLU of both values; with dropout None neither changes."""

    def __init__(self, value_channels: int, dropout: float | None):
        super().__init__()
        self.activated = dropout is not None
        if self.activated:
            self.bn1 = nn.BatchNorm2d(value_channels, eps=EPS)
            self.bn2 = nn.BatchNorm2d(value_channels, eps=EPS)
            self.dropout = nn.Dropout2d(dropout)

    def activate(self, value: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        if not self.activated:
            return value, read
        value = F.relu(self.dropout(self.bn1(value)))
        read = F.relu(self.dropout(self.bn2(read)))
        return value, read


class ConcatFusion(Fusion):
    """Both values side by side; F = 2 V."""

    def __init__(self, channels: int, value_channels: int, dropout: float = 0.3):
        super().__init__(value_channels, dropout)

    def forward(self, value: Tensor, read: Tensor) -> Tensor:
        return torch.cat(self.activate(value, read), 1)


class GatedFusion(Fusion):
    """ReLU(bn(conv_layer_1(value) s(gate) + conv_layer_2(read) s(gate))), s the sigmoid.

    Both gates see both values.
    """

    def __init__(
        self,
        channels: int,
        value_channels: int,
        *,
        dropout: float | None = None,
        gates: tuple[str, str] = ("conv_layer_3", "conv_layer_4"),
        squash: Callable[[Tensor], Tensor] = torch.sigmoid,
    ):
        """gates: the convolutions that make the gate of the value and that of the read.

        They may be one.
        """
        super().__init__(value_channels, dropout)
        self.conv_layer_1 = nn.Conv2d(value_channels, channels, 3, padding=1)
        self.conv_layer_2 = nn.Conv2d(value_channels, channels, 3, padding=1)
        for name in dict.fromkeys(gates):
            self.add_module(name, nn.Conv2d(2 * value_channels, channels, 3, padding=1))
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.gates = gates
        self.squash = squash

    def forward(self, value: Tensor, read: Tensor) -> Tensor:
        value, read = self.activate(value, read)
        both = torch.cat([value, read], 1)
        gates = {}
        for name in dict.fromkeys(self.gates):  # each once, in a fixed order
            gates[name] = self.squash(self.get_submodule(name)(both))
        of_value, of_read = (gates[name] for name in self.gates)
        gated = self.conv_layer_1(value) * of_value + self.conv_layer_2(read) * of_read
        return F.relu(self.bn(gated))


class DownFusion(nn.Module):
    """ReLU(bn(value s(gate) + read s(gate))), the gates made from a narrow sum of both; V = F."""

    def __init__(self, channels: int, value_channels: int):
        super().__init__()
        middle = channels // 8
        self.conv_layer_1 = nn.Conv2d(channels, middle, 1)
        # In the published files, but never used: conv_layer_1 narrows both values.
        self.conv_layer_2 = nn.Conv2d(channels, middle, 1).requires_grad_(False)
        self.bn0 = nn.BatchNorm2d(middle, eps=EPS)
        self.conv_layer_3 = nn.Conv2d(middle, channels, 1)
        self.conv_layer_4 = nn.Conv2d(middle, channels, 1)
        self.bn = nn.BatchNorm2d(channels, eps=EPS)

    def forward(self, value: Tensor, read: Tensor) -> Tensor:
        narrow = F.relu(self.bn0(self.conv_layer_1(value) + self.conv_layer_1(read)))
        of_value = self.conv_layer_3(narrow).sigmoid()
        of_read = self.conv_layer_4(narrow).sigmoid()
        return F.relu(self.bn(value * of_value + read * of_read))


class Strategy(NamedTuple):
    """A row of FUSIONS.

    build: (F, V) -> module. key_part: keys have F / key_part channels. value_part: values have
    F / value_part; with 1 they are the features themselves, without a convolution.
    """

    build: Callable[[int, int], nn.Module]
    key_part: int = 8
    value_part: int = 2


# One gate for both values, under the names of the published files.
ONE_GATE_3 = ("conv_layer_3", "conv_layer_3")
ONE_GATE_34 = ("conv_layer_34", "conv_layer_34")

FUSIONS = {
    "sigmoid-do1": Strategy(partial(GatedFusion, dropout=0.3)),
    "sigmoid-do2": Strategy(partial(GatedFusion, dropout=0.0)),
    "sigmoid-do3": Strategy(partial(GatedFusion, dropout=0.3, gates=ONE_GATE_34)),
    "sigmoid": Strategy(GatedFusion),
    "simple-sigmoid": Strategy(partial(GatedFusion, gates=ONE_GATE_3)),
    "concat": Strategy(ConcatFusion),
    # What any unknown name meant in the original: gates that are not squashed
    "product": Strategy(partial(GatedFusion, squash=nn.Identity())),
    "sigmoid-down1": Strategy(DownFusion, key_part=16, value_part=1),
}
