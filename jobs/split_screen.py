"""--compare-with: another inference of the same sources, for --output split-screen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from utils.output.split_screen import OtherLabels, SplitScreen
from utils.run import savedir

NAMED_BY = ("--method", "--backbone")  # what a run's caption says of it


class Comparison:
    """The other run: what it has labelled, and what it is called."""

    def __init__(self, args, names: Sequence[str]):
        """names: those of the sources. ValueError where the other run has no labels of one."""
        self.args = args
        self.folder = Path(args.compare_with)
        require_labels(self.folder, Path(args.savedir), names)
        self.captions = captions(args, self.folder)

    def of(self, source, name: str, palette, shown) -> SplitScreen:
        """The pictures of one source. ValueError where the other run has labelled fewer frames."""
        others = OtherLabels(labels_of(self.folder, name))
        self.require_all(others, source)
        return SplitScreen(
            others, self.captions, palette, alpha=self.args.alpha, fps=source.fps, shown=shown
        )

    def require_all(self, others: OtherLabels, source) -> None:
        """ValueError where it is clear before the first frame that some will be missing."""
        limit = self.args.max_frames
        expected = source.length
        # The header of a video may promise more frames than come.
        if expected is None or (source.kind == "video" and not limit):
            return
        expected = min(expected, limit or expected)
        if len(others) < expected:
            raise ValueError(
                f"--compare-with: {others.folder} has the labels of {len(others)} frames, and "
                f"{expected} come: label as many there"
            )


def comparison_of(args, names: Sequence[str]) -> Comparison | None:
    """The other run, where one is to be shown."""
    return Comparison(args, names) if "split-screen" in args.output else None


def labels_of(folder: Path, name: str) -> Path:
    """Where an inference keeps the label PNGs of a source."""
    return folder / f"{name}_labels"


def require_labels(folder: Path, own: Path, names: Sequence[str]) -> None:
    """ValueError / FileNotFoundError unless the folder holds labels of all sources."""
    if not savedir.inferences(folder):
        raise FileNotFoundError(
            f"--compare-with {folder} holds no inference: give the --savedir of a run of "
            "--inference --output labels"
        )
    if folder.resolve() == own.resolve():
        raise ValueError(
            f"--compare-with {folder} is the --savedir of this run: give that of another"
        )
    missing = [name for name in names if not labels_of(folder, name).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"--compare-with {folder} has no labels of {missing[0]} ({missing[0]}_labels): label "
            "the same --source there, with --output labels"
        )


def captions(args, folder: Path) -> tuple[str, str]:
    """What the other run and this one are called: by method and network, else by their folders."""
    ours = f"{args.method} {args.backbone}"
    theirs = next(
        filter(None, (words_of(record) for record in savedir.inferences(folder).values())), ""
    )
    if theirs and theirs != ours:
        return theirs, ours
    names = [Path(path).resolve().name for path in (folder, args.savedir)]
    if names[0] == names[1]:
        names = [str(folder), str(args.savedir)]
    return names[0], names[1]


def words_of(record: dict) -> str:
    """Method and backbone in the record of an inference; "" where they are not both there."""
    words = shlex.split(str(record.get("recipe", "")))
    found = [words[words.index(flag) + 1] for flag in NAMED_BY if flag in words[:-1]]
    return " ".join(found) if len(found) == len(NAMED_BY) else ""
