"""What a folder or a glob holds and no source reads: told, so that nothing is missed in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .foreign import foreign_kind
from .names import LISTINGS, Skip, is_read, printable, read_all, source_kind, unmatched_folders

# what file managers of Windows leave behind, as others leave hidden files
LITTER = ("thumbs.db", "desktop.ini")


def left_out(specs: Sequence[str], skip: Skip = read_all) -> list[str]:
    """A note for each kind of what is left out: how many there are, and the first.

    skip: which files are left out as outputs of our own.
    """
    notes = []
    for spec in specs:
        try:
            kind = source_kind(spec)
            if kind in LISTINGS:
                notes += _notes(spec, kind, skip)
        except (OSError, ValueError):
            # expand_sources tells why this is no source
            continue
    return list(dict.fromkeys(notes))


def _notes(spec: str, kind: str, skip: Skip) -> Iterator[str]:
    everything = LISTINGS[kind](spec, read_all)
    inside = [path for path in everything if not skip(path)]
    own = [path for path in everything if skip(path)]
    if own:
        yield _note(spec, own, "an output of this tool")
    if kind == "folder":
        folders = [path for path in inside if path.is_dir()]
        if folders:
            deeper = printable(str(Path(spec, "*")))
            yield _note(spec, folders, f"a folder inside it (give '{deeper}' to label it too)")
    else:
        for folder in unmatched_folders(inside):
            yield from _notes(str(folder), "folder", skip)
    files = (path for path in inside if not path.is_dir() and not is_read(path))
    for name, paths in _by_kind(files).items():
        yield _note(spec, paths, name)


def _by_kind(files: Iterable[Path]) -> dict[str, list[Path]]:
    """What files are, with their article -> these files."""
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.name.lower() not in LITTER:
            found.setdefault(_kind_of(path), []).append(path)
    return found


def _kind_of(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link to what is not there"
    if not path.is_file():
        return "no file to read from"
    return foreign_kind(path) or "neither an image nor a video by its name"


def _note(spec: str, paths: Sequence[Path], kind: str) -> str:
    """A line about files of one kind."""
    first = printable(paths[0].name)
    if len(paths) == 1:
        return f"{printable(spec)}: {first} is not labelled, it is {kind}"
    return f"{printable(spec)}: {len(paths)} entries are not labelled, {first} is the first: {kind}"
