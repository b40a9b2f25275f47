"""Checkpoint files: saved so that a crash costs nothing, read so that a file can run no code.

save(path, content)             a temporary file, then renamed; the file before it stays as NAME.previous
read(path)                      whatever a torch file holds, tensors and plain values only
read_latest(path)               the newest complete one of NAME and NAME.previous
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, bytes, type(None))
UNSUPPORTED = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
)  # not every file system can


# Saving and reading


def save(path: str | Path, content: dict, *, keep: bool = True) -> None:
    """Write `content` (tensors and plain values, nested at will) to `path` in one step.

    keep: the file that was there becomes NAME.previous. At every instant a complete file exists.
    Raises TypeError for anything else in `content`, OSError where the disk refuses.
    """
    path, content = Path(path), _plain(content, "content")
    fresh, old = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        with open(fresh, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        replaces = keep and path.exists()
        if replaces:
            _link(path, old)
        os.replace(fresh, path)  # first the new file, for .previous may be the only complete one
        if replaces:
            os.replace(old, previous(path))
        _sync_folder(path.parent)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch's writer turns some of the former into the latter
        full = isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 1 << 20
        number = errno.ENOSPC if full else getattr(error, "errno", None)
        why = os.strerror(number) if number else error
        raise OSError(
            f"could not save {path}: {why}; is there space, and may this folder be written to?"
        ) from error
    finally:
        with suppress(OSError):  # nothing can be removed where nothing may be written
            fresh.unlink(missing_ok=True)
            old.unlink(missing_ok=True)


def previous(path: str | Path) -> Path:
    """Where `save` keeps the file that it replaces."""
    return Path(f"{path}.previous")


def read(path: str | Path) -> Any:
    """What the torch file at `path` holds, on the CPU.

    Raises FileNotFoundError, and ValueError for a file that is damaged, no checkpoint, or needs pickled classes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint at {path}{' (a folder)' if path.is_dir() else ''}"
        )
    with open(path, "rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(f"{path} {_what_is_wrong(path, error)}") from error


def read_latest(path: str | Path) -> tuple[dict, str | None]:
    """The newest complete checkpoint of `path` and its .previous, and what was skipped and why (None: nothing)."""
    problems = []
    for candidate in (Path(path), previous(path)):
        try:
            content = read(candidate)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        if isinstance(content, dict):
            return content, f"{'; '.join(problems)}; went on with {candidate}" if problems else None
        problems.append(f"{candidate} holds a {type(content).__name__}, not a checkpoint")
    if not Path(path).exists() and not previous(path).exists():
        raise FileNotFoundError(f"there is no checkpoint: neither {path} nor {previous(path)}")
    raise ValueError(f"no complete checkpoint: {'; '.join(problems)}")


def _plain(value: Any, name: str) -> Any:
    """A copy of `value` that torch.load(weights_only=True) will read."""
    if type(value) in (Tensor, nn.Parameter):
        return value.detach().cpu()
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in PLAIN:
        return value
    if type(value) in (list, tuple, torch.Size):
        items = [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(
                    f"{name} has the key {key!r} ({type(key).__name__}): a checkpoint takes str and int"
                )
        return {key: _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}: a checkpoint takes tensors and "
        "plain values only (int, float, str, list, dict, ...); convert it first"
    )


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        shutil.copyfile(source, target)


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` outlive a power cut, where the file system offers that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def _what_is_wrong(path: Path, error: Exception) -> str:
    """The rest of a sentence that begins with the name of a file torch could not read."""
    refused = re.search(r"GLOBAL (\S+\.\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        kind = (
            "the options of the run that wrote it"
            if refused[1] == "argparse.Namespace"
            else "pickled objects"
        )
        return (
            f"holds {kind} ({refused[1]}), which could run code and are refused: where you trust the file, save "
            "its state_dict alone to a new one"
        )
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: fetch them with `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not the weights: download the file behind it"
    return f"is damaged or no checkpoint ({path.stat().st_size} bytes): copy or download it again"
