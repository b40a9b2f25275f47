"""Half precision: which layers are cast once and for all, and how inputs follow them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..method import Method
from .folding import CONVOLUTIONS, NORMS

NARROW = 16  # convolutions of so few channels gain nothing from rounding, and show it most


def cast_to_half(model: Method, dtype: torch.dtype) -> None:
    """Convolutions and linear layers in bfloat16 or float16, instead of autocast at every frame.

    In float32 stay: what the method names (`fp32_modules`: LMANet's keys, whose products are not
    scaled down), the narrow layers and those that give logits, normalisations and whatever else has
    weights. On ERFNet these are the first and the last layers: they make two thirds of the pixels
    that change class, and none of the gain.
    """
    exact = {id(part) for part in getattr(model, "fp32_modules", list)()}
    outputs = model.backbone.num_outputs
    for module in model.modules():
        if id(module) not in exact and is_rounded(module, outputs):
            module.to(dtype)
    cast_inputs(model)


def is_rounded(module: nn.Module, outputs: int) -> bool:
    """Whether a module computes in half precision. outputs: channels of the logits."""
    if isinstance(module, nn.Linear):
        return module.out_features != outputs
    if not isinstance(module, CONVOLUTIONS):
        return False
    narrowest = min(module.in_channels, module.out_channels)
    return narrowest > NARROW and module.out_channels != outputs


def cast_inputs(module: nn.Module) -> set[torch.dtype]:
    """Make modules with weights cast what they are given to their type -> the types within.

    Parts that are rounded as a whole do so too: blocks whose shortcut is to be of that type as
    well.
    """
    own = own_types(module)
    found = own.union(*(cast_inputs(child) for child in module.children()))
    if len(found) == 1 and (own or torch.float32 not in found):
        module.register_forward_pre_hook(partial(cast, *found))
    return found


def own_types(module: nn.Module) -> set[torch.dtype]:
    """Floating point types of a module's own weights; none of a normalisation's."""
    if isinstance(module, NORMS):
        return set()
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


def cast(dtype: torch.dtype, module: nn.Module, inputs: tuple) -> tuple:
    """A hook: the floating point tensors among the inputs, as `dtype`."""
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
    )
