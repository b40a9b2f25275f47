"""The kernels of local attention built for a CPU or for a GPU that need not be there: what tests of them share."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from models.ops import local_attention, local_attention_cupy

needs_gxx = pytest.mark.skipif(
    not shutil.which("g++") and not os.environ.get("CI"), reason="no g++"
)
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

HERE = Path(__file__).parent
NARROW = {"float": torch.float32, "Half": torch.float16, "Bfloat": torch.bfloat16}


class Build(NamedTuple):
    """Channels of keys and values, window, and types of both: what a build of the kernels is for."""

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
        batch: int,
        frames: int,
        height: int,
        width: int,
        constant: float | None = None,
        scale: float = 1.0,
    ) -> Memory:
        def maps(count, channels, kind, scale):
            return [
                (scale * torch.randn(batch, channels, height, width)).to(NARROW[kind]).float()
                for _ in range(count)
            ]

        return cls(
            *maps(1, build.keys, build.key_type, scale),
            maps(frames, build.keys, build.key_type, scale),
            maps(frames, build.values, build.value_type, 1),
            *maps(1, build.values, build.value_type, 1),
            constant,
        )


def compile_for_host(
    build: Build, folder: Path, sanitizers: str = "", edit: tuple[str, str] | None = None
) -> Path:
    """A program, or without sanitizers a library. edit: words of the kernels and what to put there in their place."""
    target = (
        folder / f"{'_'.join(map(str, build))}_{sanitizers or 'library'}{'_edited' if edit else ''}"
    )
    text = (HERE / "kernel_host.cpp").read_text()
    kernels = local_attention_cupy.source()
    if edit:
        assert kernels.count(edit[0]) >= 1, "the words to be replaced are in the kernels"
        kernels = kernels.replace(*edit)
    target.with_suffix(".cpp").write_text(
        re.sub(r'#include "\.\./models.*\n', lambda _: kernels, text)
    )
    how = (
        [f"-fsanitize={sanitizers}", "-fno-sanitize-recover"]
        if sanitizers
        else ["-shared", "-fPIC"]
    )
    subprocess.run(
        [
            "g++",
            *local_attention_cupy.options_of(*build),
            "-O1",
            "-g1",
            "-ffp-contract=off",
            *how,
            "-Wall",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-Wno-unused-function",
            "-Wno-unused-variable",
            str(target.with_suffix(".cpp")),
            "-o",
            str(target),
        ],
        check=True,
    )
    return target


def on_host(
    program: Path, build: Build, memory: Memory, backwards: bool, only_reads: bool
) -> Iterator[Tensor]:
    """-> what the program gives, maps (B, H, W, n), see `main` there."""
    batch, _, height, width = memory.query.shape
    frames = len(memory.keys)
    maps = [
        memory.query,
        memory.gradient,
        torch.tensor(memory.constant or 0.0),
        *memory.keys,
        *memory.values,
    ]
    header = np.array(
        [batch, height, width, frames, memory.constant is not None, backwards, only_reads], np.int32
    )
    maps = [(x.movedim(1, -1) if x.ndim else x).contiguous() for x in maps]
    given = header.tobytes() + b"".join(x.numpy().tobytes() for x in maps)
    done = subprocess.run([program], input=given, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[:4000])
    found = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())
    sizes = [build.values, 2] * (2 if build.wide else 1)
    if not only_reads:
        sizes += [1, *[build.keys] * (1 + frames), *[build.values] * frames]
    parts = found.split([batch * height * width * size for size in sizes])
    yield from (x.view(batch, height, width, -1) for x in parts)


def run_on_host(
    program: Path, build: Build, memory: Memory, backwards: bool = False
) -> list[Tensor]:
    """-> read, gradients of query, keys, values (B, H, W, channels) and, if there is one, of the constant."""
    read, softmax, *others = on_host(program, build, memory, backwards, only_reads=False)
    delta, *gradients = others[2:] if build.wide else others
    if memory.constant is None:
        return [read, *gradients]
    largest, inverse = softmax.unbind(3)
    return [
        read,
        *gradients,
        -(delta[..., 0] * (memory.constant - largest).exp() * inverse).sum().reshape(1),
    ]


def reads_on_host(
    program: Path, build: Build, memory: Memory, backwards: bool = False
) -> list[Tensor]:
    """Of wide values -> read (B, H, W, V) and softmax (B, H, W, 2): exact ones, then those of tensor cores."""
    return list(on_host(program, build, memory, backwards, only_reads=True))


def exact(build: Build, memory: Memory) -> list[Tensor]:
    """The same in float64, by the tiled form."""
    leaves = [x.double().requires_grad_() for x in (memory.query, *memory.keys, *memory.values)]
    frames = len(memory.keys)
    constant = (
        [] if memory.constant is None else [torch.tensor([memory.constant], dtype=torch.float64)]
    )
    leaves += [x.requires_grad_() for x in constant]
    read = local_attention(
        leaves[0],
        leaves[1 : 1 + frames],
        leaves[1 + frames : 1 + 2 * frames],
        build.window,
        *constant,
        backend="tiled",
    )
    found = [read.detach(), *torch.autograd.grad((read * memory.gradient.double()).sum(), leaves)]
    return [x.movedim(1, -1) if x.ndim > 1 else x for x in found]


def assert_equal_to(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """All of them, relative to the largest number of each."""
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)
        assert error <= tolerance, f"number {number}: {error:.1e}"  # a NaN is not within it, either


def on_gpu(memory: Memory, build: Build, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """As `exact`, by the kernels."""
    leaves = [
        x.to("cuda", dtype).requires_grad_() for x in (memory.query, *memory.keys, *memory.values)
    ]
    frames = len(memory.keys)
    more = (
        []
        if memory.constant is None
        else [torch.tensor([memory.constant], device="cuda", requires_grad=True)]
    )
    read = local_attention(
        leaves[0], leaves[1 : 1 + frames], leaves[1 + frames :], build.window, *more, backend="cupy"
    )
    gradients = torch.autograd.grad((read * memory.gradient.to(read)).sum(), leaves + more)
    return [(x.movedim(1, -1) if x.ndim > 1 else x).cpu() for x in (read.detach(), *gradients)]


def fake_cupy(library: Path, launches: list) -> SimpleNamespace:
    """A CuPy whose kernels run on this CPU, in a library made of the same source; notes what is launched."""
    host = ctypes.CDLL(str(library))
    names = local_attention_cupy.PASSES
    plans = np.ctypeslib.as_array((ctypes.c_int * 20).in_dll(host, "plans")).reshape(5, 4)

    class Function:
        def __init__(self, name):
            self.name, self.plan = name, plans[names.index(name)]

        def __call__(self, grid: tuple, block: tuple, arguments: tuple, shared_mem: int):
            (problem,) = arguments
            assert (*block, shared_mem) == (
                self.plan[0],
                self.plan[1],
            ) and self.max_dynamic_shared_size_bytes
            assert problem.shape == (1,) and problem.dtype == local_attention_cupy.PROBLEM
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


def compile_for_gpu(build: Build, architecture: str, folder: Path) -> dict[str, tuple[int, int]]:
    """By nvcc. -> kernel: registers, bytes spilled."""
    source = folder / "kernels.cu"
    source.write_text(local_attention_cupy.source())
    done = subprocess.run(
        [
            "nvcc",
            *local_attention_cupy.options_of(*build),
            f"-arch={architecture}",
            "-cubin",
            "-Xptxas",
            "-v",
            str(source),
            "-o",
            str(folder / "kernels.cubin"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kernels = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers",
        done.stderr,
        re.S,
    )
    return {name: (int(registers), int(spilled)) for name, spilled, registers in kernels}


def find_nvrtc() -> Path | None:
    """NVIDIA's run-time compiler as a wheel brings it, which is where CuPy finds it."""
    for place in map(Path, sys.path):
        for library in sorted(place.glob("nvidia/**/libnvrtc.so.*")):
            return library
    return None


def compile_by_nvrtc(library: Path, source: str, options: Sequence[str]) -> bytes:
    """-> cubin. RuntimeError with the compiler's words."""
    nvrtc, program, size = ctypes.CDLL(str(library)), ctypes.c_void_p(), ctypes.c_size_t()
    assert (
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
        == 0
    )
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    what = "ProgramLog" if failed else "CUBIN"
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(text.value.decode())
    return text.raw
