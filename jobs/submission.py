"""--output submission: the labels of a whole split, as a benchmark's server takes them."""

from __future__ import annotations

from pathlib import Path

from datasets import list_videos, own_label_set
from datasets.labels import LabelSet, other_classes
from utils.console import Console
from utils.output.label_images import LabelWriter
from utils.output.label_tree import check_label_tree
from utils.run.savedir import SUBMISSION


class Submission:
    """SAVEDIR/result_submission/VIDEO/FRAME.png, one for every frame of --source-split."""

    def __init__(self, args, labels: LabelSet):
        """labels: what the network says. ValueError where these are not the data set's classes."""
        own = own_label_set(args)
        others = other_classes(labels.names, own.names)
        if others:
            raise ValueError(
                f"--output submission takes the classes of --dataset {args.dataset}: {others}"
            )
        self.args = args
        self.folder = Path(args.savedir) / SUBMISSION
        self.ids = own.ids
        self.palette = own.palette

    def writer(self, video: str) -> LabelWriter:
        """What writes the labels of one video."""
        return LabelWriter(self.folder / video, self.ids, self.palette)

    def check(self, console: Console) -> None:
        """Say that every frame has its label image. ValueError where one is missing."""
        names = (
            f"{video.name}/{video.frame_name(index)}"
            for video in list_videos(self.args, self.args.source_split)
            for index in range(len(video))
        )
        console.note(f"{check_label_tree(self.folder, names)} are complete in {self.folder}")


def submission_of(args, labels: LabelSet) -> Submission | None:
    """The submission, where one is asked for."""
    return Submission(args, labels) if "submission" in args.output else None
