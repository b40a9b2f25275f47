"""Local attention on a CPU: builds kernels/local_attention.cpp and calls it.

The machine's C++ compiler (CXX, else c++) builds it for this processor's instructions when it is first used, which
takes a few seconds; the library is kept in ~/.cache/streamseg (or XDG_CACHE_HOME/streamseg). Everything is in float32,
by as many threads as PyTorch uses; how many does not change the results.
"""
from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .local_attention_tiled import channels_last

SOURCE = Path(__file__).parent / "kernels" / "local_attention.cpp"
INSTRUCTIONS = {"AVX512": ["-march=x86-64-v4"], "AVX2": ["-march=x86-64-v3"]}
MULTIPLE = 16           # that channels are filled up to where they are gathered: the longest vector
ADDRESSES = ("query", "gradient", "constant", "keys", "values", "softmax", "delta", "result", "of_keys", "of_values")


class Problem(ctypes.Structure):
    """struct Problem of the kernels."""

    _fields_ = [*((name, ctypes.c_int) for name in ("batch", "height", "width", "frames", "window", "key_channels",
                                                    "value_channels", "threads")),
                *((name, ctypes.c_void_p) for name in ADDRESSES)]


def cpp_problem(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> str | None:
    """Why the kernels cannot read this memory, or None if they can."""
    maps = [query, *keys, *values]
    if any(x.device.type != "cpu" for x in maps):
        return f"the maps are on {', '.join(sorted({str(x.device) for x in maps}))}, not on the CPU"
    wide = [x.dtype for x in maps if torch.promote_types(x.dtype, torch.float32) != torch.float32]
    return f"the maps are {wide[0]}: the kernels compute in float32" if wide else missing_library()


def laid_out(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, list, list]:
    """Maps (B, C, H, W) -> (B, H, W, C) in float32; values with channels of zeros that fill them up."""
    query, *keys = (channels_last(x.float()) for x in (query, *keys))
    return query, keys, [filled_up(channels_last(x.float())) for x in values]


def filled_up(x: Tensor) -> Tensor:
    return F.pad(x, (0, excess)) if (excess := -x.shape[-1] % MULTIPLE) else x


def read(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], size: int, constant: Tensor | None,
         products: str) -> tuple[Tensor, Tensor]:
    """-> read (B, H, W, V), softmax (B, H, W, 2). Products are always exact."""
    result, softmax = torch.empty_like(values[0]), query.new_empty((*query.shape[:3], 2))
    call("read_memory", size, query, keys, values, constant=constant, softmax=softmax, result=result)
    return result, softmax


def gradients(gradient: Tensor, softmax: Tensor, query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor],
              size: int, constant: Tensor | None) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """-> those of query, keys and values, and the sum of weights times their gradients (B, H, W)."""
    channels = query.shape[-1]
    query, *keys = (filled_up(x) for x in (query, *keys))
    of_query, *of_keys = (torch.empty_like(x) for x in (query, *keys))
    of_values, delta = [torch.empty_like(x) for x in values], softmax.new_empty(softmax.shape[:3])
    given = {"constant": constant, "gradient": gradient, "softmax": softmax, "delta": delta}
    call("gradient_of_query", size, query, keys, values, **given, result=of_query)
    call("gradient_of_memory", size, query, keys, values, **given, of_keys=of_keys, of_values=of_values)
    of_query, *of_keys = (x[..., :channels].contiguous() for x in (of_query, *of_keys))
    return of_query, of_keys, of_values, delta


def call(name: str, size: int, query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor],
         **others: Tensor | Sequence[Tensor] | None) -> None:
    """Run a pass; it writes what `others` hold for it."""
    problem = Problem(*query.shape[:3], len(keys), size, query.shape[3], values[0].shape[3], torch.get_num_threads())
    held = []                               # what the addresses belong to
    for key, x in {"query": query, "keys": keys, "values": values, **others}.items():
        if isinstance(x, Tensor):
            held.append(x.contiguous())
            setattr(problem, key, held[-1].data_ptr())
        elif x is not None:
            held.append([y.contiguous() for y in x])
            held.append((ctypes.c_void_p * len(x))(*(y.data_ptr() for y in held[-1])))
            setattr(problem, key, ctypes.addressof(held[-1]))
    if getattr(library(), name)(ctypes.byref(problem)):
        raise MemoryError("local attention needs more memory than there is")


@torch.compiler.assume_constant_result
def missing_library() -> str | None:
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
    """The kernels, built unless an earlier run did. RuntimeError, OSError: why they cannot be."""
    command = [*compiler(), "-std=c++17", "-O3", *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), []),
               "-shared", "-fPIC", "-pthread", "-Wno-psabi"]
    try:
        return build([*command, "-fopenmp"])
    except RuntimeError:                    # a compiler without OpenMP: the kernels then start threads of their own
        return build(command)


def build(command: list[str]) -> ctypes.CDLL:
    """What this command makes of the source, or made of it before. RuntimeError with the compiler's words."""
    key = hashlib.sha256("\0".join((*command, SOURCE.read_text(encoding="utf-8"))).encode()).hexdigest()
    kept = cache_folder() / f"local_attention_{key[:16]}.so"
    with suppress(OSError):                 # there is none, or one that another system built
        return load(kept)
    with tempfile.TemporaryDirectory(prefix="streamseg_") as folder:
        built = Path(folder) / kept.name
        done = subprocess.run([*command, str(SOURCE), "-o", str(built)], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(first_error(done.stderr, command[0]))
        with suppress(OSError):             # then it is built again next time
            keep(built, kept)
        return load(built)


def compiler() -> list[str]:
    """CXX may hold options, as make reads it."""
    words = os.environ.get("CXX", "").split() or ["c++"]
    if sys.platform == "win32" or shutil.which(words[0]) is None:
        raise RuntimeError(f"there is no C++ compiler {words[0]!r} (install g++ or clang, or name one in CXX)")
    return words


def first_error(words: str, name: str) -> str:
    """The line in which a compiler says what is wrong."""
    lines = words.splitlines() or [f"{name} failed"]
    return next((line for line in lines if "error" in line), lines[0])


def cache_folder() -> Path:
    """Where libraries are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamseg"


def keep(built: Path, kept: Path) -> None:
    """Copy it there at once, whole: other processes may be doing the same."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        shutil.copy(built, folder)
        os.replace(Path(folder) / built.name, kept)


def load(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    size = ctypes.c_int.in_dll(loaded, "problem_size").value
    assert size == ctypes.sizeof(Problem), "both structs have the same members"
    return loaded
