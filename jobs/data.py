"""--check-data and --needed-frames: what is in a data set, and what an evaluation reads of it."""

from __future__ import annotations

from datasets import build_dataset, data_root, label_set, list_videos
from datasets.check import check, needed_files, sound_of, splits_to_check, told_by_labels
from models import build_model
from options import DATASETS
from utils.console import Console
from utils.run.errors import USER_ERRORS, one_line


def check_data(args) -> None:
    """Every frame and label of the splits that exist is read. ValueError if anything is wrong."""
    console = Console()
    names = label_set(args).names
    existing, missing = splits_to_check(args, DATASETS[args.dataset].splits)
    if missing:
        console.note(f"there is no {' and no '.join(missing)} split")
    problems = []
    for split in existing:
        problems += check_split(args, split, names, console)
    if problems:
        plural = "s" * (len(problems) > 1)
        raise ValueError(
            f"--check-data found {len(problems)} problem{plural} in {args.dataset}; "
            f"the first: {problems[0]}"
        )


def check_split(args, split: str, names: tuple[str, ...], console: Console) -> list[str]:
    """Read one split and tell what was found -> its problems."""
    try:
        videos = list_videos(args, split)
    except USER_ERRORS as error:
        problem = one_line(error)
        console.warn(f"{split}: {problem}")
        return [problem]

    def show(items, total):
        return console.progress(items, total, split)

    sound = sound_of(args)
    void_labels = sound.void_labels or split in sound.dummy_splits
    found = check(videos, args.num_workers, show, void_labels=void_labels)
    problems, warnings = told_by_labels(found, split, names, sound)
    found.problems += [f"{split}: {problem}" for problem in problems]
    for told in (*found.problems, *(f"{split}: {warning}" for warning in warnings)):
        console.warn(told)
    console.note(f"{len(videos)} videos in {found.text(split, names)}")
    return found.problems


def list_files(args) -> None:
    """What scoring --val-split reads, one path a line: for `rsync --files-from` and its like."""
    model = build_model(args, len(label_set(args).names))
    data = build_dataset(args, args.val_split, augment=False, startup=model.startup)
    # Lists are for TC, which sees every frame.
    every_frame = data.dense or bool(args.clip_list)
    for path in needed_files(data.videos, model.startup, every_frame):
        print(path.relative_to(data_root(args)))
