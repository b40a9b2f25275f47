"""What is done to a network that from now on only predicts: the same numbers, sooner.

    for_inference(model)                            batch norm folded into convolutions (folding.py)
    for_inference(model, dtype=torch.bfloat16)      and convolutions in half precision
                                                    (half_precision.py)
    for_inference(model, compiled=True)             and encoder and decoder compiled
                                                    (compilation.py)
    on a GPU                                        and steps of a stream replayed as CUDA graphs
                                                    (cuda_graphs.py)

In float32 the numbers are the same up to rounding. The model is changed in place, for good: it
cannot be trained any more, nor read checkpoints.
"""

from __future__ import annotations

import torch

from ..method import Method
from .compilation import compile_backbone
from .cuda_graphs import GraphedStep
from .folding import fold_batch_norm
from .half_precision import cast_to_half
from .layout import channels_last

__all__ = ["for_inference"]


def for_inference(
    model: Method, *, dtype: torch.dtype = torch.float32, compiled: bool = False
) -> Method:
    """Prepare a network with its weights, on its device, for labelling; returns the same model.

    dtype: of convolutions and linear layers, see `cast_to_half`. compiled: torch.compile for
    encoder and decoder; the first frame of each size then takes a minute. Frames go in as float32
    all the same, and no autocast is needed.
    """
    model.eval().requires_grad_(False)
    fold_batch_norm(model)
    channels_last(model)
    if dtype != torch.float32:
        cast_to_half(model, dtype)
    if compiled:
        compile_backbone(model)
    if model.capturable and next(model.parameters()).device.type == "cuda":
        model.step = GraphedStep(model.step)
    return model
