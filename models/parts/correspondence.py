"""A correspondence loss: supervises attention with ground-truth flow.

    flows of a clip -- composed --> where each cell was in every earlier frame
                                                        |
    products of keys in the window -- softmax --- cross entropy

Labels alone teach keys slowly: what a read is worth depends on fusion and decoder, which learn at
the same time. Rendered clips and synthetic past motion bring exact flow, which says directly where
each pixel should attend: where its content was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 1024  # at most this many cells of a map are asked
FAR = 1e6  # pixels: where content that left the image is said to be


def correspondence_loss(query: Tensor, keys: Sequence[Tensor], flows: Tensor, size: int) -> Tensor:
    """Mean cross entropy, in nats, over cells whose content is still inside map and window.

    query (B, C, h, w); T keys (B, C, h, w) of the frames before it, oldest first; flows
    (B, T, 2, H, W) in pixels, flows[:, t] from the frame after keys[t] into that of keys[t].
    size: of the window; cells outside the map are left out. A position between cells counts for
    the four around it by their nearness. Of large maps every n-th cell is taken. 0 where no
    content is inside.
    """
    height, width = query.shape[-2:]
    stride = -(-height * width // CELLS)
    chosen = torch.arange(0, height * width, stride, device=query.device)  # (N,) cells
    hidden = outside_window(height, width, chosen, size)
    queries = query.flatten(2)[:, :, chosen].transpose(1, 2)  # (B, N, C)
    total = query.new_zeros((), dtype=torch.float32)
    count = 0
    for key, place in zip(reversed(keys), trace_positions(flows, (height, width)), strict=True):
        products = (queries @ key.flatten(2)).float()  # (B, N, h w)
        logs = products.masked_fill(hidden, -torch.inf).log_softmax(2)
        x, y = place.flatten(2)[:, :, chosen].unbind(1)
        # the four cells around the position: first, and one to the right, below, and both
        left = x.floor().clamp(0, width - 2)
        top = y.floor().clamp(0, height - 2)
        first = (top * width + left).long()
        seen = (x == x.clamp(0, width - 1)) & (y == y.clamp(0, height - 1))
        hidden_of_all = hidden.expand(len(x), -1, -1)
        for step in (0, 1, width, width + 1):
            seen = seen & ~hidden_of_all.gather(2, (first + step)[..., None])[..., 0]
        for dy in (0, 1):
            for dx in (0, 1):
                near = (1 - dy - (y - top)).abs() * (1 - dx - (x - left)).abs()
                log = logs.gather(2, (first + dy * width + dx)[..., None])[..., 0]
                total = total - torch.where(seen, near * log, 0).sum()
        count = count + seen.sum()
    return total / count.clamp(min=1)


def outside_window(height: int, width: int, chosen: Tensor, size: int) -> Tensor:
    """(N, h w) bool: True where a cell of the map is outside the window of a chosen one."""
    cells = torch.arange(height * width, device=chosen.device)
    rows = (cells // width - chosen[:, None] // width).abs()
    columns = (cells % width - chosen[:, None] % width).abs()
    return torch.maximum(rows, columns) > size // 2


def trace_positions(flows: Tensor, cells: Sequence[int]) -> Iterator[Tensor]:
    """Where each cell of the last frame was in every frame before it, newest first.

    flows (B, T, 2, H, W) between neighbours, composed by bilinear sampling -> (B, 2, h, w) in
    cells, x first. Content that left the image stays FAR away.
    """
    sides = torch.tensor(flows.shape[-2:]).flip(0).to(flows)  # (W, H)
    strides = (sides / torch.tensor(tuple(cells)).flip(0).to(flows))[:, None, None]
    rows, columns = (torch.arange(n, device=flows.device, dtype=flows.dtype) for n in cells)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack([x, y])  # (2, h, w)
    place = ((grid + 0.5) * strides - 0.5).expand(len(flows), -1, -1, -1)
    for flow in reversed(flows.unbind(1)):
        sampling = (place.movedim(1, -1) + 0.5) / sides * 2 - 1
        place = place + F.grid_sample(flow, sampling, padding_mode="border", align_corners=False)
        left = ((place < -0.5) | (place > sides[:, None, None] - 0.5)).any(1, keepdim=True)
        place = place.masked_fill(left, FAR)
        yield (place + 0.5) / strides - 0.5
