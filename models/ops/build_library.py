"""Builds a C++ file of this package by the machine's own compiler (CXX, else c++), for its processor's instructions.

Libraries are kept in XDG_CACHE_HOME/streamseg or ~/.cache/streamseg, under names that change with what they are made
of; where nothing can be kept they are built anew by every process.
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

INSTRUCTIONS = {  # by what PyTorch calls the processor
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
    "AVX2": ["-mavx2", "-mfma"],
}


def build_library(source: Path) -> ctypes.CDLL:
    """The library, built unless an earlier run did. RuntimeError, OSError, SubprocessError: why there can be none."""
    command = [
        *compiler(),
        "-std=c++17",
        "-O3",
        *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), []),
        "-shared",
        "-fPIC",
        "-pthread",
        "-Wno-psabi",
    ]
    try:
        return made_by([*command, "-fopenmp"], source)
    except RuntimeError:  # a compiler without OpenMP: kernels then start threads of their own
        return made_by(command, source)


def made_by(command: list[str], source: Path) -> ctypes.CDLL:
    """What this command makes of the source, or made of it before. RuntimeError with the compiler's words."""
    key = hashlib.sha256(
        "\0".join((*command, source.read_text(encoding="utf-8"))).encode()
    ).hexdigest()
    folder, name = cache_folder(), f"{source.stem}_{key[:16]}"
    for kept in folder.glob(f"{name}_*.so") if folder else ():
        with suppress(OSError):  # one that another system built
            if kept.name == kept_name(kept, name):
                return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory(prefix="streamseg_") as place:
        built = Path(place) / f"{name}.so"
        done = subprocess.run(
            [*command, str(source), "-o", str(built)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(first_error(done.stderr, command[0]))
        if folder:
            with suppress(OSError):  # from there even where temporary files must not be executed
                return ctypes.CDLL(str(keep(built, folder)))
        return ctypes.CDLL(str(built))


def compiler() -> list[str]:
    """CXX may hold options, as make reads it."""
    words = os.environ.get("CXX", "").split() or ["c++"]
    if sys.platform == "win32" or shutil.which(words[0]) is None:
        raise RuntimeError(
            f"there is no C++ compiler {words[0]!r} (install g++ or clang, or name one in CXX)"
        )
    return words


def first_error(words: str, name: str) -> str:
    """The line in which a compiler says what is wrong."""
    lines = words.splitlines() or [f"{name} failed"]
    return next((line for line in lines if "error" in line), lines[0])


def cache_folder() -> Path | None:
    """Where libraries are kept; None where that is nowhere."""
    given, home = Path(os.environ.get("XDG_CACHE_HOME", "")), Path(os.path.expanduser("~"))
    if not given.is_absolute():  # as the standard of these folders has it
        given = home / ".cache"
    return given / "streamseg" if given.is_absolute() else None


def kept_name(path: Path, name: str) -> str:
    """The name says what is in the file: loading one that was cut short would end the process."""
    return f"{name}_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def keep(built: Path, folder: Path) -> Path:
    """Copy it there at once, whole: other processes may be doing the same. -> where it is"""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / kept_name(built, built.stem)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        shutil.copy(built, place)
        os.replace(Path(place) / built.name, kept)
    return kept
