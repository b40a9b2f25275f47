"""Compiles the kernels of kernels/local_attention.cu through CuPy, and launches them.

They are compiled when first used, per channels, window, types and device; sizes are arguments.
Launches go to PyTorch's current stream and nothing waits for the GPU: a CUDA graph can capture them
once a first call has compiled them. CuPy is imported when a kernel is first compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "kernels"
FRAMES = 16  # MAX_FRAMES of the kernels
TILE_WIDTH = 8  # pixels
PASSES = (
    "read_memory",
    "gradient_of_query",
    "gradient_of_keys",
    "gradient_of_values",
    "read_memory_tensor",
)
# struct Problem of the kernels: addresses, one or one per frame, and sizes
PROBLEM = np.dtype(
    [
        *((name, "u8") for name in ("query", "gradient", "constant", "softmax", "delta")),
        *((name, "u8", FRAMES) for name in ("keys", "values", "results")),
        *((name, "i4") for name in ("height", "width", "frames", "unused")),
    ],
    align=True,
)


class Kernel(NamedTuple):
    """A compiled pass and the shape of its launches."""

    function: object
    threads: int
    shared: int  # bytes of shared memory
    height: int  # of a tile
    blocks: int  # of channels


class Launch:
    """The arguments that all passes of one problem have in common."""

    def __init__(
        self,
        kernels: dict[str, Kernel],
        query: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        **others: Tensor | None,
    ):
        """Maps (B, H, W, C) as the kernels can read them. others: fields of PROBLEM."""
        self.kernels = kernels
        self.device = query.device
        self.batch, self.height, self.width, _ = query.shape
        self.problem = np.zeros(1, PROBLEM)
        self.problem["height"] = self.height
        self.problem["width"] = self.width
        self.problem["frames"] = len(keys)
        self.set(query=query, keys=keys, values=values, **others)

    def set(self, **tensors: Tensor | Sequence[Tensor] | None) -> None:
        """Addresses of tensors, or of each of some tensors; None leaves a null pointer."""
        for name, given in tensors.items():
            if isinstance(given, Tensor):
                self.problem[name] = given.data_ptr()
            elif given is not None:
                self.problem[name][0, : len(given)] = [x.data_ptr() for x in given]

    def __call__(self, name: str, results: Sequence[Tensor]) -> None:
        """Start a pass on the current stream.

        results: what it writes, one tensor or one per frame.
        """
        import cupy

        kernel = self.kernels[name]
        self.set(results=results)
        columns = quotient(self.width, TILE_WIDTH)
        rows = quotient(self.height, kernel.height)
        grid = (columns, rows, self.batch * len(results) * kernel.blocks)
        stream = torch.cuda.current_stream(self.device)
        with cupy.cuda.Device(self.device.index), cupy.cuda.Stream.from_external(stream):
            # The struct is passed by value: nothing has to stay alive for the GPU but the tensors
            kernel.function(grid, (kernel.threads,), (self.problem,), shared_mem=kernel.shared)


def quotient(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@cache
def build(device: int, options: tuple[str, ...]) -> dict[str, Kernel]:
    """Compile the kernels -> their names and how to launch them. options: see `options_of`.

    CuPy keeps what it compiled in a folder of its own.
    """
    import cupy

    with cupy.cuda.Device(device):
        module = cupy.RawModule(code=source(), options=options)
        plans = cupy.ndarray((len(PASSES), 4), np.int32, module.get_global("plans"))
        return dict(kernels_of(module, plans.get().tolist()))


def kernels_of(module, plans: Sequence[Sequence[int]]) -> Iterator[tuple[str, Kernel]]:
    """plans: threads, shared memory, height, blocks of each of PASSES; zeros if it is not built."""
    for name, plan in zip(PASSES, plans, strict=True):
        if not any(plan):
            continue
        function = module.get_function(name)
        kernel = Kernel(function, *plan)
        # More than 48 KB of shared memory must be asked for
        function.max_dynamic_shared_size_bytes = kernel.shared
        yield name, kernel


def options_of(
    key_channels: int, value_channels: int, window: int, key_type: str, value_type: str
) -> tuple[str, ...]:
    """The compiler's options for kernels of these channels, window and C++ types."""
    defined = {
        "KEY_CHANNELS": key_channels,
        "VALUE_CHANNELS": value_channels,
        "WINDOW": window,
        "KEY": key_type,
        "VALUE": value_type,
    }
    return "-std=c++17", *(f"-D{name}={value}" for name, value in defined.items())


def source() -> str:
    """The kernels as one text, each file once: CuPy's cache does not look into included files."""
    included = set()

    def with_included(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        text = (FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return re.sub(r'#include "(.*)"\n', lambda found: with_included(found[1]), text)

    return with_included("local_attention.cu")
