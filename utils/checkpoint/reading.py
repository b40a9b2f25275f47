"""Checkpoints are read without running code: tensors and plain values only, no pickled classes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from .saving import previous

# Classes that files often pickle, in words; any other is "pickled objects".
PICKLED = {"argparse.Namespace": "the options of the run that wrote it"}

# How files begin that often lie where weights are expected.
GIT_LFS = b"version https://git-lfs"
WEB_PAGE = (b"<!doctype", b"<html")


def read(path: str | Path) -> Any:
    """The content of the torch file at `path`, with its tensors on the CPU.

    Raises FileNotFoundError, and ValueError for a file that is damaged, is no checkpoint or needs
    pickled classes.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint at {path} (a folder)")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    with open(path, "rb") as file:
        try:
            # On the CPU: the file may come from a machine with a GPU.
            return torch.load(file, map_location="cpu", weights_only=True)
        # A damaged file can raise any kind of error.
        except Exception as error:
            raise ValueError(f"{path} {_problem(path, error)}") from error


def read_latest(path: str | Path) -> tuple[dict, str | None]:
    """The newest complete checkpoint of `path` and its .previous -> its content, a note.

    The note says which file was skipped and why; None where the newest file is complete.
    Raises FileNotFoundError where neither file exists, ValueError where neither is complete.
    """
    problems = []
    for candidate in (Path(path), previous(path)):
        try:
            content = read(candidate)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        if isinstance(content, dict):
            return content, _note(problems, candidate)
        problems.append(f"{candidate} holds a {type(content).__name__}, not a checkpoint")
    if not Path(path).exists() and not previous(path).exists():
        raise FileNotFoundError(f"there is no checkpoint: neither {path} nor {previous(path)}")
    raise ValueError(f"no complete checkpoint: {'; '.join(problems)}")


def _note(problems: list[str], used: Path) -> str | None:
    if not problems:
        return None
    return f"{'; '.join(problems)}; went on with {used}"


def _problem(path: Path, error: Exception) -> str:
    """Why torch could not read `path`, as the rest of a sentence that begins with the path."""
    # torch names the class that weights_only=True refuses: "... GLOBAL argparse.Namespace ...".
    refused = re.search(r"GLOBAL (\S+\.\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        name = refused[1]
        return (
            f"holds {PICKLED.get(name, 'pickled objects')} ({name}), which could run code and are "
            "refused: where you trust the file, save its state_dict alone to a new one"
        )
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(GIT_LFS):
        return "is a git-lfs pointer, not the weights: fetch them with `git lfs pull`"
    if head.lstrip().lower().startswith(WEB_PAGE):
        return "is a web page, not the weights: download the file behind it"
    size = path.stat().st_size
    return f"is damaged or no checkpoint ({size} bytes): copy or download it again"
