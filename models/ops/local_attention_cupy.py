"""Local attention on NVIDIA GPUs, by the kernels that cuda_kernels.py compiles and launches.

The kernels read the maps of every frame where they are, so memory is never stacked or copied.
Reading is one launch, the backward pass three. Tensors come from PyTorch's allocator.

Logits, softmax and gradients are in float32 whatever the maps are stored in. So are the products of
weights and values, with one exception. Where there are more than 128 channels of values, tensor
cores compute these products: of values of a half type, with weights rounded to it, and of float32
as tf32 if PyTorch is told that products of float32 may be.

The operators that call this module are in read_memory.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .cuda_kernels import FRAMES, Launch, build, options_of
from .local_attention_tiled import channels_last, pad_channels

TYPES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat"}  # in C++
# By how weights and values are multiplied
READS = {"exact": "read_memory", "tensor": "read_memory_tensor"}
ALIGNMENT = 16  # bytes: the kernels copy so many at a time


def laid_out(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Maps (B, C, H, W) -> (B, H, W, C), those of keys and those of values of one type each."""
    query, *keys = of_one_type([query, *keys])
    return query, keys, of_one_type(values)


def of_one_type(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (B, C, H, W) -> (B, H, W, C) of one type; channels of zeros fill up 16 bytes."""
    dtype = common_type(maps)
    multiple = ALIGNMENT // dtype.itemsize
    return [pad_channels(channels_last(x.to(dtype)), multiple) for x in maps]


def common_type(maps: Sequence[Tensor]) -> torch.dtype:
    """The type that holds what all the maps hold."""
    dtype = maps[0].dtype
    for x in maps[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def unfit(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> str | None:
    """Why these maps, or the device they are on, are not for the kernels, or None."""
    maps = [query, *keys, *values]
    if not query.is_cuda:
        return f"the query is on {query.device}, not on a CUDA device"
    if any(x.device != query.device for x in maps):
        devices = sorted({str(x.device) for x in maps})
        return f"the maps are on {', '.join(devices)}: put them on one device"
    # Keys are of the query's type in the kernels, values of a type of their own
    for dtype in (common_type([query, *keys]), common_type(values)):
        if dtype not in TYPES:
            return f"the maps are {dtype}: the kernels read {', '.join(map(str, TYPES))}"
    if len(keys) > FRAMES:
        return f"there are {len(keys)} frames in memory: the kernels read at most {FRAMES}"
    return device_problem(query.device.index)


# These two are constants for torch.compile, which cannot look into functions that are cached


@torch.compiler.assume_constant_result
def device_problem(index: int) -> str | None:
    return weak_device(index)


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why kernels cannot be built, or None."""
    return missing_cupy()


@cache
def missing_cupy() -> str | None:
    # Looked for first: an import that fails is tried anew at every read
    if find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'cupy-cuda13x>=14,<15'"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    major = int(cupy.__version__.split(".")[0])
    if major < 14:
        return f"CuPy {cupy.__version__} is installed, the kernels need 14 or later"
    return None


@cache
def weak_device(index: int) -> str | None:
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        return f"the GPU has compute capability {major}.{minor}, the kernels need 8.0 or higher"
    return None


def read(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    size: int,
    constant: Tensor | None,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2); few channels of values are read exactly."""
    query = aligned(query)
    keys = [aligned(x) for x in keys]
    values = [aligned(x) for x in values]
    result = values[0].new_empty(values[0].shape)
    softmax = query.new_empty((*query.shape[:3], 2), dtype=torch.float32)  # in any type of maps
    kernels = kernels_for(query, values[0], size)
    launch = Launch(kernels, query, keys, values, constant=constant, softmax=softmax)
    name = READS[products]
    # With few channels of values there is no kernel that uses tensor cores
    if name not in kernels:
        name = "read_memory"
    launch(name, [result])
    return result, softmax


def gradients(
    gradient: Tensor,
    softmax: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    size: int,
    constant: Tensor | None,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """-> gradients of query, keys and values, and delta (B, H, W).

    delta: the sum of a pixel's weights times their gradients.
    """
    query = aligned(query)
    keys = [aligned(x) for x in keys]
    values = [aligned(x) for x in values]
    grad_query = query.new_empty(query.shape)
    grad_keys = [x.new_empty(x.shape) for x in keys]
    grad_values = [x.new_empty(x.shape) for x in values]
    delta = softmax.new_empty(softmax.shape[:3])
    launch = Launch(
        kernels_for(query, values[0], size),
        query,
        keys,
        values,
        constant=constant,
        softmax=aligned(softmax),
        delta=delta,
        gradient=aligned(gradient),
    )
    launch("gradient_of_query", [grad_query])  # writes delta, which the pass of the keys reads
    launch("gradient_of_keys", grad_keys)
    launch("gradient_of_values", grad_values)
    return grad_query, grad_keys, grad_values, delta


def kernels_for(query: Tensor, value: Tensor, size: int) -> dict:
    """The passes for maps (B, H, W, C) of these channels and types, by name."""
    options = options_of(
        query.shape[3], value.shape[3], size, TYPES[query.dtype], TYPES[value.dtype]
    )
    return build(query.device.index, options)


def aligned(x: Tensor) -> Tensor:
    """The map as the kernels can read it: contiguous, at an address divisible by 16."""
    x = x.contiguous()
    if x.data_ptr() % ALIGNMENT:
        return x.clone()
    return x
