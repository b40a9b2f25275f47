"""What options say about the machine and how a network is run on it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from ..views import Views
from .dist import join

PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Of x86 and ARM processors that multiply bfloat16; others are many times slower at it.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def multiplies_bf16(information: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16; True where that is not known."""
    if not information.is_file():
        return True
    flags = set(information.read_text().split())
    return bool(flags & BF16_FLAGS) or "flags" not in flags


def begin(args) -> torch.device:
    """Seed, choose the device and join the other ranks.

    ValueError if the device asked for is not there.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    device = check_device(args)
    if args.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        allow_tf32(args.precision == "tf32")
    device = join(device)
    # The same on all ranks: each then draws the same first weights.
    torch.manual_seed(args.seed)
    return device


def check_device(args) -> torch.device:
    """The device the options name. ValueError if it is not there or cannot do what they ask."""
    device = choose_device(args.device)
    if args.precision in ("fp16", "tf32") and device.type == "cpu":
        raise ValueError(f"--precision {args.precision} needs a GPU: use bf16 or fp32 on a CPU")
    places, name = ranks_possible(device)
    if args.gpus > places:
        raise ValueError(
            f"--gpus {args.gpus} starts as many processes: this machine has {places} {name}"
        )
    return device


def ranks_possible(device: torch.device) -> tuple[int, str]:
    """How many ranks have a place of their own, and what such a place is."""
    if device.type == "cuda":
        return torch.cuda.device_count(), "GPUs"
    # Each rank holds the network and its workers: many on few cores only take memory.
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0)), "processor cores"
    return os.cpu_count() or 1, "processor cores"


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 numbers on a GPU may be rounded to tf32; exact otherwise.

    PyTorch's own default rounds in convolutions: to three of the seven digits that float32
    promises.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(args, device: torch.device) -> AbstractContextManager:
    """--precision of a training, as a context that may be entered again and again."""
    dtype = PRECISIONS[args.precision]
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def views_of(args, model: torch.nn.Module) -> Views:
    """--flip, --scales and --eval-crop for this network."""
    # Windows that average logits take small frames whole, as TMANet does.
    small = "whole" if args.average == "logits" else "pad"
    return Views(
        model.size_rule,
        scales=args.scales,
        flip=args.flip,
        crop=args.eval_crop,
        stride=args.eval_stride,
        average=args.average,
        small=small,
        align_corners=model.backbone.align_corners,
        merge=getattr(model, "merging", None),
    )
