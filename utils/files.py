"""Files are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step: a kill or a full disk leaves the previous file as it was.

    Raises OSError that names the file. The system's own error does not where the disk is full.
    """
    path = Path(path)
    # In the same folder, since a rename is one step only within a file system.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # Before the rename: after a power cut the name could else stand for an empty file.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Nothing can be removed from a folder that may not be written to.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{path} cannot be written ({error.strerror or error}): is there space, and may "
            "this folder be written to?",
        ) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text: UTF-8, newlines as they are, names of files that are no UTF-8 too."""
    write_bytes(path, text.encode(errors="surrogateescape"))
