"""Channels last: the layout in which convolutions run fastest."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(model: nn.Module) -> nn.Module:
    """The model, with the weights of its convolutions laid out channels last."""
    # nn.Module.to refuses where a parameter has five dimensions.
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
