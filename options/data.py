"""Options of the data: which set, where it is, at which size it is worked on and scored."""

from __future__ import annotations

from argparse import Namespace

from .jobs import DATA, FILES, RUNS, SCORING, TRAINING, validates
from .option import FREE, Group, Option
from .tables import DATASETS
from .types import SIZE, path, positive

# Those that are not made on the fly.
WITH_FILES = tuple(name for name, row in DATASETS.items() if row.variable)
VARIABLES = ", ".join(DATASETS[name].variable for name in WITH_FILES)


# Without --work-size the network sees frames as they are.
def sizes_differ(args: Namespace) -> bool:
    """Whether working size and label size may be two sizes."""
    resized = args.work_size or args.work_box or args.stretch
    return bool(resized) and validates(args)


def refuse_unknown_split(args: Namespace) -> str | None:
    splits = DATASETS[args.dataset].splits
    for option, split in (("--train-split", args.train_split), ("--val-split", args.val_split)):
        if split not in splits:
            return f"{option} {split}: --dataset {args.dataset} has {', '.join(splits)}"
    return None


DATA_OPTIONS = Group(
    "data",
    (
        Option(
            "--dataset",
            "the data and its classes (listed below)",
            choices=tuple(DATASETS),
            default="cityscapes",
            network=True,
            everyday=True,
        ),
        Option(
            "--data-root",
            f"the data set's folder (or its environment variable: {VARIABLES})",
            type=path,
            only_with={"dataset": WITH_FILES},
            # The folder may be moved between two runs; the number of clips is compared instead.
            resume=FREE,
            per_machine=True,
            everyday=True,
        ),
        Option("--train-split", "split to train on", default="train", jobs=TRAINING),
        Option(
            "--val-split",
            "split to validate on and to score",
            default="val",
            jobs=SCORING + FILES,
            acts_if=validates,
            everyday=True,
        ),
        Option(
            "--work-size",
            "size the network works at (default: the published size on the published data "
            "set, else the frames' own)",
            jobs=RUNS,
            # Weights know objects at the size that they were trained at.
            network=True,
            acts_if=lambda args: args.exact_work_size,
            everyday=True,
            **SIZE,
        ),
        Option(
            "--work-box",
            "fit frames into this box without distortion, long side to long side; --work-size "
            "counts more",
            jobs=RUNS,
            network=True,
            acts_if=lambda args: not args.work_size,
            **SIZE,
        ),
        Option(
            "--stretch",
            "then stretch their sides up to multiples of N, as VSS-MRCFA was scored (32); without "
            "it frames are padded",
            type=positive,
            metavar="N",
            jobs=RUNS,
            network=True,
            # A training crops or pads.
            acts_if=validates,
        ),
        Option(
            "--interpolation",
            "how frames are resized: pil averages when it shrinks, cv2 is faster",
            choices=("pil", "cv2"),
            default="pil",
            jobs=RUNS,
        ),
        Option(
            "--score-size",
            "size at which predictions are scored: of the labels or of the network's work",
            choices=("label", "work"),
            default="label",
            jobs=SCORING,
            acts_if=lambda args: sizes_differ(args) and not args.use_orig_res,
        ),
        Option(
            "--use-orig-res",
            "score at working size, and a second time enlarged to the labels' own size by "
            "nearest neighbour",
            type=bool,
            jobs=SCORING,
            acts_if=sizes_differ,
        ),
    ),
    jobs=DATA,
    refusals=(refuse_unknown_split,),
)
