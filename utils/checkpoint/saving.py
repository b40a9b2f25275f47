"""Checkpoints are saved so that a crash at any moment leaves a complete file.

`save` writes a temporary file and then renames it. The file that was there stays as NAME.previous.
Only tensors and plain values are saved, so that reading a checkpoint never needs pickled classes.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, bytes, type(None))

# The type that each sequence is saved as: torch.Size is a class of torch's own.
SEQUENCES = {list: list, tuple: tuple, torch.Size: tuple}

# What file systems without hard links, or without syncing of folders, answer.
UNSUPPORTED = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


def save(path: str | Path, content: dict, *, keep: bool = True) -> None:
    """Write `content` (tensors and plain values, nested as deep as you like) to `path` in one step.

    keep: the file that was there becomes NAME.previous. At every moment a complete file exists.
    Raises TypeError for any other value in `content`, OSError where the file cannot be written.
    """
    path = Path(path)
    content = _plain(content, "content")
    # In the same folder, since a rename is one step only within a file system.
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        _write(content, new)
        _replace(path, new, old, keep=keep)
    # torch's writer turns some OSErrors into RuntimeErrors.
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"could not save {path}: {_reason(error, path.parent)}; is there space, and may this "
            "folder be written to?"
        ) from error
    finally:
        # Nothing can be removed from a folder that may not be written to.
        with suppress(OSError):
            new.unlink(missing_ok=True)
            old.unlink(missing_ok=True)


def previous(path: str | Path) -> Path:
    """Where `save` keeps the file that it replaces."""
    return Path(f"{path}.previous")


def _plain(value: Any, name: str) -> Any:
    """A copy of `value` that torch.load(weights_only=True) can read; `name` says where it stands.

    Raises TypeError for a value or a key of another type.
    """
    # Exact types: of a subclass, reading would need the class.
    if type(value) in (Tensor, nn.Parameter):
        return value.detach().cpu()
    # A number of numpy's, such as a metric.
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in PLAIN:
        return value
    if type(value) in SEQUENCES:
        items = [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return SEQUENCES[type(value)](items)
    if isinstance(value, dict):
        _require_plain_keys(value, name)
        return {key: _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}: a checkpoint takes "
        "tensors and plain values only (int, float, str, list, dict, ...); convert it first"
    )


def _require_plain_keys(table: dict, name: str) -> None:
    for key in table:
        if type(key) not in (str, int):
            raise TypeError(
                f"{name} has the key {key!r} ({type(key).__name__}): a checkpoint takes str and int"
            )


def _write(content: dict, path: Path) -> None:
    """Write a file that is on the disk, not only in the system's cache, when this returns."""
    with open(path, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, new: Path, old: Path, *, keep: bool) -> None:
    """Move `new` to `path`; keep: what was at `path` goes to its .previous by way of `old`."""
    replaces = keep and path.exists()
    if replaces:
        _link(path, old)
    # The new file comes first: .previous may be the only complete file until now.
    os.replace(new, path)
    if replaces:
        os.replace(old, previous(path))
    _sync_folder(path.parent)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        shutil.copyfile(source, target)


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` outlive a power cut, where the file system offers that."""
    # Renames are changes of the folder, which the sync of a file does not cover.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def _reason(error: OSError | RuntimeError, folder: Path) -> str:
    """Why a file could not be saved in `folder`."""
    number = getattr(error, "errno", None)
    # torch's RuntimeError does not say so when the disk is full: less than 1 MiB is left.
    if isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 1 << 20:
        number = errno.ENOSPC
    if number:
        return os.strerror(number)
    return str(error)
