"""Compiles a C++ file of this package by the machine's own compiler (CXX, else c++).

The library is made for the instructions of this machine's processor. It is cached in
XDG_CACHE_HOME/streamseg or ~/.cache/streamseg, under a name that changes with the source, the
compiler and its options. Where nothing can be cached, every process compiles it anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

INSTRUCTIONS = {  # by PyTorch's name of the processor's capability
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
    "AVX2": ["-mavx2", "-mfma"],
}
OPTIONS = ["-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-Wno-psabi"]
TIMEOUT = 300  # seconds for one run of the compiler


def build_library(source: Path) -> ctypes.CDLL:
    """The library of a C++ file, compiled unless an earlier run did.

    RuntimeError, OSError, SubprocessError: with the reason why there can be none.
    """
    instructions = INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])
    command = [*compiler(), *OPTIONS, *instructions]
    try:
        return load_or_compile([*command, "-fopenmp"], source)
    except RuntimeError:
        # A compiler without OpenMP: kernels then start threads of their own
        return load_or_compile(command, source)


def load_or_compile(command: list[str], source: Path) -> ctypes.CDLL:
    """The library that this command makes of the source. Errors as in `build_library`."""
    text = source.read_text(encoding="utf-8")
    key = hashlib.sha256("\0".join((*command, text)).encode()).hexdigest()
    name = f"{source.stem}_{key[:16]}"
    folder = cache_folder()
    if folder is not None:
        library = load_cached(folder, name)
        if library is not None:
            return library
    with tempfile.TemporaryDirectory(prefix="streamseg_") as temporary:
        built = Path(temporary) / f"{name}.so"
        run_compiler([*command, str(source), "-o", str(built)])
        # Loaded from the cache if possible: temporary files may be on a disk that executes nothing
        if folder is not None:
            with suppress(OSError):
                return ctypes.CDLL(str(store(built, folder)))
        return ctypes.CDLL(str(built))


def load_cached(folder: Path, name: str) -> ctypes.CDLL | None:
    """An intact library of this name in the folder, or None."""
    for path in folder.glob(f"{name}_*.so"):
        # OSError: another system built it
        with suppress(OSError):
            if path.name == cached_name(path, name):
                return ctypes.CDLL(str(path))
    return None


def run_compiler(command: list[str]) -> None:
    """RuntimeError with the first error that the compiler reports."""
    # errors="replace": compilers quote file names in whatever encoding they have
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
    )
    if done.returncode:
        raise RuntimeError(first_error(done.stderr, command[0]))


def compiler() -> list[str]:
    """The compiler and its own options. RuntimeError if it is not installed."""
    # CXX may hold options, as make reads it
    command = os.environ.get("CXX", "").split() or ["c++"]
    if sys.platform == "win32" or shutil.which(command[0]) is None:
        raise RuntimeError(
            f"there is no C++ compiler {command[0]!r} (install g++ or clang, or name one in CXX)"
        )
    return command


def first_error(message: str, name: str) -> str:
    """The line of the compiler's message that reports an error, else its first line."""
    lines = message.splitlines() or [f"{name} failed"]
    for line in lines:
        if "error" in line:
            return line
    return lines[0]


def cache_folder() -> Path | None:
    """The folder for libraries, or None where there can be none."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG standard: a path that is not absolute counts as not set
    if not base.is_absolute():
        base = Path(os.path.expanduser("~")) / ".cache"
    # A user without a home directory
    if not base.is_absolute():
        return None
    return base / "streamseg"


def cached_name(path: Path, name: str) -> str:
    """The file name with a hash of the content: loading a damaged library can end the process."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}_{digest[:16]}.so"


def store(built: Path, folder: Path) -> Path:
    """Copy a library into the cache -> its path there. OSError where that is not possible."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / cached_name(built, built.stem)
    # Copied beside the target and then renamed, in one step: other processes may do the same
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        shutil.copy(built, temporary)
        os.replace(Path(temporary) / built.name, target)
    return target
