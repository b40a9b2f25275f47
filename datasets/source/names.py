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
IMAGES = tuple(
    "png jpg jpeg bmp tif tiff webp ppm avif gif apng jfif jpe mpo pgm pbm pnm jp2 tga".split()
)
VIDEOS = tuple(
    "mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv ogv 3gp 3g2 mxf vob asf f4v dv m2v "
    "mjpeg mjpg y4m h264 h265 264 265 hevc ivf lrv".split()
)
# what comes before :// in the address of a stream
STREAMS = ("rtsp", "rtmp", "http", "https")
STDIN = "-"
# The folder of frames in a clip of --dataset folder, and in a video of VSPW
CLIP_IMAGES = ("images", "origin")
MAX_NAME = 100  # characters: file systems allow 255 bytes, and our outputs add endings
FORMS = (
    "a source is a video or image file, a folder of images, a quoted glob ('frames/*.png'), "
    "a camera index (0), a stream (rtsp:// rtmp:// http:// https://) or - for PPM images on "
    "standard input"
)


def source_kind(spec: str) -> str:
    """stdin, camera, stream, folder, image, video or glob.

    FileNotFoundError where it is none of them, ValueError where it is a file of another kind,
    PermissionError where it may not be read. A file that is named 0 is asked for as ./0.
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
    if not os.access(path, os.R_OK):
        # FFmpeg would call it damaged
        raise PermissionError(f"{printable(str(path))} may not be read: change its permissions")
    if path.is_dir():
        return "folder"
    if _is(path, IMAGES):
        return "image"
    kind = foreign_kind(path)
    if kind and not _is(path, VIDEOS):
        raise ValueError(f"{printable(str(path))} is {kind}: {FORMS}")
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
    """The glob itself where it matches images, the videos that it matches, and what its folders
    hold."""
    inside = _matches(spec, skip)
    parts = _videos(inside)
    if any(_is(entry, IMAGES) for entry in inside):
        parts.insert(0, spec)
    for folder in unmatched_folders(inside):
        if _holds_frames(folder, skip):
            parts += _expand_folder(str(folder), skip)
    return parts or [spec]


def unmatched_folders(inside: Sequence[Path]) -> list[Path]:
    """The folders of which nothing else is listed: `**/*` matches folders and what they hold."""
    parents = {entry.parent for entry in inside}
    return [entry for entry in inside if entry.is_dir() and entry not in parents]


EXPANSIONS = {"folder": _expand_folder, "glob": _expand_glob}


def images_in(spec: str, kind: str, skip: Skip = read_all) -> list[Path]:
    """The images of a folder or glob; FileNotFoundError where there are none.

    A broken link is among them: reading it says so.
    """
    inside = LISTINGS[kind](spec, skip)
    images = [entry for entry in inside if _is(entry, IMAGES) and not entry.is_dir()]
    if not images:
        raise FileNotFoundError(
            f"there is no image ({' '.join(IMAGES)}) among the {len(inside)} entries of "
            f"{printable(spec)}"
        )
    return images


def _in_folder(spec: str, skip: Skip) -> list[Path]:
    """What a folder holds; FileNotFoundError where that is nothing."""
    inside = _visible(Path(spec).expanduser().iterdir(), skip)
    if not inside:
        raise FileNotFoundError(f"{printable(spec)} is empty: {FORMS}")
    return inside


def _matches(spec: str, skip: Skip) -> list[Path]:
    """What a glob matches; FileNotFoundError where that is nothing."""
    pattern = str(Path(spec).expanduser())
    inside = _visible(map(Path, glob.glob(pattern, recursive=True)), skip)
    if not inside:
        raise FileNotFoundError(f"nothing matches {printable(spec)}: {FORMS}")
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
    return [str(path) for path in paths if _is(path, VIDEOS) and not path.is_dir()]


def _holds_frames(folder: Path, skip: Skip) -> bool:
    """Whether the folder itself holds images or videos."""
    return any(is_read(entry) for entry in _visible(folder.iterdir(), skip))


def is_read(path: Path) -> bool:
    """Whether the name is that of an image or a video."""
    return _is(path, IMAGES) or _is(path, VIDEOS)


def _is(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower()[1:] in suffixes


def unique_names(specs: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """A name for the outputs of each source: a/clip.mp4, b/clip.mp4 -> clip, clip_2.

    reserved: names that no source may have. To be called with all sources, before they are shared
    among processes.
    """
    return number_repeats([source_name(spec) for spec in specs], reserved)


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
        # The frames of a clip: the clip has the name.
        if path.name in CLIP_IMAGES and path.parent.name:
            return path.parent.name
        return path.name
    return path.stem


def _without_wildcards(path: Path) -> Path:
    """The folder in front of the first wildcard of a glob; a path without wildcards as it is."""
    plain = (folder for folder in (path, *path.parents) if not glob.has_magic(str(folder)))
    return next(plain, path)


def printable(spec: str) -> str:
    r"""The spec for messages: without the user and password of a stream, in one line, and with \xff
    for a byte that is no UTF-8, as no output could print it."""
    spec = re.sub(r"(?<=://)[^/?#]*@", "", spec)
    return "".join(map(_printable, spec))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    # Python reads such a byte of a file name as a lone surrogate
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def safe_stem(path: Path) -> str:
    """The stem, for names of files made of it: every character can be written and printed."""
    return "".join(character if character.isprintable() else "_" for character in path.stem)


def number_repeats(names: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """Names made different: the second `a` becomes a_2, and so does a reserved one. Names that
    differ only in case count as the same, because some file systems do not tell them apart."""
    taken = {name.lower() for name in reserved}
    # the number given to this name last: without it, many repeats would search from 2 each time
    last: dict[str, int] = {}
    return [unused(name, taken, last) for name in names]


def unused(name: str, taken: set[str], last: dict[str, int] | None = None) -> str:
    """The name, or name_2, name_3, ... where that is taken.

    taken: names in lower case, to which the new one is added. last: name -> number that it was
    given last; the search begins there.
    """
    number = 1
    if last is not None:
        number = last.get(name, 1)
    new = name
    while new.lower() in taken:
        number += 1
        new = f"{name}_{number}"
    taken.add(new.lower())
    if last is not None:
        last[name] = number
    return new
