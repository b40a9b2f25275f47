"""Builds the kernels of local attention for a CPU, or for a GPU that need not be there.

What the tests of the kernels share.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from models.ops import cuda_kernels, local_attention

needs_gxx = pytest.mark.skipif(
    not shutil.which("g++") and not os.environ.get("CI"), reason="no g++"
)
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

HERE = Path(__file__).parent
NARROW = {"float": torch.float32, "Half": torch.float16, "Bfloat": torch.bfloat16}
WARNINGS = (
    "-Wall",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
    "-Wno-unused-variable",
)


class Build(NamedTuple):
    """Channels of keys and values, window, and types of both: what a build is for."""

    keys: int
    values: int
    window: int
    key_type: str = "float"
    value_type: str = "float"

    @property
    def wide(self) -> bool:
        """Whether tensor cores can read it."""
        return self.values > 128


class Memory(NamedTuple):
    """Maps (B, channels, H, W) of random numbers, as exact as their types allow."""

    query: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    gradient: Tensor
    constant: float | None

    @classmethod
    def random(
        cls,
        build: Build,
        shape: tuple[int, int, int, int],
        constant: float | None = None,
        *,
        scale: float = 1.0,
    ) -> Memory:
        """shape: batch, frames, height, width. scale: of queries and keys."""
        batch, frames, height, width = shape

        def maps(count, channels, kind, scale):
            size = (batch, channels, height, width)
            return [(scale * torch.randn(size)).to(NARROW[kind]).float() for _ in range(count)]

        (query,) = maps(1, build.keys, build.key_type, scale)
        keys = maps(frames, build.keys, build.key_type, scale)
        values = maps(frames, build.values, build.value_type, 1)
        (gradient,) = maps(1, build.values, build.value_type, 1)
        return cls(query, keys, values, gradient, constant)

    def leaves(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Query, keys, values and the constant if there is one, to be differentiated by."""
        maps = [x.to(device, dtype) for x in (self.query, *self.keys, *self.values)]
        if self.constant is not None:
            # In float32 at least, as the module that holds it has it
            wide = torch.promote_types(dtype, torch.float32)
            maps.append(torch.tensor([self.constant], device=device, dtype=wide))
        return [x.clone().requires_grad_() for x in maps]


def read_leaves(leaves: Sequence[Tensor], frames: int, window: int, backend: str) -> Tensor:
    """Local attention of what `Memory.leaves` gives -> (B, V, H, W)."""
    keys = leaves[1 : 1 + frames]
    values = leaves[1 + frames : 1 + 2 * frames]
    constant = leaves[1 + 2 * frames :]
    return local_attention(leaves[0], keys, values, window, *constant, backend=backend)


def outcome(
    build: Build, memory: Memory, dtype=torch.float32, *, backend: str, device: str = "cpu"
) -> list[Tensor]:
    """-> read, gradients of query, keys, values (B, H, W, channels) and the constant if any."""
    leaves = memory.leaves(device, dtype)
    read = read_leaves(leaves, len(memory.keys), build.window, backend)
    gradients = torch.autograd.grad((read * memory.gradient.to(read)).sum(), leaves)
    return [channels_last(x).cpu() for x in (read.detach(), *gradients)]


def exact(build: Build, memory: Memory) -> list[Tensor]:
    """The same in float64, by the tiled form."""
    return outcome(build, memory, torch.float64, backend="tiled")


def on_gpu(build: Build, memory: Memory, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The same by the CUDA kernels."""
    return outcome(build, memory, dtype, backend="cupy", device="cuda")


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C); a constant stays as it is."""
    if x.ndim < 2:
        return x
    return x.movedim(1, -1)


def assert_equal_to(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """All of them, relative to the largest number of each."""
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)
        # A NaN is not within the tolerance, either
        assert error <= tolerance, f"number {number}: {error:.1e}"


def assert_compiles_whole(read: Callable, leaves: Sequence[Tensor]) -> None:
    """torch.compile makes one graph of it, with the same results and gradients."""

    def outcome_of(function):
        gradients = torch.autograd.grad(function(*leaves).square().sum(), leaves)
        return [function(*leaves), *gradients]

    compiled = torch.compile(read, backend="aot_eager", fullgraph=True)
    for plain, whole in zip(outcome_of(read), outcome_of(compiled), strict=True):
        assert torch.equal(plain, whole)


# On this CPU


def compile_for_host(
    build: Build, folder: Path, sanitizers: str = "", edit: tuple[str, str] | None = None
) -> Path:
    """A program, or without sanitizers a library.

    edit: a text of the kernels, and what to put in its place.
    """
    name = f"{'_'.join(map(str, build))}_{sanitizers or 'library'}"
    kernels = cuda_kernels.source()
    if edit:
        name += "_edited"
        assert kernels.count(edit[0]) >= 1, "the text to be replaced is in the kernels"
        kernels = kernels.replace(*edit)
    target = folder / name
    source = target.with_suffix(".cpp")
    host = (HERE / "kernel_host.cpp").read_text()
    source.write_text(re.sub(r'#include "\.\./models.*\n', lambda _: kernels, host))
    kind = ["-shared", "-fPIC"]
    if sanitizers:
        kind = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover"]
    # Products and sums are not fused, so that the numbers are those of the source
    options = [*cuda_kernels.options_of(*build), "-O1", "-g1", "-ffp-contract=off"]
    command = ["g++", *options, *kind, *WARNINGS, str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def on_host(
    program: Path, build: Build, memory: Memory, *, backwards: bool, only_reads: bool
) -> Iterator[Tensor]:
    """-> what the program gives, maps (B, H, W, n): see `main` there.

    backwards: threads run in reverse order.
    """
    batch, _, height, width = memory.query.shape
    frames = len(memory.keys)
    has_constant = memory.constant is not None
    header = np.array([batch, height, width, frames, has_constant, backwards, only_reads], np.int32)
    constant = torch.tensor(memory.constant or 0.0)
    maps = [memory.query, memory.gradient, constant, *memory.keys, *memory.values]
    maps = [channels_last(x).contiguous() for x in maps]
    given = header.tobytes() + b"".join(x.numpy().tobytes() for x in maps)
    done = subprocess.run([program], input=given, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[:4000])

    found = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())
    sizes = [build.values, 2]  # read, softmax
    if build.wide:
        sizes *= 2  # the same by tensor cores
    if not only_reads:
        sizes += [1, *[build.keys] * (1 + frames), *[build.values] * frames]
    parts = found.split([batch * height * width * size for size in sizes])
    yield from (x.view(batch, height, width, -1) for x in parts)


def run_on_host(
    program: Path, build: Build, memory: Memory, backwards: bool = False
) -> list[Tensor]:
    """-> read, gradients of query, keys, values (B, H, W, channels) and the constant if any."""
    read, softmax, *others = on_host(program, build, memory, backwards=backwards, only_reads=False)
    if build.wide:
        others = others[2:]  # without the read by tensor cores and its softmax
    delta, *gradients = others
    found = [read, *gradients]
    if memory.constant is not None:
        largest, inverse = softmax.unbind(3)
        weight = (memory.constant - largest).exp() * inverse
        found.append(-(delta[..., 0] * weight).sum().reshape(1))
    return found


def reads_on_host(
    program: Path, build: Build, memory: Memory, backwards: bool = False
) -> list[Tensor]:
    """Of wide values -> read (B, H, W, V) and softmax (B, H, W, 2), exact and by tensor cores."""
    return list(on_host(program, build, memory, backwards=backwards, only_reads=True))


def fake_cupy(library: Path, launches: list) -> SimpleNamespace:
    """A CuPy whose kernels run on this CPU, in a library made of the same source.

    It appends the name of each kernel that is launched to `launches`.
    """
    host = ctypes.CDLL(str(library))
    names = cuda_kernels.PASSES
    plans = np.ctypeslib.as_array((ctypes.c_int * 20).in_dll(host, "plans")).reshape(5, 4)

    class Function:
        def __init__(self, name):
            self.name = name
            self.plan = plans[names.index(name)]

        def __call__(self, grid: tuple, block: tuple, arguments: tuple, shared_mem: int):
            (problem,) = arguments
            assert (*block, shared_mem) == (self.plan[0], self.plan[1])
            assert self.max_dynamic_shared_size_bytes
            assert problem.shape == (1,) and problem.dtype == cuda_kernels.PROBLEM
            launches.append(self.name)
            address = ctypes.c_void_p(problem.ctypes.data)
            assert host.run_pass(names.index(self.name), address, *map(int, grid)) == 0

    class Context:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    module = SimpleNamespace(get_function=Function, get_global=lambda name: plans)
    stream = SimpleNamespace(from_external=lambda stream: Context())
    cuda = SimpleNamespace(Device=lambda index: Context(), Stream=stream)
    return SimpleNamespace(
        __version__="14.0",
        RawModule=lambda code, options: module,
        cuda=cuda,
        ndarray=lambda shape, dtype, memory: SimpleNamespace(get=lambda: memory.reshape(shape)),
    )


# For GPUs


def compile_for_gpu(build: Build, architecture: str, folder: Path) -> dict[str, tuple[int, int]]:
    """By nvcc. -> kernel: registers, bytes spilled."""
    source = folder / "kernels.cu"
    source.write_text(cuda_kernels.source())
    options = [*cuda_kernels.options_of(*build), f"-arch={architecture}", "-cubin"]
    verbose = ["-Xptxas", "-v"]  # says how many registers a kernel has
    output = ["-o", str(folder / "kernels.cubin")]
    done = subprocess.run(
        ["nvcc", *options, *verbose, str(source), *output], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pattern = r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    found = re.findall(pattern, done.stderr, re.S)
    return {name: (int(registers), int(spilled)) for name, spilled, registers in found}


def find_nvrtc() -> Path | None:
    """NVIDIA's run-time compiler as a wheel brings it, which is where CuPy finds it."""
    for place in map(Path, sys.path):
        for library in sorted(place.glob("nvidia/**/libnvrtc.so.*")):
            return library
    return None


def compile_by_nvrtc(library: Path, source: str, options: Sequence[str]) -> bytes:
    """-> cubin. RuntimeError with the compiler's message."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    text = source.encode()
    created = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    assert created == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    what = "CUBIN"
    if failed:
        what = "ProgramLog"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    answer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, answer)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(answer.value.decode())
    return answer.raw
