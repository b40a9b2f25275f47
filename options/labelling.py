"""Options of evaluation and inference: views of a frame, sources, what is written."""

from __future__ import annotations

import re
from argparse import Namespace

from . import jobs
from .jobs import EVALUATION, LABELLING, RUNS, validates
from .jobs import INFERENCE as INFERENCE_JOB
from .option import FREE, Group, Option
from .tables import DATASETS
from .types import SIZE, frame_rate, milliseconds, natural, path, positive, scale, share


def without_passwords(sources: list[str]) -> list[str]:
    """The sources as they may be written down: addresses without user and password."""
    return [re.sub(r"(?<=://)[^/?#]*@", "", source) for source in sources]


def compares(args: Namespace) -> bool:
    """Whether a video of two runs is made."""
    return "split-screen" in args.output


def refuse_stride_alone(args: Namespace) -> str | None:
    if args.eval_stride and not args.eval_crop:
        return "--eval-stride needs --eval-crop"
    return None


def refuse_source_elsewhere(args: Namespace) -> str | None:
    if args.source and args.job not in LABELLING:
        return "--source goes with --inference or --benchmark"
    return None


def refuse_two_kinds_of_source(args: Namespace) -> str | None:
    if args.source and args.source_split:
        return "--source and --source-split are two things to label: drop one"
    return None


def refuse_unknown_source_split(args: Namespace) -> str | None:
    splits = DATASETS[args.dataset].splits
    if args.source_split and args.source_split not in splits:
        return (
            f"--source-split {args.source_split}: --dataset {args.dataset} has {', '.join(splits)}"
        )
    return None


# A benchmark takes all frames of a split or none.
def refuse_part_of_submission(args: Namespace) -> str | None:
    if not args.inference or "submission" not in args.output:
        return None
    if not args.source_split:
        return "--output submission needs --source-split: the split of --dataset that it is for"
    if args.frame_step > 1 or args.max_frames:
        return "--output submission has every frame: drop --frame-step and --max-frames"
    if args.min_confidence or args.coarse_labels:
        return (
            "--output submission has a class for every pixel: drop --min-confidence and "
            "--coarse-labels"
        )
    return None


# Every process would get a part of the bytes.
def refuse_shared_pipe(args: Namespace) -> str | None:
    if "-" in args.source and args.gpus > 1:
        return "--source - cannot be shared by several processes: drop --gpus"
    return None


def refuse_wide_benchmark(args: Namespace) -> str | None:
    if args.benchmark and (len(args.source) > 1 or args.gpus > 1):
        return "--benchmark measures one --source in one process: drop --gpus and other sources"
    return None


# kinds of --output
UNTIMED = ("confidence", "dataset", "split-screen", "submission")


def refuse_benchmark_of_files(args: Namespace) -> str | None:
    untimed = [kind for kind in args.output if kind in UNTIMED]
    if args.benchmark and untimed:
        return f"--benchmark does not time --output {' '.join(untimed)}: --inference writes that"
    return None


def refuse_comparing_with_nothing(args: Namespace) -> str | None:
    if args.inference and compares(args) and not args.compare_with:
        return (
            "--output split-screen needs --compare-with: the --savedir of another --inference of "
            "the same source, with --output labels"
        )
    return None


# A training validates with the same views, so they decide which epoch counts as best.
VIEWS = Group(
    "views of a frame at test time",
    (
        Option("--flip", "average with the mirrored frame", type=bool, acts_if=validates),
        Option(
            "--scales",
            "average over scales",
            type=scale,
            nargs="+",
            default=[1.0],
            acts_if=validates,
        ),
        Option("--eval-crop", "slide a window of this size", acts_if=validates, **SIZE),
        Option(
            "--eval-stride", "of the window (default: two thirds of it)", acts_if=validates, **SIZE
        ),
        Option(
            "--average",
            "what overlapping windows average",
            choices=("probabilities", "logits"),
            default="probabilities",
            acts_if=validates,
        ),
    ),
    jobs=RUNS,
    refusals=(refuse_stride_alone,),
)


DEFAULT_METRICS = ("miou", "vc")


def refuse_metrics_of_labels(args: Namespace) -> str | None:
    asked = [name for name in args.metrics if name != "tc"]
    if args.inference and asked and args.metrics != list(DEFAULT_METRICS):
        return f"--metrics {asked[0]} needs labels, which a --source has not: drop it"
    return None


def simulates_viewer(args: Namespace) -> bool:
    return "latency" in args.metrics


# mIoU is always measured; the others only where frames follow each other.
METRICS = Group(
    "evaluation: what is measured",
    (
        Option(
            "--metrics",
            "miou; and where every frame of a video has a label vc (video consistency), tc "
            "(temporal consistency along optical flow) and latency (mIoU of what a live viewer "
            "sees). Of a --source: tc",
            choices=("miou", "vc", "tc", "latency"),
            nargs="+",
            default=list(DEFAULT_METRICS),
            everyday=True,
            jobs=EVALUATION + INFERENCE_JOB,
        ),
        Option(
            "--tc-modes",
            "strict (matches in the frame that are not occluded), nearest (all), etc (as ETC "
            "computes it)",
            choices=("strict", "nearest", "etc"),
            nargs="+",
            default=["strict"],
            acts_if=lambda args: "tc" in args.metrics,
            jobs=EVALUATION + INFERENCE_JOB,
        ),
        Option(
            "--latency-ms",
            "what a frame takes, for latency; else it is measured",
            type=milliseconds,
            acts_if=simulates_viewer,
        ),
        Option(
            "--arrival-rate",
            "frames a second at which frames arrive, for latency (default: those of the video)",
            type=frame_rate,
            acts_if=simulates_viewer,
        ),
    ),
    jobs=EVALUATION,
    refusals=(refuse_metrics_of_labels,),
)
# What is written changes no number: it may be asked for anew when an evaluation is resumed.
RESULTS = Group(
    "evaluation: what is written",
    (
        Option("--save-labels", "a PNG of class ids per frame", type=bool, everyday=True),
        Option(
            "--pictures",
            "how many frames are drawn",
            type=natural,
            default=8,
            acts_if=lambda args: not args.save_images,
        ),
        Option("--save-images", "draw all frames", type=bool),
        Option(
            "--save-video",
            "a video of input, label, prediction and errors of each densely labelled video",
            type=bool,
        ),
    ),
    jobs=EVALUATION,
    resume=FREE,
)

# A second inference of the same source may write other things of it.
INFERENCE = Group(
    "inference: what is labelled and written",
    (
        Option(
            "--source",
            "video files, folders, globs, camera indices, stream addresses, - (PPM on stdin)",
            type=path,
            nargs="+",
            default=[],
            metavar="SOURCE",
            masked=without_passwords,
            everyday=True,
        ),
        Option(
            "--source-split",
            "label the videos of this split of --dataset, with labels or without, instead of "
            "--source",
            jobs=jobs.INFERENCE,
        ),
        Option(
            "--output",
            "what inference writes. confidence: grey PNGs, 255 times the probability of the "
            "predicted class; dataset: frames and labels for --dataset folder; split-screen: this "
            "run beside that of --compare-with; submission: labels of --source-split as VSPW's "
            "server takes them",
            choices=(
                "overlay",
                "labels",
                "side-by-side",
                "split-screen",
                "confidence",
                "dataset",
                "submission",
            ),
            nargs="+",
            default=["overlay"],
            everyday=True,
        ),
        Option(
            "--compare-with",
            "for --output split-screen: the --savedir of another --inference of the same source, "
            "which wrote --output labels",
            type=path,
            metavar="SAVEDIR",
            jobs=jobs.INFERENCE,
            acts_if=compares,
        ),
        Option(
            "--fps",
            "frames a second of a source that does not say so, or says it wrongly",
            type=frame_rate,
            acts_if=lambda args: args.inference,
        ),
        Option("--frame-step", "label every N-th frame", type=positive, default=1),
        Option("--max-frames", "stop a source after N frames", type=positive),
        Option("--alpha", "strength of the overlay, 0 to 1", type=share, default=0.5),
    ),
    jobs=LABELLING,
    resume=FREE,
    refusals=(
        refuse_source_elsewhere,
        refuse_two_kinds_of_source,
        refuse_unknown_source_split,
        refuse_part_of_submission,
        refuse_shared_pipe,
        refuse_wide_benchmark,
        refuse_benchmark_of_files,
        refuse_comparing_with_nothing,
    ),
)
