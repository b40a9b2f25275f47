"""A convolutional LSTM, and the multi-frame distillation that ETC builds on it.

Source: Liu et al., ECCV 2020, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .distillation import cosine_affinity

HIDDEN = 4
POOL = 16  # side of a cell of which affinities are taken


class ConvLSTM(nn.Module):
    """One step: x (B, C, h, w) and a state -> the next state (hidden, cell), each (B, S, h, w)."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int = 3):
        super().__init__()
        self.hidden_channels = hidden_channels
        # The published name
        self.Gates = nn.Conv2d(
            in_channels + hidden_channels,
            4 * hidden_channels,
            kernel_size,
            padding=kernel_size // 2,
        )

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if state is None:
            zeros = x.new_zeros(len(x), self.hidden_channels, *x.shape[-2:])
            state = zeros, zeros
        hidden, cell = state
        gates = self.Gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        enter, forget, leave = (gate.sigmoid() for gate in gates[:3])
        cell = forget * cell + enter * gates[3].tanh()
        return leave * cell.tanh(), cell


class MultiFrame(nn.Module):
    """Affinities within each frame, read in order by one LSTM for student and teacher.

    It is trained too, by gradients through both: nothing forbids it to forget all, as published.
    """

    def __init__(self):
        super().__init__()
        self.convlstm = ConvLSTM(1, HIDDEN)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w) of the frames in their order, h, w of both networks the same -> scalar:
        squared differences of the last cells and of the last hidden states."""
        ours, theirs = self.read(student), self.read(teacher)
        return sum(F.mse_loss(mine, other) for mine, other in zip(ours, theirs, strict=True))

    def read(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        state = None
        for x in maps:
            # A small map has smaller cells: one alone would say nothing.
            side = max(min(POOL, min(x.shape[-2:]) // 2), 1)
            cells = F.avg_pool2d(x, side, side)
            state = self.convlstm(cosine_affinity(cells, cells)[:, None], state)
        return state
