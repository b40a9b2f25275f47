"""Every option of the tool: groups, defaults per method, backbone and data set, recipes, checks of combinations.

Imports no torch, so `python main.py --help` is instant and works on a bare machine. Values come, later ones
winning, from: the common defaults below, the rows of the chosen data set, backbone and method, what the weights that
are to run were trained with, the words of the command line in their order. `@file` reads words from a recipe; `#`
starts a comment there.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import NamedTuple


class Method(NamedTuple):
    """A row of METHODS: one line of help, defaults, the frames a read uses, why a pair cannot work.

    published: defaults by (backbone, data set), where the method was published on both.
    """

    what: str
    defaults: dict = {}
    published: dict[tuple[str, str], dict] = {}
    offsets: Callable[[argparse.Namespace], tuple[int, ...]] = lambda args: ()
    problem: Callable[[Backbone], str | None] = lambda backbone: None


class Backbone(NamedTuple):
    """A row of BACKBONES: one line of help, defaults, strides of its maps, options only it knows."""

    what: str
    defaults: dict = {}
    stage_strides: tuple[int, ...] = ()
    auxiliary: bool = False  # has an auxiliary head for training
    own: tuple[str, ...] = ()  # options (by dest) that other backbones refuse


class Dataset(NamedTuple):
    """A row of DATASETS: one line of help, defaults, its splits."""

    what: str
    splits: tuple[str, ...]
    defaults: dict = {}
    variable: str | None = None  # environment variable that stands for --data-root


DOWN = {"fusion_strategy": "sigmoid-down1"}  # lma on maps of many channels
SGD = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_start": 0.01,
    "weight_decay": 1e-4,
    "lr_strategy": "poly",
}
PSP = SGD | DOWN | {"head_lr": 10.0, "aux_weight": 0.4, "batch_size": 8, "num_epochs": 200}
V1C = (
    SGD
    | DOWN
    | {
        "aux_weight": 0.4,
        "weight_decay": 5e-4,
        "lr_min": 1e-4,
        "batch_size": 8,
        "num_epochs": 240,
        "align_corners": False,
    }
)
TMA_SIZES = {"random_scale": (0.5, 2.0), "crop_max_ratio": 0.75, "interpolation": "cv2"}


def lma_offsets(args: argparse.Namespace) -> tuple[int, ...]:
    """The frames in LMANet's memory: --win-size, --stm-queue-size and --memory-strategy as published."""
    if args.baseline_mode:
        return ()
    earlier = tuple(range(-memory_window(args), 0, memory_stride(args)))
    if args.model_struct == "original_kv_fusion":  # recurrent: a clip may be longer than its queue
        return earlier
    return earlier[max(len(earlier) - args.stm_queue_size + args.memorize_first, 0) :]


def tma_offsets(args: argparse.Namespace) -> tuple[int, ...]:
    """The last frames, or with --memory-strategy skip_0N every (N+1)-th; drawn ones are for training alone."""
    return tuple(range(-memory_window(args), 0, memory_stride(args)))[-args.stm_queue_size :]


def memory_stride(args: argparse.Namespace) -> int:
    """From one frame in memory to the next."""
    return int(args.memory_strategy[-1]) + 1 if args.memory_strategy.startswith("skip") else 1


def memory_window(args: argparse.Namespace) -> int:
    """Frames of a clip before the one to label; by default as many as fill the queue."""
    return args.stm_queue_size * memory_stride(args) if args.win_size == -1 else args.win_size - 1


def random_memory(args: argparse.Namespace) -> tuple[int, int] | None:
    """(N, W): a training clip has N frames in memory, drawn among the last W; None where nothing is drawn."""
    if args.memory_strategy != "random":
        return None
    return args.stm_queue_size - (args.method == "lma"), memory_window(
        args
    )  # LMANet's: one fewer, as published


METHODS = {
    "lma": Method(
        "LMANet, local memory attention (Paul et al., IROS 2021)",
        {
            "optimizer": "adam",
            "lr_start": 5e-5,
            "lr_strategy": "pow_09",
            "weight_decay": 1e-4,
            "batch_size": 6,
            "num_epochs": 150,
            "head_lr": 1.0,
            "aux_weight": 0.0,
            "train_encoder": False,
            "train_decoder": False,
            "random_shift": 2,
            "photometric": "none",
        },
        {
            ("erf", "cityscapes"): {"work_size": (512, 1024), "class_weights": "lma"},
            ("psp101", "cityscapes"): {"work_size": (1025, 2049), "class_weights": "lma"},
        },
        offsets=lma_offsets,
    ),
    "single": Method(
        "the backbone alone, frame by frame: the baseline of every comparison",
        published={("erf", "cityscapes"): {"work_size": (512, 1024), "class_weights": "lma"}},
    ),
    "tma": Method(
        "TMANet, temporal memory attention (Wang et al., ICIP 2021)",
        SGD
        | {
            "weight_decay": 5e-4,
            "lr_min": 1e-4,
            "batch_size": 8,
            "num_epochs": 215,
            "head_lr": 1.0,
            "loss_mean": "all",
            "photometric": "frame",
            "stm_queue_size": 2,
        },
        {
            ("r50v1c", "cityscapes"): TMA_SIZES
            | {"random_crop": (769, 769), "align_corners": True},
            ("r50v1c", "camvid"): TMA_SIZES
            | {"random_crop": (640, 640), "stm_queue_size": 4, "num_epochs": 1750},
        },
        offsets=tma_offsets,
    ),
}
BACKBONES = {
    "erf": Backbone(
        "ERFNet (Romera et al., T-ITS 2018)",
        {"lr_start": 5e-4},
        own=("shallow_dec", "backbone_nobn"),
    ),
    "psp18": Backbone("PSPNet on ResNet-18, as ETC uses it", PSP, (4, 8, 8, 8), auxiliary=True),
    "psp50": Backbone(
        "PSPNet on ResNet-50 (Zhao et al., CVPR 2017)", PSP, (4, 8, 8, 8), auxiliary=True
    ),
    "psp101": Backbone("PSPNet on ResNet-101", PSP, (4, 8, 8, 8), auxiliary=True),
    "r50v1c": Backbone(
        "dilated ResNet-50-v1c with an FCN head, the trunk of TMANet",
        V1C,
        (4, 8, 8, 8),
        auxiliary=True,
        own=("align_corners",),
    ),
    "r101v1c": Backbone(
        "the same on ResNet-101-v1c", V1C, (4, 8, 8, 8), auxiliary=True, own=("align_corners",)
    ),
}
DATASETS = {
    "cityscapes": Dataset(
        "Cityscapes with its video snippets: 19 classes, labelIds or labelTrainIds",
        ("train", "val", "test"),
        variable="STREAMSEG_CITYSCAPES",
    ),
    "synthetic": Dataset(
        "street videos rendered from a seed, with exact labels and flow: no files needed",
        ("train", "val", "test"),
    ),
    "camvid": Dataset(
        "CamVid: 480x360 with 11 classes, or 960x720",
        ("train", "val", "test"),
        {"iouVal": False},  # its val part is the temporal test: nothing is selected on it
        variable="STREAMSEG_CAMVID",
    ),
    "folder": Dataset(
        "your own clips: CLIP/images and CLIP/labels",
        ("train", "val", "test", "all"),
        variable="STREAMSEG_FOLDER",
    ),
}
SCHEDULES = (
    "constant",
    "pow_07",
    "pow_09",
    "pow_09_b",
    "plateau_03",
    "plateau_05",
    "plateau_07",
    "plateau_08",
    "plateau_09",
    "poly",
    "step",
)
FUSIONS = (
    "sigmoid-do1",
    "sigmoid-do2",
    "sigmoid-do3",
    "sigmoid",
    "simple-sigmoid",
    "concat",
    "product",
    "sigmoid-down1",
)
STRUCTURES = ("original", "aux_mem_loss", "mem_only", "original_kv_fusion")
MEMORIES = ("all", *(f"skip_0{n}" for n in range(1, 6)), "random")
CLASS_WEIGHTS = ("none", "lma", "lma-shallow", "swnet", "etc", "balanced")

QUEUE = ("stm_queue_size", "win_size", "memory_strategy")
MEMORY = (
    "corr_size",
    "model_struct",
    "local_correlation",
    "learnable_constant",
    "memorize_first",
    "fusion_strategy",
    "align_weights",
    "always_decode",
    "feature_distillation",
    "small_key_init",
    "correspondence_loss",
    "baseline_mode",
)

WORKERS = 256  # loader processes per rank, at most: thousands would take all memory of a machine

# What a network must be built with for its weights to mean what they meant: kept beside them.
OF_NETWORK = (
    "method",
    "backbone",
    "dataset",
    "void_class",
    "backbone_nobn",
    "shallow_dec",
    "corr_size",
    "stm_queue_size",
    "win_size",
    "model_struct",
    "local_correlation",
    "learnable_constant",
    "memorize_first",
    "fusion_strategy",
    "memory_strategy",
    "baseline_mode",
    "key_channels",
    "value_channels",
    "align_corners",
)

# Options that act only with certain values of another one; given with others they are refused.
NEEDS = {
    **dict.fromkeys(("lr_power", "lr_min"), ("lr_strategy", ("poly",))),
    **dict.fromkeys(("lr_step", "lr_gamma"), ("lr_strategy", ("step",))),
    **dict.fromkeys(QUEUE, ("method", ("lma", "tma"))),
    **dict.fromkeys(MEMORY, ("method", ("lma",))),
    **dict.fromkeys(("key_channels", "value_channels"), ("method", ("tma",))),
    "momentum": ("optimizer", ("sgd",)),
    "void_class": ("dataset", ("camvid",)),
    **dict.fromkeys(
        ("synthetic_videos", "synthetic_size", "synthetic_length", "synthetic_degrade"),
        ("dataset", ("synthetic",)),
    ),
    "data_root": ("dataset", tuple(name for name, row in DATASETS.items() if row.variable)),
}

COMMON = {
    "method": "lma",
    "backbone": "erf",
    "dataset": "cityscapes",
    "work_size": None,
    "val_split": "val",
    "num_epochs": 150,
    "batch_size": 6,
    "optimizer": "adam",
    "lr_start": 5e-4,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "lr_strategy": "pow_09",
    "lr_min": 0.0,
    "head_lr": 1.0,
    "aux_weight": 0.0,
    "loss_mean": "valid",
    "train_encoder": True,
    "train_decoder": True,
    "random_flip": 0.5,
    "random_shift": 0,
    "photometric": "clip",
    "iouVal": True,
    "class_weights": "none",
    "fusion_strategy": "sigmoid-do1",
    "align_corners": None,
    "stm_queue_size": 3,
}


class Parser(argparse.ArgumentParser):
    """Reads recipes too: `@file` holds words as on the command line, `#` starts a comment."""

    nested = 0  # recipes that are being read, one named by the other
    origin = ""  # of the words, where it is not the command line: begins a message

    def convert_arg_line_to_args(self, line):
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            self.error(f"a recipe has the line {line.strip()!r}: {error}")

    def _read_args_from_files(self, arg_strings):
        self.nested += 1
        if self.nested > 20:
            self.error("a recipe reads itself")
        try:
            return super()._read_args_from_files(arg_strings)
        except UnicodeDecodeError:
            self.error("a recipe is no text file (UTF-8)")
        finally:
            self.nested -= 1

    def error(self, message):
        """One line and exit code 2; argparse's own usage would be a screenful."""
        self.exit(2, f"{self.prog}: error: {self.origin}{message} (--help lists all options)\n")


def path(text: str) -> str:
    """A path, with ~ as the home folder where no shell has seen it."""
    return os.path.expanduser(text)


def positive(text: str) -> int:
    """A whole number from 1 to 2^31 - 1."""
    value = int(text)
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least 1{', below 2^31' if value > 1 else ''}, "
            f"got {text}"
        )
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2^31 - 1."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 to {2**31 - 1}, got {text}"
        )
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def rate(text: str) -> float:
    """A finite number that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def table(rows: dict) -> str:
    return "; ".join(f"{name}: {row.what}" for name, row in rows.items())


def make_parser() -> Parser:
    """All options in groups. Defaults that depend on method, backbone or data set are in the tables above."""
    parser = Parser(
        prog="main.py",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Train, evaluate and stream video semantic segmentation.",
        epilog="Defaults shown are those of the --method, --backbone and --dataset chosen beside --help.",
    )
    switch = argparse.BooleanOptionalAction
    pair = {"nargs": 2, "type": positive, "metavar": ("H", "W")}

    job = parser.add_argument_group("job (exactly one)").add_mutually_exclusive_group(required=True)
    job.add_argument(
        "--training", action="store_true", help="train on --dataset, validating after each epoch"
    )
    job.add_argument("--eval-mode", action="store_true", help="score --weights on a labelled split")
    job.add_argument("--inference", action="store_true", help="label --source: your own video")
    job.add_argument(
        "--check-data",
        action="store_true",
        help="read the whole data set and tell what is missing or odd",
    )
    job.add_argument(
        "--needed-frames",
        action="store_true",
        help="print the files that an evaluation with these options reads, relative to --data-root",
    )
    job.add_argument(
        "--replay",
        type=path,
        default=None,
        metavar="SAVEDIR",
        help="show a run that is over on the visdom server, from what it left in its savedir",
    )
    job.add_argument(
        "--benchmark",
        action="store_true",
        help="time every stage of labelling --source (default: a "
        "video made for it), with --weights or without",
    )

    run = parser.add_argument_group("run")
    run.add_argument(
        "--savedir", type=path, help="folder for logs, checkpoints, results and pictures (required)"
    )
    run.add_argument(
        "--resume", action="store_true", help="go on where the run in --savedir stopped"
    )
    run.add_argument(
        "--overwrite", action="store_true", help="start anew in a --savedir that holds a checkpoint"
    )
    run.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: a GPU if there is one",
    )
    run.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16", "fp16"),
        default="fp32",
        help="of the network: "
        "training by autocast; evaluation and inference keep narrow layers and LMANet's keys in float32; "
        "tf32, fp16: GPUs only",
    )
    run.add_argument(
        "--compile",
        action="store_true",
        help="evaluation, inference: torch.compile encoder and decoder",
    )
    run.add_argument(
        "--gpus", type=positive, default=1, help="processes, one per GPU (on a CPU: gloo ranks)"
    )
    run.add_argument("--num-workers", type=int, default=2, help="loader processes per rank")
    run.add_argument(
        "--threads",
        type=positive,
        default=None,
        help="CPU threads per rank (default: torch's choice)",
    )
    run.add_argument("--seed", type=seed, default=0, help="of every random draw")
    run.add_argument(
        "--deterministic", action="store_true", help="deterministic algorithms on the GPU too"
    )

    watch = parser.add_argument_group("dashboard")
    watch.add_argument(
        "--visualize",
        action="store_true",
        help="show the run on a visdom server (python -m visdom.server); it goes on without one",
    )
    watch.add_argument("--server", default="http://localhost", help="of visdom")
    watch.add_argument("--port", type=positive, default=8097, help="of the visdom server")
    watch.add_argument(
        "--explore",
        action="store_true",
        help="inference: after the last frame of the source, click a pixel or use the arrow keys to see "
        "where it looks in the frames before, until Ctrl-C (with --visualize)",
    )

    net = parser.add_argument_group("network")
    net.add_argument("--method", choices=METHODS, help=table(METHODS))
    net.add_argument("--backbone", choices=BACKBONES, help=table(BACKBONES))
    net.add_argument(
        "--weights",
        nargs="+",
        type=path,
        default=[],
        metavar="FILE",
        help="checkpoints to start from or to run; published formats are recognised",
    )
    net.add_argument(
        "--new-classes",
        action="store_true",
        help="start from weights for other classes: what depends on their number is new",
    )
    net.add_argument("--backbone-nobn", action="store_true", help="erf: skip every batch norm")
    net.add_argument(
        "--shallow-dec", action="store_true", help="erf: classify at 1/8, without the decoder"
    )
    net.add_argument(
        "--align-corners",
        action=switch,
        help="r50v1c, r101v1c: how logits are enlarged (TMANet: on for Cityscapes)",
    )

    queue = parser.add_argument_group("memory (lma, tma)")
    queue.add_argument("--stm-queue-size", type=positive, help="frames in memory")
    queue.add_argument(
        "--win-size",
        type=int,
        default=-1,
        help="frames of a clip (-1: as fill the queue, and one more)",
    )
    queue.add_argument(
        "--memory-strategy",
        choices=MEMORIES,
        default="all",
        help="earlier frames in memory: "
        "all; skip_0N: every (N+1)-th; random: drawn anew for each training clip",
    )

    memory = parser.add_argument_group("memory (lma)")
    memory.add_argument(
        "--corr-size", type=int, default=21, help="side of the window a pixel looks at, odd"
    )
    memory.add_argument(
        "--model-struct",
        choices=STRUCTURES,
        default="original",
        help="aux_mem_loss: a second decoder and loss on the read; mem_only: that decoder alone; "
        "original_kv_fusion: memory is written from fused features",
    )
    memory.add_argument(
        "--local-correlation", action=switch, default=True, help="off: every pixel looks everywhere"
    )
    memory.add_argument(
        "--learnable-constant",
        action="store_true",
        help="a learnt logit beside those of the memory, so that a pixel may read less of it",
    )
    memory.add_argument(
        "--memorize-first", action="store_true", help="a frame finds itself in memory"
    )
    memory.add_argument(
        "--fusion-strategy", choices=FUSIONS, help="how a frame and what it read are joined"
    )
    memory.add_argument(
        "--baseline-mode", action="store_true", help="memory off: the single-frame network"
    )

    attention = parser.add_argument_group("memory (tma)")
    attention.add_argument(
        "--key-channels",
        type=positive,
        default=None,
        help="of keys (default: a quarter of those of values)",
    )
    attention.add_argument(
        "--value-channels",
        type=positive,
        default=None,
        help="of values (default: 256, half of the backbone's where it has fewer than 512)",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=DATASETS, help=table(DATASETS))
    data.add_argument(
        "--data-root",
        type=path,
        default=None,
        help="the data set's folder (or its environment variable: "
        + ", ".join(row.variable for row in DATASETS.values() if row.variable)
        + ")",
    )
    data.add_argument("--train-split", default="train", help="split to train on")
    data.add_argument("--val-split", help="split to validate on and to score")
    data.add_argument(
        "--work-size", **pair, help="size the network works at (default: the data set's own)"
    )
    data.add_argument(
        "--interpolation",
        choices=("pil", "cv2"),
        default="pil",
        help="how frames are resized: pil averages when it shrinks, cv2 is faster",
    )
    data.add_argument(
        "--score-size",
        choices=("label", "work"),
        default="label",
        help="size at which predictions are scored",
    )
    data.add_argument(
        "--void-class",
        action="store_true",
        help="camvid: 12 classes, void being class 0, as TMANet",
    )
    data.add_argument(
        "--synthetic-videos",
        type=positive,
        nargs=3,
        default=(200, 8, 8),
        metavar=("TRAIN", "VAL", "TEST"),
        help="how many synthetic videos each split has",
    )
    data.add_argument(
        "--synthetic-size", **pair, default=(256, 512), help="size of a synthetic frame"
    )
    data.add_argument(
        "--synthetic-length", type=positive, default=30, help="frames of a synthetic video"
    )
    data.add_argument(
        "--synthetic-degrade",
        action=switch,
        default=True,
        help="noise, blur, flicker and sensor dropouts",
    )

    train = parser.add_argument_group("training")
    train.add_argument("--num-epochs", type=positive, help="passes over the training split")
    train.add_argument("--batch-size", type=positive, help="clips per rank")
    train.add_argument("--optimizer", choices=("adam", "adamw", "sgd"), help="update rule")
    train.add_argument("--lr-start", type=rate, help="learning rate at the start")
    train.add_argument(
        "--lr-strategy",
        choices=SCHEDULES,
        help="pow_*: by epoch; poly, step: by iteration; plateau_*: when the training loss stalls",
    )
    train.add_argument("--lr-min", type=rate, help="floor of the poly schedule")
    train.add_argument("--lr-power", type=rate, default=0.9, help="of the poly schedule")
    train.add_argument("--lr-warmup", type=int, default=0, help="iterations of linear warm-up")
    train.add_argument(
        "--lr-step", type=positive, default=100, help="iterations per step of the step schedule"
    )
    train.add_argument(
        "--lr-gamma", type=rate, default=0.992, help="factor per step of the step schedule"
    )
    train.add_argument(
        "--head-lr",
        type=rate,
        help="learning rate of what is not the encoder (lma: of the memory) relative to the rest",
    )
    train.add_argument("--momentum", type=share, help="of SGD")
    train.add_argument("--weight-decay", type=rate, help="of all parameters")
    train.add_argument(
        "--class-weights",
        choices=CLASS_WEIGHTS,
        help="of the cross entropy; balanced: 1/ln(1.10 + class frequency) of the training split",
    )
    train.add_argument(
        "--loss-mean", choices=("valid", "all"), help="divide the loss by labelled or by all pixels"
    )
    train.add_argument(
        "--ohem",
        nargs=2,
        type=rate,
        default=None,
        metavar=("THRESHOLD", "KEPT"),
        help="train on hard pixels only: those below a probability, or the KEPT hardest of each rank",
    )
    train.add_argument("--aux-weight", type=rate, help="of the auxiliary head's loss")
    train.add_argument("--train-encoder", action=switch, help="train the backbone's encoder")
    train.add_argument("--train-decoder", action=switch, help="train the rest of the backbone")
    train.add_argument(
        "--encoder-eval-mode", action="store_true", help="keep the encoder's BN statistics"
    )
    train.add_argument(
        "--decoder-eval-mode", action="store_true", help="keep the decoder's BN statistics"
    )
    train.add_argument(
        "--align-weights",
        action=switch,
        default=True,
        help="lma: the keys of query and memory begin equal",
    )
    train.add_argument(
        "--always-decode",
        action="store_true",
        help="lma: decode every frame of a clip, and learn from all labels in it",
    )
    train.add_argument(
        "--small-key-init",
        action="store_true",
        help="lma: keys begin ten times smaller and learn more "
        "slowly, so that attention stays soft",
    )
    train.add_argument(
        "--correspondence-loss",
        type=rate,
        default=0.0,
        help="lma: weight of a loss that tells attention "
        "where things were; needs data with optical flow (synthetic)",
    )
    train.add_argument(
        "--feature-distillation",
        type=share,
        default=0.0,
        help="lma: share of the loss that pulls fused features to "
        "the frame's own; 1, which needs no labels, is a quick start for a new memory",
    )
    train.add_argument(
        "--on-nonfinite",
        choices=("stop", "skip"),
        default="stop",
        help="a step whose loss or gradients are not finite ends the run, or is left out and counted",
    )
    train.add_argument(
        "--iouTrain", action=switch, default=False, help="mIoU on the training split too"
    )
    train.add_argument(
        "--iouVal",
        action=switch,
        help="validate after each epoch "
        "(camvid: off, its val part is a test; the last epoch then counts as best)",
    )
    train.add_argument(
        "--steps-loss", type=positive, default=100, help="print the loss every N steps"
    )
    train.add_argument(
        "--steps-save", type=int, default=0, help="checkpoint every N steps too (0: after epochs)"
    )
    train.add_argument(
        "--epochs-save", type=int, default=0, help="keep model-EEE.pth every N epochs (0: never)"
    )
    train.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events into --savedir"
    )

    augment = parser.add_argument_group("augmentation (one draw per clip)")
    augment.add_argument("--random-flip", type=share, help="probability of a horizontal flip")
    augment.add_argument(
        "--random-scale",
        nargs=2,
        type=rate,
        default=None,
        metavar=("LOW", "HIGH"),
        help="range of a random scale",
    )
    augment.add_argument("--random-crop", **pair, default=None, help="crop of the scaled frames")
    augment.add_argument(
        "--crop-max-ratio",
        type=share,
        default=1.0,
        help="redraw crops in which one class fills more than this",
    )
    augment.add_argument("--random-shift", type=int, help="pixels of random translation")
    augment.add_argument(
        "--shift-border",
        choices=("ignore", "road"),
        default="ignore",
        help="labels of the strip a shift frees; road (class 0) as LMANet was published",
    )
    augment.add_argument(
        "--synthetic-past",
        type=share,
        default=0.0,
        help="probability that a clip's past is made from its labelled frame, by a known motion",
    )
    augment.add_argument(
        "--random-rotate", type=rate, default=0.0, help="degrees, with probability 0.5"
    )
    augment.add_argument(
        "--random-blur", type=share, default=0.0, help="probability of a 5x5 Gaussian blur"
    )
    augment.add_argument(
        "--photometric",
        choices=("none", "frame", "clip"),
        help="colour distortion drawn per frame or once per clip",
    )

    test = parser.add_argument_group("evaluation and inference")
    test.add_argument("--flip", action="store_true", help="average with the mirrored frame")
    test.add_argument("--scales", nargs="+", type=rate, default=[1.0], help="average over scales")
    test.add_argument("--eval-crop", **pair, default=None, help="slide a window of this size")
    test.add_argument(
        "--eval-stride", **pair, default=None, help="of the window (default: two thirds of it)"
    )
    test.add_argument(
        "--average",
        choices=("probabilities", "logits"),
        default="probabilities",
        help="what overlapping windows average",
    )
    test.add_argument("--save-labels", action="store_true", help="a PNG of class ids per frame")
    test.add_argument("--pictures", type=int, default=8, help="how many frames evaluation draws")
    test.add_argument("--save-images", action="store_true", help="evaluation: draw all frames")
    test.add_argument(
        "--use-orig-res",
        action="store_true",
        help="score at working size, and a second time enlarged "
        "to the labels' own size by nearest neighbour",
    )
    test.add_argument(
        "--save-video",
        action="store_true",
        help="evaluation: a video of input, label, prediction and errors of each densely labelled video",
    )
    test.add_argument(
        "--source",
        nargs="+",
        type=path,
        default=[],
        metavar="SOURCE",
        help="inference: video files, folders, globs, camera indices, stream addresses, - (PPM on stdin)",
    )
    test.add_argument(
        "--output",
        nargs="+",
        choices=("overlay", "labels", "side-by-side"),
        default=["overlay"],
        help="what inference writes",
    )
    test.add_argument("--frame-step", type=positive, default=1, help="label every N-th frame")
    test.add_argument(
        "--max-frames", type=positive, default=None, help="stop a source after N frames"
    )
    test.add_argument("--alpha", type=share, default=0.5, help="strength of the overlay")
    return parser


def parse(argv: list[str], of_weights: dict[str, object] | None = None) -> argparse.Namespace:
    """Words to options, with the defaults of the chosen rows, `offsets` derived, and combinations judged.

    of_weights: what `network` gave for the weights that are to run; the words count more.
    """
    parser, known = make_parser(), words_of(of_weights or {})
    given(known, "what the weights say of their network cannot be: ")
    chosen, _ = names_only().parse_known_args([*known, *argv])
    rows = (DATASETS[chosen.dataset], BACKBONES[chosen.backbone], METHODS[chosen.method])
    defaults = dict(COMMON)
    for row in rows:
        defaults |= row.defaults
    defaults |= rows[-1].published.get((chosen.backbone, chosen.dataset), {})
    parser.set_defaults(
        **defaults
        | {"method": chosen.method, "backbone": chosen.backbone, "dataset": chosen.dataset}
    )
    args = parser.parse_args([*known, *argv])
    for dest in given([word for word in argv if not word.startswith("@")]) & set(NEEDS):
        other, values = NEEDS[dest]
        if getattr(args, other) not in values:
            parser.error(
                f"{flag(dest)} acts with {flag(other)} {' or '.join(values)} only, not with "
                f"{getattr(args, other)}"
            )
    if args.shallow_dec and args.class_weights == "lma" and "class_weights" not in given(argv):
        args.class_weights = "lma-shallow"
    check(parser, args, *rows)
    jobs = {
        "training": args.training,
        "evaluation": args.eval_mode,
        "inference": args.inference,
        "benchmark": args.benchmark,
        "replay": args.replay,
        "data check": args.check_data,
        "file list": args.needed_frames,
    }
    args.job = next(job for job, chosen in jobs.items() if chosen)
    args.offsets = rows[-1].offsets(args)
    args.idle = sorted(flag(dest) for dest in given(argv) & idle(args))
    args.random_memory = random_memory(args)
    args.score_size = "work" if args.use_orig_res else args.score_size
    args.network, args.of_weights = network(args), known
    return args


def weights_to_run(argv: list[str]) -> list[str]:
    """The files that evaluation, inference or --benchmark will run; none for other jobs."""
    parser = Parser(prog="main.py", add_help=False, fromfile_prefix_chars="@", allow_abbrev=False)
    for job in ("--eval-mode", "--inference", "--benchmark"):
        parser.add_argument(job, action="store_true", dest="runs")
    parser.add_argument("--weights", nargs="+", type=path, default=[])
    found, _ = parser.parse_known_args(argv)
    return found.weights if found.runs else []


def network(args: argparse.Namespace) -> dict[str, object]:
    """The options that go with the weights, by dest: those of OF_NETWORK that act."""
    unused = idle(args)
    known = {dest: getattr(args, dest) for dest in OF_NETWORK if dest not in unused}
    return {dest: value for dest, value in known.items() if value is not None}


def words_of(of_weights: dict[str, object]) -> list[str]:
    """What `network` gave, as words. Nothing else comes through: a file that strangers wrote chooses nothing more."""
    words = []
    for dest in OF_NETWORK:
        value = of_weights.get(dest)
        if isinstance(value, bool):
            negated = (
                [f"--no-{dest.replace('_', '-')}"]
                if dest in ("local_correlation", "align_corners")
                else []
            )
            words += (
                [flag(dest)] if value else negated
            )  # others have no negation: they are off by default
        elif value is not None:
            words.append(f"{flag(dest)}={value}")
    return words


def given(argv: list[str], origin: str = "") -> set[str]:
    """The options (by dest) that words name, recipes among them included."""
    parser = make_parser()
    parser.origin = origin
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    parser._mutually_exclusive_groups[0].required = False
    return set(vars(parser.parse_known_args(argv)[0]))


def idle(args: argparse.Namespace) -> set[str]:
    """The options (by dest) that change nothing in the job that was chosen."""
    found = {dest for dest, (other, values) in NEEDS.items() if getattr(args, other) not in values}
    if not args.training:
        found |= {"overwrite", "train_split", "new_classes"}
        found |= {
            action.dest
            for group in make_parser()._action_groups
            for action in group._group_actions
            if group.title.startswith(("training", "augmentation"))
        }
    if not args.eval_mode:
        found |= {"save_labels", "pictures", "save_images", "save_video"}
    if not (args.inference or args.benchmark):
        found |= {"output", "frame_step", "max_frames", "alpha"}
    if args.training:
        found.add("compile")
    if args.benchmark:
        found |= {"resume", "val_split", "score_size", "use_orig_res"}
    if not (args.visualize or args.replay):
        found |= {"server", "port"}
    if args.inference:
        found |= {"val_split", "score_size", "use_orig_res"}
    if args.training and not (args.iouVal or args.iouTrain):
        found |= {
            "val_split",
            "score_size",
            "use_orig_res",
            "flip",
            "scales",
            "eval_crop",
            "eval_stride",
            "average",
        }
    if not args.random_crop:
        found.add("crop_max_ratio")
    if not args.work_size:
        found |= {"score_size", "use_orig_res"}
    if args.save_images:
        found.add("pictures")
    if not args.random_shift:
        found.add("shift_border")
    if args.method == "lma" and not args.local_correlation:
        found.add("corr_size")
    if args.method == "lma" and args.baseline_mode:
        found |= {"corr_size", "stm_queue_size", "win_size", "memory_strategy"}
    if not args.offsets:
        found.add("synthetic_past")
    if args.use_orig_res:
        found.add("score_size")
    if "align_corners" not in BACKBONES[args.backbone].own:
        found.add("align_corners")
    return found


def flag(dest: str) -> str:
    """The option as it is typed."""
    return f"--{dest if dest.startswith('iou') else dest.replace('_', '-')}"


def names_only() -> Parser:
    """The three options that decide the others' defaults; wrong names are left to the full parser."""
    parser = Parser(prog="main.py", add_help=False, fromfile_prefix_chars="@", allow_abbrev=False)
    for name, rows in (("method", METHODS), ("backbone", BACKBONES), ("dataset", DATASETS)):
        parser.add_argument(
            f"--{name}",
            default=COMMON[name],
            type=lambda text, rows=rows, name=name: text if text in rows else COMMON[name],
        )
    return parser


def check(
    parser: Parser, args: argparse.Namespace, dataset: Dataset, backbone: Backbone, method: Method
) -> None:
    """Refuse combinations that cannot work, by one line each."""
    for row in BACKBONES.values():
        for dest in row.own:
            if getattr(args, dest) and dest not in backbone.own:
                owners = " or ".join(other for other, its in BACKBONES.items() if dest in its.own)
                parser.error(f"{flag(dest)} belongs to --backbone {owners}, not to {args.backbone}")
    reason = method.problem(backbone)
    if reason:
        fits = ", ".join(name for name, row in BACKBONES.items() if not method.problem(row))
        parser.error(
            f"--method {args.method} cannot run on --backbone {args.backbone}: {reason}; it runs on {fits}"
        )
    if args.method in ("lma", "tma"):
        check_queue(parser, args)
    if args.method == "lma":
        check_memory(parser, args)
    if args.aux_weight and not backbone.auxiliary:
        parser.error(
            f"--aux-weight {args.aux_weight}: --backbone {args.backbone} has no auxiliary head"
        )
    for option, split in (("--train-split", args.train_split), ("--val-split", args.val_split)):
        if split not in dataset.splits:
            parser.error(
                f"{option} {split}: --dataset {args.dataset} has {', '.join(dataset.splits)}"
            )
    if not args.savedir and (args.training or args.eval_mode or args.inference or args.benchmark):
        parser.error("--savedir is required: the folder for what the run leaves")
    if args.explore and not (args.inference and args.visualize and len(args.source) == 1):
        parser.error("--explore goes with --inference, --visualize and one --source")
    if args.source and not (args.inference or args.benchmark):
        parser.error("--source goes with --inference or --benchmark")
    if args.benchmark and (len(args.source) > 1 or args.gpus > 1):
        parser.error(
            "--benchmark measures one --source in one process: drop --gpus and other sources"
        )
    if args.resume and args.overwrite:
        parser.error("--resume goes on and --overwrite starts anew: choose one")
    if args.eval_stride and not args.eval_crop:
        parser.error("--eval-stride needs --eval-crop")
    if min(args.scales) <= 0:
        parser.error(f"--scales must be positive, got {min(args.scales)}")
    if args.random_scale and not 0 < args.random_scale[0] <= args.random_scale[1]:
        parser.error(
            f"--random-scale needs 0 < LOW <= HIGH, got {args.random_scale[0]} {args.random_scale[1]}"
        )
    if args.ohem and not (0 < args.ohem[0] <= 1 and args.ohem[1] == int(args.ohem[1])):
        parser.error(
            f"--ohem needs a threshold in (0, 1] and a number of pixels, got {args.ohem[0]} {args.ohem[1]}"
        )
    if "-" in args.source and args.gpus > 1:
        parser.error("--source - cannot be shared by several processes: drop --gpus")
    if args.batch_size > 1 and args.training and args.random_scale and not args.random_crop:
        parser.error(
            "--random-scale gives frames of different sizes: add --random-crop H W or --batch-size 1"
        )
    for name in (
        "num_workers",
        "steps_save",
        "epochs_save",
        "lr_warmup",
        "random_shift",
        "pictures",
    ):
        if getattr(args, name) < 0:
            parser.error(f"{flag(name)} cannot be negative, got {getattr(args, name)}")
    if args.num_workers > WORKERS:
        parser.error(
            f"--num-workers {args.num_workers} would start as many processes: {WORKERS} at most"
        )


def check_queue(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse memories that cannot be: which frames."""
    window, stride, drawn = memory_window(args), memory_stride(args), random_memory(args)
    if args.win_size != -1 and args.win_size < 2:
        parser.error(
            f"--win-size needs the labelled frame and one before it at least, got {args.win_size}"
        )
    if window % stride:
        parser.error(
            f"--memory-strategy {args.memory_strategy} needs a --win-size of 1 + a multiple of {stride}, "
            f"got {window + 1}"
        )
    if drawn and not 1 <= drawn[0] <= window:
        parser.error(
            f"--memory-strategy random draws {drawn[0]} of the {window} frames before the labelled one: "
            "change --stm-queue-size or --win-size"
        )


def check_memory(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse memories that cannot be: what LMANet makes of them."""
    if args.corr_size < 1 or args.corr_size % 2 == 0:
        parser.error(
            f"--corr-size must be odd, got {args.corr_size}: take {max(args.corr_size, 0) + 1}"
        )
    if args.model_struct == "original_kv_fusion" and (
        args.memorize_first or memory_stride(args) > 1
    ):
        parser.error(
            "--model-struct original_kv_fusion writes memory after each read: it goes with neither "
            "--memorize-first nor --memory-strategy skip_*"
        )
    if args.feature_distillation and (args.baseline_mode or args.model_struct == "mem_only"):
        parser.error(
            "--feature-distillation is about fused features: it goes with neither --baseline-mode nor mem_only"
        )
    if args.correspondence_loss and args.dataset != "synthetic":
        parser.error(
            f"--correspondence-loss needs optical flow, which --dataset {args.dataset} does not bring: synthetic does"
        )
    if args.correspondence_loss and not args.local_correlation:
        parser.error(
            "--correspondence-loss is about the window of local attention: it does not go with --no-local-correlation"
        )
    if args.baseline_mode and (args.memorize_first or args.model_struct != "original"):
        parser.error(
            "--baseline-mode switches memory off: drop --memorize-first and --model-struct"
        )
    if args.baseline_mode and args.training and not (args.train_encoder or args.train_decoder):
        parser.error(
            "--baseline-mode leaves nothing to train: add --train-encoder or --train-decoder"
        )


def shared(args: argparse.Namespace) -> list[str]:
    """The options that must be the same on all ranks: not paths and what suits a machine."""
    own = ("--data-root", "--weights", "--num-workers", "--threads", "--gpus")
    return [line for line in to_recipe(args).splitlines() if not line.startswith(own)] + [
        "--resume"
    ] * args.resume


def to_recipe(args: argparse.Namespace) -> str:
    """The options as a recipe: one a line, such that `main.py @recipe` repeats the run."""
    watching = {"visualize", "server", "port", "explore", "replay"}
    lines, unwanted = [], idle(args) | watching | {"help", "savedir", "resume", "overwrite"}
    for action in make_parser()._actions:
        value = getattr(args, action.dest, None)
        if action.dest in unwanted or value is None or value == []:
            continue
        flags = action.option_strings
        if isinstance(value, bool):
            negated = next((word for word in flags if word.startswith("--no-")), None)
            lines += [flags[0]] if value else [negated] if negated else []
        else:
            words = value if isinstance(value, (list, tuple)) else [value]
            lines.append(" ".join([flags[0], *(shlex.quote(str(word)) for word in words)]))
    return "\n".join(lines) + "\n"
