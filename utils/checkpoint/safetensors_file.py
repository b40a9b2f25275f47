"""Reads safetensors files: a length, a table in JSON, and the numbers of all tensors.

https://huggingface.co/docs/safetensors: they hold no code, and the table says where each tensor
lies. It is short enough to be read without the package.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LENGTH = struct.Struct("<Q")  # of the table, in bytes
LONGEST = 100_000_000  # that a table may be: the format's own limit

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def is_safetensors(path: Path) -> bool:
    """Whether a file is one by its content, whatever its name."""
    with open(path, "rb") as file:
        head = file.read(LENGTH.size + 2)
    if len(head) < LENGTH.size + 2:
        return False
    (length,) = LENGTH.unpack_from(head)
    # The table begins with an object: {" or, padded by the writer, {} and spaces.
    return 2 <= length <= LONGEST and head[LENGTH.size :] in (b'{"', b"{}", b"{ ", b"{\n")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. ValueError where it is damaged."""
    data = bytearray(path.read_bytes())
    (length,) = LENGTH.unpack_from(data)
    begin = LENGTH.size + length
    try:
        table = json.loads(data[LENGTH.size : begin].decode())
        table.pop("__metadata__", None)
        return {name: _tensor(entry, data, begin) for name, entry in table.items()}
    # What a damaged table holds can be anything.
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path} is a damaged safetensors file ({len(data)} bytes; {error}): copy or download "
            "it again"
        ) from error


def _tensor(entry: Any, data: bytearray, begin: int) -> Tensor:
    """One tensor; its offsets count from `begin`, where the table ends."""
    first, last = entry["data_offsets"]
    shape = entry["shape"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"numbers of the type {entry['dtype']} are not known")
    dtype = DTYPES[entry["dtype"]]
    count = math.prod(shape)
    if not 0 <= first <= last <= len(data) - begin or last - first != count * dtype.itemsize:
        raise ValueError("a tensor lies outside the file")
    if not count:
        return torch.empty(shape, dtype=dtype)
    # A copy, since it may lie at any offset, and the file's bytes can then go.
    part = bytearray(data[begin + first : begin + last])
    return torch.frombuffer(part, dtype=dtype).reshape(shape)
