"""Local attention on a CPU: calls kernels/local_attention.cpp, which build_library.py builds when it is first needed.

Everything is in float32, by as many threads as PyTorch uses; how many does not change the results.
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
from .local_attention_tiled import channels_last, filled_up

SOURCE = Path(__file__).parent / "kernels" / "local_attention.cpp"
MULTIPLE = 16  # that channels are filled up to where they are gathered: the longest vector
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
        *(
            (name, ctypes.c_int)
            for name in (
                "batch",
                "height",
                "width",
                "frames",
                "window",
                "key_channels",
                "value_channels",
                "threads",
            )
        ),
        *((name, ctypes.c_void_p) for name in ADDRESSES),
    ]


def unfit(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> str | None:
    """Why these maps are not for the kernels, or None."""
    maps = [query, *keys, *values]
    if any(x.device.type != "cpu" for x in maps):
        return f"the maps are on {', '.join(sorted({str(x.device) for x in maps}))}, not on the CPU"
    wide = [x.dtype for x in maps if torch.promote_types(x.dtype, torch.float32) != torch.float32]
    return f"the maps are {wide[0]}: the kernels compute in float32" if wide else None


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why there are no kernels, or None."""
    return build_problem()


@cache
def build_problem() -> str | None:
    try:
        library()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"its C++ kernels could not be built: {error}"
    return None


@cache
def library() -> ctypes.CDLL:
    loaded = build_library(SOURCE)
    size = ctypes.c_int.in_dll(loaded, "problem_size").value
    assert size == ctypes.sizeof(Problem), "both structs have the same members"
    return loaded


def laid_out(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, list, list]:
    """Maps (B, C, H, W) -> (B, H, W, C) in float32; values with channels of zeros that fill them up."""
    query, *keys = (channels_last(x.float()) for x in (query, *keys))
    return query, keys, [filled_up(channels_last(x.float()), MULTIPLE) for x in values]


def read(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2). Products are always exact."""
    result, softmax = values[0].new_empty(values[0].shape), query.new_empty((*query.shape[:3], 2))
    call(
        "read_memory",
        size,
        query,
        keys,
        values,
        constant=constant,
        writes={"softmax": softmax, "result": result},
    )
    return result, softmax


def gradients(
    gradient: Tensor,
    softmax: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    size: int,
    constant: Tensor | None,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """-> those of query, keys and values, and the sum of weights times their gradients (B, H, W)."""
    channels = query.shape[-1]
    query, *keys = (filled_up(x, MULTIPLE) for x in (query, *keys))
    of_query, *of_keys = (x.new_empty(x.shape) for x in (query, *keys))
    of_values, delta = [x.new_empty(x.shape) for x in values], softmax.new_empty(softmax.shape[:3])
    given = {"constant": constant, "gradient": gradient, "softmax": softmax}
    call(
        "gradient_of_query",
        size,
        query,
        keys,
        values,
        **given,
        writes={"delta": delta, "result": of_query},
    )
    call(
        "gradient_of_memory",
        size,
        query,
        keys,
        values,
        **given,
        delta=delta,
        writes={"of_keys": of_keys, "of_values": of_values},
    )
    of_query, *of_keys = (x[..., :channels].contiguous() for x in (of_query, *of_keys))
    return of_query, of_keys, of_values, delta


def call(
    name: str,
    size: int,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    writes: dict[str, Tensor | Sequence[Tensor]],
    **reads: Tensor | None,
) -> None:
    """Run a pass."""
    assert values[0].shape[3] % MULTIPLE == 0, "as laid_out has them"
    problem = Problem(
        *query.shape[:3],
        len(keys),
        size,
        query.shape[3],
        values[0].shape[3],
        torch.get_num_threads(),
    )
    held = []  # what the addresses belong to
    reads = {"query": query, "keys": keys, "values": values, **reads}
    reads = {
        key: [y.contiguous() for y in x] if isinstance(x, (list, tuple)) else x.contiguous()
        for key, x in reads.items()
        if x is not None
    }
    for key, x in {**reads, **writes}.items():
        maps = x if isinstance(x, (list, tuple)) else [x]
        assert all(y.dtype == torch.float32 and y.is_contiguous() for y in maps), key
        held += [x, (ctypes.c_void_p * len(maps))(*(y.data_ptr() for y in maps))]
        setattr(problem, key, held[-1][0] if x is maps[0] else ctypes.addressof(held[-1]))
    if getattr(library(), name)(ctypes.byref(problem)):
        raise MemoryError("local attention needs more memory than there is")
