"""The read of a local memory as PyTorch operators (torch.library), computed by kernels of this package.

`read_memory` and its gradient stand for the kernels of the device that the maps are on: local_attention_cpp.py on a
CPU, local_attention_cupy.py on NVIDIA GPUs. torch.compile passes them through. For the backward pass they keep the maps
as they were laid out and two numbers per pixel, nothing of the size of the weights.

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
    size: int,
    constant: Tensor | None,
) -> Tensor:
    """As models.ops.local_attention, with T maps (B, C, H, W) each -> (B, V, H, W). kernels: one of BY_DEVICE."""
    channels, dtype = values[0].shape[1], values[0].dtype
    query, keys, values = kernels.laid_out(query, keys, values)
    constant = None if constant is None else constant.float().reshape(1)
    read, _ = read_memory(query, keys, values, size, constant, products_of(values[0].dtype))
    return read[..., :channels].permute(0, 3, 1, 2).to(dtype)


@torch.compiler.assume_constant_result
def products_of(dtype: torch.dtype) -> str:
    """Of weights and values of this type: "tensor", or "exact" for float32 that PyTorch is not told to round.

    What it is told: torch.set_float32_matmul_precision, or one of the switches in torch.backends; this one can be read
    whichever was set. torch.compile compiles again when it changes.
    """
    rounded = dtype != torch.float32 or torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tensor" if rounded else "exact"


@torch.library.custom_op("streamseg::read_memory", mutates_args=())
def read_memory(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), and for the backward pass (B, H, W, 2): largest logit, 1 / sum of exponentials.

    products: of weights and values, "exact" or "tensor" (cores, where kernels for them exist).
    """
    return BY_DEVICE[query.device.type].read(query, keys, values, size, constant, products)


@read_memory.register_fake
def shapes_of_read(query, keys, values, size, constant, products):
    return values[0].new_empty(values[0].shape), query.new_empty(
        (*query.shape[:3], 2), dtype=torch.float32
    )


@register_flop_formula(torch.ops.streamseg.read_memory)
def flops_of_read(
    query: Shape, keys: Sequence[Shape], values: Sequence[Shape], size: int, *_, **__
) -> int:
    """Two per multiply-add of every tap inside the map, with its key and with its value."""

    def taps(side):  # of all windows, along one side
        return sum(min(at + size // 2 + 1, side) - max(at - size // 2, 0) for at in range(side))

    batch, height, width, channels = query
    return 2 * batch * len(keys) * taps(height) * taps(width) * (channels + values[0][-1])


@torch.library.custom_op("streamseg::read_memory_gradients", mutates_args=())
def read_memory_gradients(
    gradient: Tensor,
    softmax: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
) -> list[Tensor]:
    """gradient (B, H, W, V) of the read -> those of query, T keys, T values and the constant (if there is one)."""
    kernels = BY_DEVICE[query.device.type]
    of_query, of_keys, of_values, delta = kernels.gradients(
        gradient, softmax, query, keys, values, size, constant
    )
    if constant is None:
        return [of_query, *of_keys, *of_values]
    weight = (constant - softmax[..., 0]).exp() * softmax[
        ..., 1
    ]  # of the constant, whose value is 0
    return [of_query, *of_keys, *of_values, -(weight * delta).sum().reshape(1)]


@read_memory_gradients.register_fake
def shapes_of_gradients(gradient, softmax, query, keys, values, size, constant):
    return [
        x.new_empty(x.shape)
        for x in (query, *keys, *values, *(() if constant is None else (constant,)))
    ]


def save_for_gradients(ctx, inputs, output):
    query, keys, values, ctx.size, constant, _ = inputs
    ctx.frames, ctx.has_constant = len(keys), constant is not None
    ctx.save_for_backward(
        output[1], query, *keys, *values, *([constant] if ctx.has_constant else [])
    )


def gradients_of_read(ctx, of_read, _):
    softmax, query, *memory = ctx.saved_tensors
    constant = memory.pop() if ctx.has_constant else None
    keys, values = memory[: ctx.frames], memory[ctx.frames :]
    found = read_memory_gradients(
        of_read.to(values[0].dtype).contiguous(), softmax, query, keys, values, ctx.size, constant
    )
    of_constant = found.pop() if ctx.has_constant else None
    return found[0], found[1 : 1 + ctx.frames], found[1 + ctx.frames :], None, of_constant, None


read_memory.register_autograd(gradients_of_read, setup_context=save_for_gradients)
read_memory.register_autocast("cpu", torch.float32)  # logits are unscaled: rounding them shows
read_memory.register_autocast("cuda", torch.float32)
