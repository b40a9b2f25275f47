"""--check-data and --needed-frames: what is in a data set, and what an evaluation reads of it."""

from __future__ import annotations

from datasets import build_dataset, data_root, label_set, list_videos
from datasets.check import check, needed_files
from models import build_model
from options import DATASETS
from utils.console import Console
from utils.run.errors import USER_ERRORS, one_line


def check_data(args) -> None:
    """Every frame and label of every split is read. ValueError if anything is wrong."""
    console = Console()
    names = label_set(args).names
    problems = []
    for split in DATASETS[args.dataset].splits:
        try:
            videos = list_videos(args, split)
        except USER_ERRORS as error:
            problems.append(one_line(error))
            console.warn(f"{split}: {problems[-1]}")
            continue

        # The split is bound now: the loop goes on before the bar is drawn.
        def show(items, total, split=split):
            return console.progress(items, total, split)

        found = check(videos, args.num_workers, show)
        for problem in found.problems:
            console.warn(problem)
        console.note(f"{len(videos)} videos in {found.text(split, names)}")
        problems += found.problems
    if problems:
        plural = "s" * (len(problems) > 1)
        raise ValueError(
            f"--check-data found {len(problems)} problem{plural} in {args.dataset}; "
            f"the first: {problems[0]}"
        )


def list_files(args) -> None:
    """What scoring --val-split reads, one path a line: for `rsync --files-from` and its like."""
    model = build_model(args, len(label_set(args).names))
    data = build_dataset(args, args.val_split, augment=False, startup=model.startup)
    for path in needed_files(data.videos, model.startup, data.dense):
        print(path.relative_to(data_root(args)))
