"""Photometric check of optical flow: does the frame before, warped by it, look like this frame?

Where it does not, the content was hidden, or flow is wrong. Brightness and contrast of the whole
picture may differ: a camera changes its exposure. Pictures are compared as means over CELL x CELL
pixels: by night, noise of single pixels is as large as what a wrong flow changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops.resize import resize
from ..ops.warp import resize_flow, sampling_grid, warp

CELL = 8  # pixels
TOLERANCE = 0.1  # mean difference of RGB in [0, 1] at which validity is 1 / e
LEAST_CONTRAST = 0.02  # standard deviation below which a picture is taken as plain
CUT = 0.5  # mean validity below which two frames show different scenes


def flow_validity(frame: Tensor, previous: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (B, 3, H, W) in [0, 1], flow in pixels (B, 2, h', w') -> (B, 1, *size) in [0, 1].

    0 where flow points out of the frame, and everywhere in a clip whose scene has changed.
    """
    whole = frame.shape[-2:]
    coarse = tuple(math.ceil(side / CELL) for side in whole)
    cells = resize_flow(flow, coarse, cells_of=whole)
    picture = resize(frame, coarse)
    warped = warp(resize(previous, coarse), cells, padding="border")
    error = (picture - match_exposure(warped, picture)).abs().mean(1, keepdim=True)
    validity = torch.exp(-((error / TOLERANCE) ** 2))
    # No branch: a CUDA graph takes the same way for every frame.
    same_scene = validity.mean((1, 2, 3), keepdim=True) >= CUT
    within = inside(resize_flow(flow, size, cells_of=whole))
    return resize(validity * same_scene, size) * within


def match_exposure(picture: Tensor, other: Tensor) -> Tensor:
    """The picture (B, 3, h, w) with mean and standard deviation of the other, per channel."""
    deviation, mean = torch.std_mean(picture, (2, 3), correction=0, keepdim=True)
    wanted, middle = torch.std_mean(other, (2, 3), correction=0, keepdim=True)
    gain = (wanted + LEAST_CONTRAST) / (deviation + LEAST_CONTRAST)
    return (picture - mean) * gain + middle


def inside(flow: Tensor) -> Tensor:
    """flow (B, 2, h, w) in cells -> (B, 1, h, w): 1 where it points into the map, else 0.

    A map ends half a cell beyond the centre of its last cell.
    """
    height, width = flow.shape[-2:]
    places = sampling_grid(flow).abs()  # 1 is the centre of the last cell
    edge = places.new_tensor([1 + 1 / max(width - 1, 1), 1 + 1 / max(height - 1, 1)])
    return (places <= edge).all(-1)[:, None].to(flow.dtype)
