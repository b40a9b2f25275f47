"""Local attention on a CPU: calls kernels/local_attention.cpp, compiled when it is first needed.

Everything is in float32, by as many threads as PyTorch uses. The number of threads does not change
the results.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .build_library import build_library
from .local_attention_tiled import channels_last, pad_channels

Given = Tensor | Sequence[Tensor] | None

SOURCE = Path(__file__).parent / "kernels" / "local_attention.cpp"
# Channels that are gathered are padded to a multiple of it: the longest vector of a processor
MULTIPLE = 16
SIZES = (
    "batch",
    "height",
    "width",
    "frames",
    "window",
    "key_channels",
    "value_channels",
    "threads",
)
ADDRESSES = (
    "query",
    "gradient",
    "constant",
    "keys",
    "values",
    "softmax",
    "delta",
    "result",
    "of_keys",
    "of_values",
)


class Problem(ctypes.Structure):
    """struct Problem of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int) for name in SIZES),
        *((name, ctypes.c_void_p) for name in ADDRESSES),
    ]


def unfit(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> str | None:
    """Why these maps are not for the kernels, or None."""
    # The device first: on another one the type does not matter
    maps = [query, *keys, *values]
    if any(x.device.type != "cpu" for x in maps):
        devices = sorted({str(x.device) for x in maps})
        return f"the maps are on {', '.join(devices)}, not on the CPU"
    for x in maps:
        if torch.promote_types(x.dtype, torch.float32) != torch.float32:
            return f"the maps are {x.dtype}: the kernels compute in float32"
    return None


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why there are no kernels, or None."""
    return build_problem()


# Asked at every read, compiled at most once
@cache
def build_problem() -> str | None:
    try:
        library()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"its C++ kernels could not be built: {error}"
    return None


@cache
def library() -> ctypes.CDLL:
    # The struct is written down twice, here and in the kernels
    loaded = build_library(SOURCE)
    size = ctypes.c_int.in_dll(loaded, "problem_size").value
    assert size == ctypes.sizeof(Problem), "both structs have the same members"
    return loaded


def laid_out(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Maps (B, C, H, W) -> (B, H, W, C) in float32; values with channels of zeros at their end."""
    query = channels_last(query.float())
    keys = [channels_last(x.float()) for x in keys]
    # The read gathers values only: keys may have any number of channels here
    values = [pad_channels(channels_last(x.float()), MULTIPLE) for x in values]
    return query, keys, values


def read(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    size: int,
    constant: Tensor | None,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2). Products are always exact."""
    result = values[0].new_empty(values[0].shape)  # (B, H, W, V)
    softmax = query.new_empty((*query.shape[:3], 2))  # largest logit, 1 / sum of exponentials
    reads = {"query": query, "keys": keys, "values": values, "constant": constant}
    run_pass("read_memory", size, reads, {"softmax": softmax, "result": result})
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
    channels = query.shape[-1]
    # The backward pass gathers query and keys as well
    query = pad_channels(query, MULTIPLE)
    keys = [pad_channels(x, MULTIPLE) for x in keys]
    grad_query = query.new_empty(query.shape)
    grad_keys = [x.new_empty(x.shape) for x in keys]
    grad_values = [x.new_empty(x.shape) for x in values]
    delta = softmax.new_empty(softmax.shape[:3])  # (B, H, W)

    reads = {"query": query, "keys": keys, "values": values, "constant": constant}
    reads |= {"gradient": gradient, "softmax": softmax}
    run_pass("gradient_of_query", size, reads, {"delta": delta, "result": grad_query})
    # The pass of the query has written delta, which that of the memory needs
    reads |= {"delta": delta}
    writes = {"of_keys": grad_keys, "of_values": grad_values}
    run_pass("gradient_of_memory", size, reads, writes)

    # Without the channels of zeros
    grad_query = grad_query[..., :channels].contiguous()
    grad_keys = [x[..., :channels].contiguous() for x in grad_keys]
    return grad_query, grad_keys, grad_values, delta


def run_pass(name: str, size: int, reads: dict[str, Given], writes: dict[str, Given]) -> None:
    """Run one pass of the kernels. MemoryError where there is not enough memory.

    reads, writes: tensors, or a tensor per frame, by the names in ADDRESSES.
    """
    query = reads["query"]
    values = reads["values"]
    assert values[0].shape[3] % MULTIPLE == 0, "as laid_out has them"
    batch, height, width, key_channels = query.shape
    problem = Problem(
        batch=batch,
        height=height,
        width=width,
        frames=len(values),
        window=size,
        key_channels=key_channels,
        value_channels=values[0].shape[3],
        threads=torch.get_num_threads(),
    )
    # What the addresses point to must live until the pass is done
    held = [set_address(problem, field, contiguous(given)) for field, given in reads.items()]
    held += [set_address(problem, field, given) for field, given in writes.items()]
    failed = getattr(library(), name)(ctypes.byref(problem))
    if failed:
        raise MemoryError("local attention needs more memory than there is")


def contiguous(given: Given) -> Given:
    if given is None:
        return None
    if isinstance(given, Tensor):
        return given.contiguous()
    return [x.contiguous() for x in given]


def set_address(problem: Problem, field: str, given: Given) -> object:
    """Let a field of the struct point to a tensor, or to an array of the addresses of tensors.

    None leaves a null pointer. -> what has to be kept alive.
    """
    if given is None:
        return None
    if isinstance(given, Tensor):
        assert readable(given), field
        setattr(problem, field, given.data_ptr())
        return given
    assert all(readable(x) for x in given), field
    # An array of pointers, one per frame
    addresses = (ctypes.c_void_p * len(given))(*(x.data_ptr() for x in given))
    setattr(problem, field, ctypes.addressof(addresses))
    return given, addresses


def readable(x: Tensor) -> bool:
    """Whether the kernels can read it; the shape is not looked at."""
    return x.dtype == torch.float32 and x.is_contiguous()
