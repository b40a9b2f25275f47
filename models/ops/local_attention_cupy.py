"""Local attention on NVIDIA GPUs: launches the kernels of kernels/local_attention.cu through CuPy.

The kernels read the maps of every frame where they are (a struct of pointers, passed by value), so memory is never
stacked or copied; reading is one launch, the backward pass three. They are compiled when first used, per channels,
window, types and device; sizes are arguments. Launches go to PyTorch's current stream, tensors come from its allocator,
nothing waits for the GPU: a CUDA graph can capture them once a first call has compiled them.

Logits, softmax and gradients are in float32 whatever the maps are stored in. So are the products of weights and values,
but where there are more than 128 channels of values tensor cores compute these: of values of a half type, with weights
rounded to it, and of float32 as tf32 if PyTorch is told that products of float32 may be.

The operators that launch them are in read_memory.py. CuPy is imported when a kernel is first built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .local_attention_tiled import channels_last, filled_up

FOLDER = Path(__file__).parent / "kernels"
TYPES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat"}
FRAMES = 16  # MAX_FRAMES of the kernels
PASSES = (
    "read_memory",
    "gradient_of_query",
    "gradient_of_keys",
    "gradient_of_values",
    "read_memory_tensor",
)
READS = {
    "exact": "read_memory",
    "tensor": "read_memory_tensor",
}  # by the products of weights and values
PROBLEM = np.dtype(
    [  # struct Problem of the kernels
        *((name, "u8") for name in ("query", "gradient", "constant", "softmax", "delta")),
        *((name, "u8", FRAMES) for name in ("keys", "values", "results")),
        *((name, "i4") for name in ("height", "width", "frames", "unused")),
    ],
    align=True,
)


def laid_out(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, list, list]:
    """Maps (B, C, H, W) -> (B, H, W, C), those of keys and those of values of one type each."""
    query, *keys = of_one_type([query, *keys])
    return query, keys, of_one_type(values)


def of_one_type(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (B, C, H, W) -> (B, H, W, C) of one type; with channels of zeros until they fill 16 bytes."""
    dtype = common_type(maps)
    return [filled_up(channels_last(x.to(dtype)), 16 // dtype.itemsize) for x in maps]


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
        return f"the maps are on {', '.join(sorted({str(x.device) for x in maps}))}: put them on one device"
    for dtype in (common_type([query, *keys]), common_type(values)):
        if dtype not in TYPES:
            return (
                f"the maps are {dtype}: the kernels read {', '.join(str(known) for known in TYPES)}"
            )
    if len(keys) > FRAMES:
        return f"there are {len(keys)} frames in memory: the kernels read at most {FRAMES}"
    return device_problem(query.device.index)


@torch.compiler.assume_constant_result
def device_problem(index: int) -> str | None:
    return weak_device(index)


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why kernels cannot be built, or None."""
    return missing_cupy()


@cache
def missing_cupy() -> str | None:
    if find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'cupy-cuda13x>=14,<15'"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    if int(cupy.__version__.split(".")[0]) < 14:
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
    size: int,
    constant: Tensor | None,
    products: str,
) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2). Few channels of values are always read exactly."""
    keys, values = aligned(keys), aligned(values)
    result = values[0].new_empty(values[0].shape)
    softmax = query.new_empty((*query.shape[:3], 2), dtype=torch.float32)
    run = Launch(size, *aligned([query]), keys, values, constant, softmax)
    name = READS[products]
    run(name if name in run.kernels else "read_memory", [result])
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
    query, gradient, softmax = aligned([query, gradient, softmax])
    keys, values = aligned(keys), aligned(values)
    of_query, *others = [x.new_empty(x.shape) for x in (query, *keys, *values)]
    of_keys, of_values = others[: len(keys)], others[len(keys) :]
    delta = softmax.new_empty(softmax.shape[:3])
    run = Launch(size, query, keys, values, constant, softmax, delta, gradient)
    run("gradient_of_query", [of_query])  # writes delta, which those of the keys need
    run("gradient_of_keys", of_keys)
    run("gradient_of_values", of_values)
    return of_query, of_keys, of_values, delta


# Launches


class Kernel(NamedTuple):
    """A compiled pass and the shape of its launches."""

    function: object
    threads: int
    shared: int  # bytes of shared memory
    height: int  # of a tile; it is 8 wide
    blocks: int  # of channels


class Launch:
    """The arguments that all passes of one problem have in common."""

    def __init__(
        self,
        size: int,
        query: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        constant: Tensor | None,
        softmax: Tensor,
        delta: Tensor | None = None,
        gradient: Tensor | None = None,
    ):
        self.device, self.shape, self.frames = query.device, query.shape, len(keys)
        self.kernels = build(
            query.device.index,
            query.shape[3],
            values[0].shape[3],
            size,
            TYPES[query.dtype],
            TYPES[values[0].dtype],
        )
        self.problem = np.zeros(1, PROBLEM)
        height, width = query.shape[1:3]
        self.set(
            query=query,
            gradient=gradient,
            constant=constant,
            softmax=softmax,
            delta=delta,
            keys=keys,
            values=values,
        )
        for name, number in (("height", height), ("width", width), ("frames", len(keys))):
            self.problem[name] = number

    def set(self, **tensors: Tensor | Sequence[Tensor] | None) -> None:
        """Pointers to tensors, or to each of some tensors; None leaves a null pointer."""
        for name, given in tensors.items():
            if isinstance(given, Tensor):
                self.problem[name] = given.data_ptr()
            elif given is not None:
                self.problem[name][0, : len(given)] = [x.data_ptr() for x in given]

    def __call__(self, name: str, results: Sequence[Tensor]) -> None:
        """Start the pass on the current stream. results: what it writes, one tensor or one per frame."""
        import cupy

        kernel, (batch, height, width, _) = self.kernels[name], self.shape
        self.set(results=results)
        grid = -(-width // 8), -(-height // kernel.height), batch * len(results) * kernel.blocks
        stream = torch.cuda.current_stream(self.device)
        with cupy.cuda.Device(self.device.index), cupy.cuda.Stream.from_external(stream):
            kernel.function(grid, (kernel.threads,), (self.problem,), shared_mem=kernel.shared)


def aligned(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps as the kernels can read them: contiguous, at addresses divisible by 16."""
    return [x if x.data_ptr() % 16 == 0 else x.clone() for x in (x.contiguous() for x in maps)]


@cache
def build(
    device: int, key_channels: int, value_channels: int, window: int, key_type: str, value_type: str
) -> dict[str, Kernel]:
    """Compile the kernels: their names and how to launch them. CuPy keeps what it compiled in a folder of its own."""
    import cupy

    options = options_of(key_channels, value_channels, window, key_type, value_type)
    with cupy.cuda.Device(device):
        module = cupy.RawModule(code=source(), options=options)
        plans = cupy.ndarray((len(PASSES), 4), np.int32, module.get_global("plans")).get().tolist()
        return dict(kernels_of(module, plans))


def kernels_of(module, plans: Sequence[Sequence[int]]) -> Iterator[tuple[str, Kernel]]:
    """plans: as the module's `plans` says, in the order of PASSES; zeros for a pass that this build does not have."""
    for name, plan in zip(PASSES, plans, strict=True):
        if not any(plan):
            continue
        function = module.get_function(name)
        function.max_dynamic_shared_size_bytes = plan[1]
        yield name, Kernel(function, *plan)


def options_of(
    key_channels: int, value_channels: int, window: int, key_type: str, value_type: str
) -> tuple[str, ...]:
    """Of the compiler: what a build is for."""
    given = {
        "KEY_CHANNELS": key_channels,
        "VALUE_CHANNELS": value_channels,
        "WINDOW": window,
        "KEY": key_type,
        "VALUE": value_type,
    }
    return "-std=c++17", *(f"-D{name}={value}" for name, value in given.items())


def source() -> str:
    """The kernels as one text: CuPy's cache does not look into included files."""
    seen = set()

    def with_included(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return re.sub(r'#include "(.*)"\n', lambda found: with_included(found[1]), text)

    return with_included("local_attention.cu")
