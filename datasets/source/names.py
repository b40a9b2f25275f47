"""What the spec of a source means: its kind, the files behind it, and a name for its outputs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..files import natural_key
from .foreign import foreign_kind

Skip = Callable[[Path], bool]  # which files are no part of a source: outputs of our own

# suffixes of files, without the dot
IMAGES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "ppm", "avif")
VIDEOS = tuple("mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv ogv 3gp".split())
# what comes before :// in the address of a stream
STREAMS = ("rtsp", "rtmp", "http", "https")
STDIN = "-"
MAX_NAME = 100  # characters: file systems allow 255 bytes, and our outputs add endings
FORMS = (
    "a source is a video or image file, a folder of images, a quoted glob ('frames/*.png'), "
    "a camera index (0), a stream (rtsp:// rtmp:// http:// https://) or - for PPM images on "
    "standard input"
)


def source_kind(spec: str) -> str:
    """stdin, camera, stream, folder, image, video or glob.

    FileNotFoundError where it is none of them, ValueError where it is a file of another kind. A
    file that is named 0 is asked for as ./0.
    """
    if spec == STDIN:
        return "stdin"
    if camera_index(spec) is not None:
        return "camera"
    scheme = _scheme(spec)
    if scheme in STREAMS:
        return "stream"
    path = Path(spec).expanduser()
    # before globs: a file may be called [x].mp4. Path("") is the current folder
    if spec and os.path.exists(path):
        return _kind_on_disk(path)
    if scheme is None and glob.has_magic(spec):
        return "glob"
    missing = printable(spec) or "source with an empty name"
    raise FileNotFoundError(f"there is no {missing}: {FORMS}")


def _scheme(spec: str) -> str | None:
    """rtsp of rtsp://host; None where the spec is no address."""
    scheme, separator, _ = spec.partition("://")
    if not separator:
        return None
    return scheme.lower()


def _kind_on_disk(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if _is(path, IMAGES):
        return "image"
    kind = foreign_kind(path)
    if kind and not _is(path, VIDEOS):
        raise ValueError(f"{path} is {kind}: {FORMS}")
    # whatever its suffix says: FFmpeg looks at the content
    return "video"


def read_all(path: Path) -> bool:
    """The files that a source leaves out where nothing else is said: none."""
    return False


def camera_index(spec: str) -> int | None:
    """0 or /dev/video0 -> 0; None where the spec is no camera."""
    match = re.fullmatch(r"(?:/dev/video)?(\d{1,2})", spec, re.ASCII)
    if not match:
        return None
    return int(match[1])


def expand_sources(specs: Sequence[str], skip: Skip = read_all) -> list[str]:
    """One spec per source, each once.

    Videos in a folder, and videos and folders that a glob matches, become sources of their own; the
    images of a folder or glob stay one source. skip: which files are left out.
    """
    found: dict[str, str] = {}
    for spec in specs:
        parts = [spec]
        expand = EXPANSIONS.get(source_kind(spec))
        if expand:
            parts = expand(spec, skip)
        for part in parts:
            # a.mp4 and ./a.mp4 are one file; cameras and addresses have no path
            key = os.path.abspath(part) if os.path.exists(part) else part
            found.setdefault(key, part)
    return list(found.values())


def _expand_folder(spec: str, skip: Skip) -> list[str]:
    """The folder itself where it holds images, and its videos."""
    inside = _in_folder(spec, skip)
    videos = _videos(inside)
    if any(_is(entry, IMAGES) for entry in inside):
        return [spec, *videos]
    return videos or [spec]


def _expand_glob(spec: str, skip: Skip) -> list[str]:
    """The videos that the glob matches, with the glob itself where it matches images too, else
    with the folders of images that it matches."""
    inside = _matches(spec, skip)
    videos = _videos(inside)
    if any(_is(entry, IMAGES) for entry in inside):
        return [spec, *videos]
    folders = [str(entry) for entry in inside if _holds_images(entry)]
    return videos + folders or [spec]


EXPANSIONS = {"folder": _expand_folder, "glob": _expand_glob}


def images_in(spec: str, kind: str, skip: Skip = read_all) -> list[Path]:
    """The images of a folder or glob; FileNotFoundError where there are none.

    A broken link is among them: reading it says so.
    """
    inside = LISTINGS[kind](spec, skip)
    images = [entry for entry in inside if _is(entry, IMAGES) and not entry.is_dir()]
    if not images:
        raise FileNotFoundError(
            f"there is no image ({' '.join(IMAGES)}) among the {len(inside)} entries of {spec}"
        )
    return images


def _in_folder(spec: str, skip: Skip) -> list[Path]:
    """What a folder holds; FileNotFoundError where that is nothing."""
    inside = _visible(Path(spec).expanduser().iterdir(), skip)
    if not inside:
        raise FileNotFoundError(f"{spec} is empty: {FORMS}")
    return inside


def _matches(spec: str, skip: Skip) -> list[Path]:
    """What a glob matches; FileNotFoundError where that is nothing."""
    pattern = str(Path(spec).expanduser())
    inside = _visible(map(Path, glob.glob(pattern, recursive=True)), skip)
    if not inside:
        raise FileNotFoundError(f"nothing matches {spec}: {FORMS}")
    return inside


LISTINGS = {"folder": _in_folder, "glob": _matches}


def _visible(paths: Iterable[Path], skip: Skip) -> list[Path]:
    """Naturally sorted, without hidden files and those to skip."""
    # a Mac leaves a hidden ._1.png beside 1.png
    visible = (path for path in paths if not path.name.startswith(".") and not skip(path))
    return sorted(visible, key=_order)


def _order(path: Path) -> tuple:
    """Natural order, folder by folder."""
    # the path itself comes last: 1.png and 01.png must not depend on the order of the disk
    return [natural_key(Path(part)) for part in path.parts], str(path)


def _videos(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths if _is(path, VIDEOS)]


def _holds_images(path: Path) -> bool:
    return path.is_dir() and any(_is(entry, IMAGES) for entry in path.iterdir())


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower()[1:] in suffixes


def unique_names(specs: Sequence[str]) -> list[str]:
    """A name for the outputs of each source: a/clip.mp4, b/clip.mp4 -> clip, clip_2.

    To be called with all sources, before they are shared among processes.
    """
    return number_repeats([source_name(spec) for spec in specs])


def source_name(spec: str) -> str:
    """A name that is safe in file names: solidWhiteRight, camera0, stdin, rtsp_host_path."""
    if spec == STDIN:
        return "stdin"
    camera = camera_index(spec)
    if camera is not None:
        return f"camera{camera}"
    name = _address_name(spec) or _path_name(spec)
    safe = re.sub(r"[^\w.-]+", "_", name).strip("._")
    return safe[:MAX_NAME] or "source"


def _address_name(spec: str) -> str | None:
    """rtsp_host/path of rtsp://user:password@host/path?query; None where it is no stream."""
    if _scheme(spec) not in STREAMS:
        return None
    scheme, _, address = printable(spec).partition("://")
    location = re.split("[?#]", address)[0]
    return f"{scheme}_{location}"


def _path_name(spec: str) -> str:
    """The name of a folder, the stem of a file."""
    # an absolute path, because `.` has no name of its own
    path = Path(os.path.abspath(Path(spec).expanduser()))
    if not os.path.exists(path):
        path = _without_wildcards(path)
    if os.path.isdir(path):
        return path.name
    return path.stem


def _without_wildcards(path: Path) -> Path:
    """The folder in front of the first wildcard of a glob; a path without wildcards as it is."""
    plain = (folder for folder in (path, *path.parents) if not glob.has_magic(str(folder)))
    return next(plain, path)


def printable(spec: str) -> str:
    """The spec without the user and password of a stream."""
    return re.sub(r"(?<=://)[^/?#]*@", "", spec)


def number_repeats(names: Sequence[str]) -> list[str]:
    """Names made different: the second `a` becomes a_2. Names that differ only in case count as
    the same, because some file systems do not tell them apart."""
    taken: set[str] = set()
    # the number given to this name last: without it, many repeats would search from 2 each time
    last: dict[str, int] = {}
    result = []
    for name in names:
        new = name
        number = last.get(name, 1)
        while new.lower() in taken:
            number += 1
            new = f"{name}_{number}"
        taken.add(new.lower())
        last[name] = number
        result.append(new)
    return result
