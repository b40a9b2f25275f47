"""Options of inference: labels that a training learns from."""

from __future__ import annotations

from argparse import Namespace

from .jobs import INFERENCE
from .option import FREE, Group, Option
from .types import path, share


def writes_labels(args: Namespace) -> bool:
    return bool({"labels", "dataset"} & set(args.output))


def refuse_coarse_without_map(args: Namespace) -> str | None:
    if args.inference and args.coarse_labels and not args.coarse_map:
        return (
            "--coarse-labels needs --coarse-map: a file, or a built-in map such as "
            "camvid-to-groups, from the classes of the network to the coarse ones"
        )
    return None


PSEUDO_LABELS = Group(
    "inference: pseudo labels (with --output labels or dataset)",
    (
        Option(
            "--min-confidence",
            "leave out labels whose probability is lower, 0 to 1. Videos show what is left",
            type=share,
            default=0.0,
            acts_if=writes_labels,
        ),
        Option(
            "--coarse-labels",
            "a tree as --dataset folder has it, with labels in fewer classes and the names of the "
            "sources' clips and frames. Leave out labels that contradict it",
            type=path,
            metavar="ROOT",
            acts_if=writes_labels,
        ),
        Option(
            "--coarse-map",
            "which coarse class each class is part of: a file or a built-in map, as of "
            "--class-map. What becomes `ignore` contradicts nothing",
            type=path,
            metavar="FILE",
            acts_if=lambda args: bool(args.coarse_labels) and writes_labels(args),
        ),
    ),
    jobs=INFERENCE,
    resume=FREE,
    refusals=(refuse_coarse_without_map,),
)
