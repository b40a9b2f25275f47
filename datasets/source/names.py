"""What the spec of a source means: its kind, the files behind a folder or glob, a name for what is made of it."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..files import natural_key

IMAGES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "ppm")
VIDEOS = (
    "mp4",
    "m4v",
    "mov",
    "avi",
    "mkv",
    "webm",
    "mpg",
    "mpeg",
    "ts",
    "mts",
    "m2ts",
    "wmv",
    "flv",
    "ogv",
    "3gp",
)
STREAMS = ("rtsp", "rtmp", "http", "https")
FORMS = (
    "a source is a video or image file, a folder of images, a quoted glob ('frames/*.png'), a camera index (0), "
    "a stream (rtsp:// rtmp:// http:// https://) or - for PPM images on standard input"
)


def source_kind(spec: str) -> str:
    """stdin, camera, stream, folder, image, video or glob; a file named like a camera is asked for as ./0."""
    scheme = spec.partition("://")[0].lower() if "://" in spec else None
    if spec == "-":
        return "stdin"
    if camera_index(spec) is not None:
        return "camera"
    if scheme in STREAMS:
        return "stream"
    path = Path(spec).expanduser()
    if spec and os.path.exists(path):
        return "folder" if path.is_dir() else "image" if _is(path, IMAGES) else "video"
    if scheme is None and glob.has_magic(spec):
        return "glob"
    raise FileNotFoundError(
        f"there is no {printable(spec) or 'source with an empty name'}: {FORMS}"
    )


def expand_sources(specs: Sequence[str]) -> list[str]:
    """One spec per source, each once: videos and folders that a glob matches become sources of their own, and so do
    the videos of a folder without images; the images that a glob matches stay one source."""
    found: dict[str, str] = {}
    for spec in specs:
        kind = source_kind(spec)
        parts = _parts(spec, kind) if kind in ("folder", "glob") else [spec]
        for part in parts:
            found.setdefault(os.path.abspath(part) if os.path.exists(part) else part, part)
    return list(found.values())


def unique_names(specs: Sequence[str]) -> list[str]:
    """A name for the outputs of each source: a/clip.mp4, b/clip.mp4 -> clip, clip_2. To be called with all sources,
    before ranks share them."""
    return number_repeats([source_name(spec) for spec in specs])


def source_name(spec: str) -> str:
    """A stem that is safe in file names: solidWhiteRight, camera0, stdin, rtsp_host_path (without passwords)."""
    if spec == "-":
        return "stdin"
    if camera_index(spec) is not None:
        return f"camera{camera_index(spec)}"
    scheme, separator, address = printable(spec).partition("://")
    if separator and scheme.lower() in STREAMS:
        name = f"{scheme}_{re.split('[?#]', address)[0]}"
    else:
        path = Path(os.path.abspath(Path(spec).expanduser()))
        if not os.path.exists(path):  # of a glob, the folder in front of its first wildcard
            path = next(
                (folder for folder in (path, *path.parents) if not glob.has_magic(str(folder))),
                path,
            )
        name = path.name if os.path.isdir(path) else path.stem
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "source"


def images_in(spec: str, kind: str) -> list[Path]:
    """The images of a folder or glob; FileNotFoundError where there are none."""
    inside = _inside(spec, kind)
    images = [entry for entry in inside if _is(entry, IMAGES) and entry.is_file()]
    if not images:
        raise FileNotFoundError(
            f"there is no image ({' '.join(IMAGES)}) among the {len(inside)} entries of {spec}"
        )
    return images


def printable(spec: str) -> str:
    """The spec without the user and password of a stream."""
    return re.sub(r"(?<=://)[^/?#]*@", "", spec)


def number_repeats(names: Sequence[str]) -> list[str]:
    """Names made different: the second `a` becomes a_2. Case does not make a difference on every disk."""
    taken: set[str] = set()
    last: dict[
        str, int
    ] = {}  # the number given to this name before, so that many repeats take no search
    result = []
    for name in names:
        new, number = name, last.get(name, 1)
        while new.lower() in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new.lower())
        last[name] = number
        result.append(new)
    return result


def camera_index(spec: str) -> int | None:
    """0 or /dev/video0 -> 0; None where the spec is no camera."""
    match = re.fullmatch(r"(?:/dev/video)?(\d{1,2})", spec, re.ASCII)
    return int(match[1]) if match else None


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower()[1:] in suffixes


def _inside(spec: str, kind: str) -> list[Path]:
    """What a folder holds or a glob matches, naturally sorted, without hidden files (a Mac leaves ._1.png by 1.png)."""
    path = Path(spec).expanduser()
    found = path.iterdir() if kind == "folder" else map(Path, glob.glob(str(path), recursive=True))
    inside = sorted((entry for entry in found if not entry.name.startswith(".")), key=_order)
    if not inside:
        raise FileNotFoundError(
            f"{spec} is empty: {FORMS}" if kind == "folder" else f"nothing matches {spec}: {FORMS}"
        )
    return inside


def _order(path: Path) -> tuple:
    """Natural order folder by folder; 1.png and 01.png in an order that does not depend on the disk."""
    return [natural_key(Path(part)) for part in path.parts], str(path)


def _parts(spec: str, kind: str) -> list[str]:
    """The sources that a folder or glob stands for (see expand_sources)."""
    inside = _inside(spec, kind)
    videos = [str(entry) for entry in inside if _is(entry, VIDEOS)]
    if any(_is(entry, IMAGES) for entry in inside):
        return [spec] if kind == "folder" else [spec, *videos]
    folders = [
        str(entry)
        for entry in inside
        if kind == "glob"
        and entry.is_dir()
        and any(_is(image, IMAGES) for image in entry.iterdir())
    ]
    return videos + folders or [spec]
