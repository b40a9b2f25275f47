"""What an inference labels: --source, or the videos of --source-split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets import list_videos
from datasets.source import Source, open_source
from datasets.source.left_out import left_out
from datasets.source.names import Skip, expand_sources, unique_names
from datasets.source.split import SplitSource
from utils.console import Console
from utils.run import savedir
from utils.run.errors import USER_ERRORS, one_line

from .pseudo_labels import reserved_names

Opener = Callable[[], Source]


def named_sources(args, console: Console) -> tuple[dict[str, Opener], list[str]]:
    """What opens each source, by the name of its outputs; and why words of --source name none.

    ValueError, FileNotFoundError where there is nothing to label.
    """
    if args.source_split:
        return videos_of_split(args), []
    folder = Path(args.savedir)
    # The savedir may lie in a folder that is labelled.
    own = partial(savedir.is_inference_output, folder)
    specs, failures = usable_sources(args.source, own)
    for note in left_out(args.source, partial(savedir.is_left_by_runs, folder)):
        console.warn(note)
    # Named before they are shared among ranks: two sources of one name must not meet in a file.
    names = unique_names(specs, reserved_names(args))
    opener = partial(open_source, step=args.frame_step, fps=args.fps, skip=own)
    return {name: partial(opener, spec) for name, spec in zip(names, specs, strict=True)}, failures


def videos_of_split(args) -> dict[str, Opener]:
    """What opens each video of --source-split, by its own name."""
    videos = list_videos(args, args.source_split)
    opener = partial(SplitSource, step=args.frame_step, fps=args.fps)
    return {video.name: partial(opener, video) for video in videos}


def usable_sources(specs: list[str], own: Skip) -> tuple[list[str], list[str]]:
    """The sources that the words name, and why words name none. ValueError if there is none.

    own: which files an inference has written itself.
    """
    good = []
    failures = []
    for spec in specs:
        try:
            expand_sources([spec], own)
            good.append(spec)
        except USER_ERRORS as error:
            failures.append(one_line(error))
    if not good:
        raise ValueError("; ".join(failures))
    return expand_sources(good, own), failures
