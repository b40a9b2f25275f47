"""Whether a file on disk is as long as its own structure says: videos that were cut short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid", b"sidx")
MATROSKA = b"\x1aE\xdf\xa3"
SEGMENT = b"\x18S\x80g"


def cut_short(path: Path | str) -> bool:
    """Whether bytes are missing at the end of an mp4, mov, AVI or Matroska file.

    False where nobody can know: other containers do not say how long they are.
    """
    try:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            return _stated_length(file, length) > length
    except OSError:
        # a pipe or a device has no length
        return False


def _stated_length(file: BinaryIO, length: int) -> int:
    """Bytes that the file should have; `length` where it does not say."""
    head = file.read(12)
    if head[4:8] in BOXES:
        return _boxes(file, length)
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        return _riff(file, length)
    if head[:4] == MATROSKA:
        return _matroska(file, length)
    return length


def _boxes(file: BinaryIO, length: int) -> int:
    """mp4 and mov: boxes of a size (4 bytes, high byte first) and a name, one after another."""
    end = 0
    while end < length:
        file.seek(end)
        head = file.read(16)
        if head[4:8] not in BOXES and not head[4:8].isalnum():
            # something that was added behind the video
            break
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        # 0: up to the end of the file
        if size < 8:
            return length
        end += size
    return end


def _riff(file: BinaryIO, length: int) -> int:
    """AVI: chunks of RIFF and a size (4 bytes, low byte first); more than one above 1 GB."""
    end = 0
    while end < length:
        file.seek(end)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        # 0: the recorder was stopped before it could fill it in
        if head[:4] != b"RIFF" or size == 0:
            break
        end += 8 + size + size % 2
    # the last odd byte is often left out
    return end - 1


def _matroska(file: BinaryIO, length: int) -> int:
    """Matroska and WebM: a header, then one segment, which may have no stated size."""
    file.seek(len(MATROSKA))
    size = _number(file)
    if size is None:
        return length
    file.seek(size, os.SEEK_CUR)
    if file.read(4) != SEGMENT:
        return length
    size = _number(file)
    if size is None:
        return length
    return file.tell() + size


def _number(file: BinaryIO) -> int | None:
    """A number whose leading zero bits say how many bytes follow; all ones: unknown -> None."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(extra), "big")
    bits = 7 * (extra + 1)
    value &= (1 << bits) - 1
    if value == (1 << bits) - 1:
        return None
    return value
