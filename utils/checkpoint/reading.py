"""Checkpoints are read without running code: tensors and plain values only, no pickled classes."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from .kinds import is_of_torch, kind_of
from .safetensors_file import is_safetensors, read_safetensors
from .saving import previous

# Classes that files often pickle, in words; any other is "pickled objects".
PICKLED = {
    "argparse.Namespace": "the options of the run that wrote it",
    "numpy.core.multiarray.scalar": "numbers of numpy's",
    "numpy._core.multiarray.scalar": "numbers of numpy's",
}

# What a folder of a run means as weights: the first of these that it has.
IN_FOLDER = ("model_best.pth.tar", "model_best.pth", "checkpoint.pth.tar")


def resolve(path: str | Path) -> Path:
    """The file that `path` means: itself, or the best weights in the folder of a run.

    FileNotFoundError where there is none; for a folder it lists what is there.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    found = sorted(item.name for item in path.iterdir())
    listed = ", ".join(found[:5]) or "nothing"
    if len(found) > 5:
        listed += f", and {len(found) - 5} more"
    raise FileNotFoundError(
        f"there is no checkpoint in the folder {path}: expected {', '.join(IN_FOLDER[:-1])} or "
        f"{IN_FOLDER[-1]}, found {listed}; name the file"
    )


def read(path: str | Path) -> Any:
    """The content of the torch or safetensors file at `path`, with its tensors on the CPU.

    path: a file, or a folder as `resolve` takes it. Raises FileNotFoundError, and ValueError for a
    file that is damaged, is no checkpoint or needs pickled classes.
    """
    path = resolve(path)
    # By its content: such files come under many names.
    if is_safetensors(path):
        return read_safetensors(path)
    with open(path, "rb") as file:
        try:
            with warnings.catch_warnings():
                # What it warns of (code in an archive, other pickles) it also refuses.
                warnings.simplefilter("ignore")
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
    if isinstance(error, pickle.UnpicklingError) and refused and is_of_torch(path):
        name = refused[1]
        return (
            f"holds {PICKLED.get(name, 'pickled objects')} ({name}), which could run code and are "
            "refused: where you trust the file, save its state_dict alone to a new one"
        )
    return kind_of(path)
