"""Names what a file is that is no checkpoint, and says what to do with it."""

from __future__ import annotations

import zipfile
from pathlib import Path

AGAIN = "copy or download it again"
UNPACK = "unpack it and give the weights inside"
CONVERT = "save the network's state_dict with torch.save where it was made, and give that"

# How files begin, and what they are. (start of the file, its kind, what to do)
STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the weights", "fetch them: git lfs pull"),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras and others)", CONVERT),
    (b"\x93NUMPY", "a NumPy array", CONVERT),
    (b"GGUF", "a GGUF file", CONVERT),
    (b"\x89PNG", "a picture (PNG)", "give it as --source; --weights takes a checkpoint"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "give it as --source; --weights takes a checkpoint"),
    (b"\x1aE\xdf\xa3", "a video (Matroska)", "give it as --source; --weights takes a checkpoint"),
)
# The same where the mark stands further on. (offset, mark, kind, what to do)
MARKS = (
    (257, b"ustar", "a tar archive", UNPACK),
    (4, b"TFL3", "a TensorFlow Lite model", CONVERT),
    (4, b"ftyp", "a video (MP4)", "give it as --source; --weights takes a checkpoint"),
)
WEB_PAGE = (b"<!doctype", b"<html")

# A zip archive whose entries end in this, or hold this as a folder. (end, folder, kind, what to do)
TORCHSCRIPT = "a TorchScript archive, which holds code besides weights"
FROM_SCRIPT = "save torch.jit.load(file).state_dict() with torch.save, and give that"
IN_ZIP = (
    ("constants.pkl", "code", TORCHSCRIPT, FROM_SCRIPT),
    ("extern_modules", ".data", "a torch.package archive, which holds code", CONVERT),
    ("archive_format", "archive_format", "an exported program (torch.export)", CONVERT),
    (".weights.h5", "assets", "a Keras model", CONVERT),
    (".npy", ".npy", "a NumPy archive (.npz)", CONVERT),
)

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
# What torch wrote before zip: a pickle of this number first.
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of the index of a TensorFlow checkpoint


def is_of_torch(path: Path) -> bool:
    """Whether a file begins as those that torch writes."""
    with open(path, "rb") as file:
        head = file.read(len(LEGACY))
    return head.startswith((ZIP, LEGACY))


def kind_of(path: Path) -> str:
    """What the file at `path` is and what to do, as the rest of a sentence: "is ...: ..."."""
    size = path.stat().st_size
    if not size:
        return f"is empty (0 bytes): {AGAIN}"
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(size - 8, 0))
        tail = file.read()
    known = _by_marks(head) or _by_structure(path, head, tail)
    if known:
        kind, advice = known
        return f"is {kind}: {advice}"
    return f"is damaged or no checkpoint ({size} bytes): {AGAIN}"


def _by_marks(head: bytes) -> tuple[str, str] | None:
    for start, kind, advice in STARTS:
        if head.startswith(start):
            return kind, advice
    for offset, mark, kind, advice in MARKS:
        if head[offset:].startswith(mark):
            return kind, advice
    if head.lstrip().lower().startswith(WEB_PAGE):
        return "a web page, not the weights", "download the file behind it"
    return None


def _by_structure(path: Path, head: bytes, tail: bytes) -> tuple[str, str] | None:
    """What needs more than a mark; None for what is or was a file of torch's, or unknown."""
    # Files of torch's own that end early.
    if ZIP.startswith(head) or LEGACY.startswith(head) or head.startswith(LEGACY):
        return None
    if head.startswith(ZIP):
        return _zip(path)
    if head.startswith(PICKLE) and head[1] <= 5:
        return "a pickle that torch did not write, which could run code", CONVERT
    if tail == TABLE_END or ".ckpt" in path.suffixes or ".data-0" in path.name:
        return "a part of a TensorFlow checkpoint", CONVERT
    if path.suffix == ".onnx" or _is_onnx(head):
        return "an ONNX model, whose layers have no names of ours", CONVERT
    if path.suffix in (".pb", ".pbtxt"):
        return "a TensorFlow graph", CONVERT
    return _text(head)


def _zip(path: Path) -> tuple[str, str] | None:
    try:
        names = zipfile.ZipFile(path).namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    for end, folder, kind, advice in IN_ZIP:
        if any(name.endswith(end) or folder in name.split("/")[:-1] for name in names):
            return kind, advice
    # One that torch wrote, and could not read.
    if any(name.endswith("data.pkl") for name in names):
        return None
    inside = ", ".join(names[:3]) or "nothing"
    return f"a zip archive of {len(names)} files ({inside})", UNPACK


def _is_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX does: with its version, then the producer's name or graph."""
    if len(head) < 5 or head[0] != 0x08 or head[1] > 0x40:
        return False
    # The number of the next field and its type: a text, or the graph itself.
    if head[2] == 0x3A:
        return True
    name = head[4 : 4 + head[3]]
    return head[2] == 0x12 and head[3] < 0x80 and name.isascii() and name.decode().isprintable()


def _text(head: bytes) -> tuple[str, str] | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last letter of what was read may be cut.
        if len(head) - error.start > 3:
            return None
        text = head[: error.start].decode()
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    kind = "a text file"
    if text.lstrip().startswith(("{", "[")):
        kind = "a JSON file"
    return f"{kind}, not the weights", "--weights takes the checkpoint itself"
