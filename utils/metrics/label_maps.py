"""What every metric asks of its inputs: label maps of an integer type and of one shape."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def label_map(x, what: str, dimensions: int | None = None) -> Tensor:
    """An array or tensor of integers as a tensor.

    ValueError if it is none, or has not so many dimensions.
    """
    if not isinstance(x, Tensor):
        x = np.asarray(x)
        # Tensors need contiguous memory that may be written.
        if x.dtype.kind in "iub":
            x = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        raise ValueError(
            f"{what} must be class ids of an integer type, got {x.dtype}: take the argmax first"
        )
    if x.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
        # Too narrow for ids up to 255, or an unsigned type with few operations.
        x = x.long()
    if dimensions is not None and x.ndim != dimensions:
        shape = {2: "(H, W)", 3: "(T, H, W)"}[dimensions]
        raise ValueError(f"{what} must have the shape {shape}, got {tuple(x.shape)}")
    return x


def one_of(modes: tuple[str, ...], mode: str) -> None:
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {mode!r}")


def same_shape(x: Tensor, y: Tensor, names: str) -> None:
    if x.shape != y.shape:
        raise ValueError(f"{names} must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
