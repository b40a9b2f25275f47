"""Warping label maps by optical flow, for the TC metric, and counting what agrees.

Flow is (2, H, W) in pixels, x first, on the grid of the frame that is drawn and pointing into the
frame that is read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255  # a label that counts for nothing


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """flow (2, H, W) -> x and y (H, W) in the other frame, float32 sums."""
    height, width = flow.shape[1:]
    x = torch.arange(width, dtype=torch.float32, device=flow.device) + flow[0]
    y = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None] + flow[1]
    return x, y


def warp_nearest(labels: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """labels (H, W), flow (2, H, W) -> labels where it points, and whether that is in the frame.

    The nearest pixel, halves up; outside the frame the nearest one of its border.
    """
    height, width = labels.shape
    x, y = ((coordinate + 0.5).floor() for coordinate in _targets(flow))
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    rows = y.clamp(0, height - 1).long()
    columns = x.clamp(0, width - 1).long()
    return labels[rows, columns], inside


def flow_disagreement(flow: Tensor, backward_flow: Tensor) -> Tensor:
    """Occlusion by the forward-backward check (Sundaram, Brox, Keutzer, ECCV 2010).

    (H, W) bool, true where there and back again is another place:
    |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5, with b sampled bilinearly where f points.
    """
    height, width = flow.shape[1:]
    x, y = _targets(flow)
    # grid_sample counts from -1 to 1; a side of one pixel has no extent to divide by
    columns = 2 * x / max(width - 1, 1) - 1
    rows = 2 * y / max(height - 1, 1) - 1
    grid = torch.stack([columns, rows], -1)[None]  # (1, H, W, 2)
    back = F.grid_sample(backward_flow[None], grid, align_corners=True, padding_mode="border")[0]
    return (flow + back).square().sum(0) > 0.01 * (flow.square() + back.square()).sum(0) + 0.5


def warp_etc(image: Tensor, flow: Tensor) -> Tensor:
    """image (..., H, W) float32, flow (2, H, W) -> (..., H, W): FlowNet2's Resample2d, bit for bit.

    Fractions come from the unclamped coordinate, each integer corner is clamped on its own; the
    first three products are taken in double and rounded once, the fourth rounds its two weights to
    float32 first; the sum is float32.
    """
    height, width = image.shape[-2:]
    x, y = _targets(flow)
    left = x.floor()
    top = y.floor()
    a = (x - left).double()
    b = (y - top).double()
    above, below = (row.clamp(0, height - 1).long() * width for row in (top, top + 1))
    before, behind = (column.clamp(0, width - 1).long() for column in (left, left + 1))
    values = image.flatten(-2).double()
    top_left = ((1 - a) * (1 - b) * values[..., above + before]).float()
    top_right = (a * (1 - b) * values[..., above + behind]).float()
    bottom_left = ((1 - a) * b * values[..., below + before]).float()
    bottom_right = ((a * b).float() * values[..., below + behind]).float()
    return top_left + top_right + bottom_left + bottom_right


def warp_ids_etc(labels: Tensor, flow: Tensor) -> Tensor:
    """labels (H, W) of 0..255 -> (H, W) int64, as in ETC's metric.

    Ids are warped as numbers and truncated: between the ids 3 and 9 a 5 may come out.
    """
    return warp_etc(labels.float(), flow).long()


def intersection_and_union(
    output: Tensor, target: Tensor, num_classes: int, edge: str = "closed", ignore: int = IGNORE
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels per class (K,) int64 of intersection, union and target, as ETC (ECCV 2020) counts.

    Pixels whose target is `ignore` count as `ignore` in both. edge "closed": the id K counts as
    K-1, as in the numpy histogram that the TC script uses; "open": it is dropped, as in the torch
    version of ETC's validation.
    """
    if edge not in ("closed", "open"):
        raise ValueError(f"edge must be closed or open, got {edge!r}")
    output = torch.where(target == ignore, ignore, output)

    def histogram(ids: Tensor) -> Tensor:
        counts = torch.bincount(ids.flatten().long(), minlength=num_classes + 1)[: num_classes + 1]
        if edge == "closed":
            counts[num_classes - 1] += counts[num_classes]
        return counts[:num_classes]

    both = histogram(output[output == target])
    outputs = histogram(output)
    targets = histogram(target)
    return both, outputs + targets - both, targets
