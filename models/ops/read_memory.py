"""The read of a local memory as PyTorch operators (torch.library), computed by kernels.

`read_memory` and its gradient stand for the kernels of the device that the maps are on:
local_attention_cpp.py on a CPU, local_attention_cupy.py on NVIDIA GPUs. torch.compile does not look
into them. For the backward pass they keep the maps as they were laid out and two numbers per pixel,
nothing of the size of the weights.

Maps are (B, H, W, channels) here, contiguous, as the kernels' module lays them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import local_attention_cpp, local_attention_cupy

Shape = Sequence[int]
BY_DEVICE = {"cpu": local_attention_cpp, "cuda": local_attention_cupy}


def read_by_kernels(
    kernels: ModuleType,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    size: int,
    constant: Tensor | None,
) -> Tensor:
    """As models.ops.local_attention, with T maps (B, C, H, W) each -> (B, V, H, W).

    kernels: one of BY_DEVICE.
    """
    # Of the result: the kernels may want more channels and another type
    channels = values[0].shape[1]
    dtype = values[0].dtype
    query, keys, values = kernels.laid_out(query, keys, values)  # (B, H, W, C), padded channels
    if constant is not None:
        constant = constant.float().reshape(1)
    products = products_of(values[0].dtype)
    read, _ = read_memory(query, keys, values, size, constant, products=products)
    return read[..., :channels].permute(0, 3, 1, 2).to(dtype)


# A constant for torch.compile, which compiles again when the setting changes
@torch.compiler.assume_constant_result
def products_of(dtype: torch.dtype) -> str:
    """How weights and values of this type are multiplied: "tensor" (tensor cores) or "exact".

    It is "exact" for float32 unless PyTorch is told that it may round it: by
    torch.set_float32_matmul_precision or one of the switches in torch.backends. The switch that is
    read here follows whichever was set.
    """
    if dtype != torch.float32 or torch.backends.cuda.matmul.fp32_precision == "tf32":
        return "tensor"
    return "exact"


@torch.library.custom_op("streamseg::read_memory", mutates_args=())
def read_memory(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
    *,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2): largest logit, 1 / sum of exponentials.

    The softmax is kept for the backward pass. products: of weights and values, "exact" or "tensor"
    (tensor cores, where kernels for them exist).
    """
    kernels = BY_DEVICE[query.device.type]
    return kernels.read(query, keys, values, size=size, constant=constant, products=products)


@read_memory.register_fake
def shapes_of_read(query, keys, values, size, constant, *, products):
    read = values[0].new_empty(values[0].shape)
    softmax = query.new_empty((*query.shape[:3], 2), dtype=torch.float32)
    return read, softmax


@register_flop_formula(torch.ops.streamseg.read_memory)
def flops_of_read(
    query: Shape, keys: Sequence[Shape], values: Sequence[Shape], size: int, *_, **__
) -> int:
    """Two per multiply-add of every tap inside the map, with its key and with its value."""
    batch, height, width, channels = query
    # A window is square: its taps inside the map are a product of rows and columns
    taps = taps_along(height, size) * taps_along(width, size)
    return 2 * batch * len(keys) * taps * (channels + values[0][-1])


def taps_along(side: int, size: int) -> int:
    """Taps inside the map of all windows along one side of it."""
    radius = size // 2
    taps = 0
    for at in range(side):
        taps += min(at + radius + 1, side) - max(at - radius, 0)
    return taps


@torch.library.custom_op("streamseg::read_memory_gradients", mutates_args=())
def read_memory_gradients(
    gradient: Tensor, softmax: Tensor, maps: Sequence[Tensor], constant: Tensor | None, *, size: int
) -> list[Tensor]:
    """gradient (B, H, W, V) of the read -> gradients of the maps, and of the constant if any.

    maps: query, T keys, T values. They are one list since an operator's tensors must be positional.
    """
    query, *memory = maps
    frames = len(memory) // 2
    keys = memory[:frames]
    values = memory[frames:]
    kernels = BY_DEVICE[query.device.type]
    grad_query, grad_keys, grad_values, delta = kernels.gradients(
        gradient, softmax, query, keys, values, size=size, constant=constant
    )
    found = [grad_query, *grad_keys, *grad_values]
    if constant is not None:
        largest, inverse = softmax.unbind(-1)  # (B, H, W) each
        weight = (constant - largest).exp() * inverse
        # The constant's value is 0, so delta alone remains of its gradient
        found.append(-(weight * delta).sum().reshape(1))
    return found


@read_memory_gradients.register_fake
def shapes_of_gradients(gradient, softmax, maps, constant, *, size):
    given = list(maps)
    if constant is not None:
        given.append(constant)
    return [x.new_empty(x.shape) for x in given]


def save_for_gradients(ctx, inputs, keyword_only_inputs, output):
    query, keys, values, size, constant = inputs
    _, softmax = output
    ctx.size = size
    ctx.frames = len(keys)
    ctx.has_constant = constant is not None
    saved = [softmax, query, *keys, *values]
    if ctx.has_constant:
        saved.append(constant)
    ctx.save_for_backward(*saved)


def gradients_of_read(ctx, grad_read, _):
    """-> gradients of query, keys, values, size and constant.

    The second argument is the gradient of the softmax, which only this function uses.
    """
    softmax, *maps = ctx.saved_tensors
    constant = None
    if ctx.has_constant:
        constant = maps.pop()
    # As the kernels read it: in the type of the values, contiguous
    gradient = grad_read.to(maps[-1].dtype).contiguous()
    found = read_memory_gradients(gradient, softmax, maps, constant, size=ctx.size)
    grad_constant = None
    if ctx.has_constant:
        grad_constant = found.pop()
    grad_query, *grad_memory = found
    grad_keys = grad_memory[: ctx.frames]
    grad_values = grad_memory[ctx.frames :]
    return grad_query, grad_keys, grad_values, None, grad_constant


read_memory.register_autograd(gradients_of_read, setup_context=save_for_gradients)
# Logits are not scaled, so rounding them would show
read_memory.register_autocast("cpu", torch.float32)
read_memory.register_autocast("cuda", torch.float32)
