"""Optical flow in colour: the hue is its direction, the saturation its length (Baker et al., 2011).

No motion is white.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def flow_picture(flow: Tensor, longest: float | None = None) -> np.ndarray:
    """flow (2, H, W) in pixels -> (H, W, 3) uint8, RGB.

    longest: the length that is shown in full colour, as are longer ones; None: the picture's own
    largest, so colours of different pictures are not comparable.
    """
    from torchvision.utils import flow_to_image

    if flow.ndim != 3 or flow.shape[0] != 2 or not flow.is_floating_point():
        raise ValueError(f"flow is a float tensor (2, H, W), got {flow.dtype} {tuple(flow.shape)}")
    flow = flow.detach().float().cpu().nan_to_num()
    if longest is not None:
        flow = with_length(flow, longest)
    picture = flow_to_image(flow)
    if longest is not None:
        picture = picture[:, :-1]
    return picture.permute(1, 2, 0).contiguous().numpy()


def with_length(flow: Tensor, longest: float) -> Tensor:
    """flow (2, H, W), shortened to `longest`, and a row of that length, which sets the scale."""
    lengths = flow.norm(dim=0).clamp(min=1e-12)
    shortened = flow * (longest / lengths).clamp(max=1)
    row = torch.zeros_like(flow[:, :1])
    row[0] = longest
    return torch.cat([shortened, row], 1)
