"""All that training changes: weights, optimizer, schedule, gradient scaler, random states, progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import checkpoint
from ..run.dist import barrier, gather, rank, world_size
from .progress import Progress
from .schedules import Schedule

CHECKPOINT = "checkpoint.pth.tar"
FIXED = (
    "method",
    "backbone",
    "dataset",
    "train_split",
    "batch_size",
    "seed",
    "optimizer",
    "lr_start",
    "lr_strategy",
    "head_lr",
    "momentum",
    "weight_decay",
    "precision",
)  # options that a resumed run may not change


def make_optimizer(model: torch.nn.Module, args) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD over the model's own parameter groups. ValueError if nothing is left to train."""
    groups = model.parameter_groups(args.lr_start, args.weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError(
            "nothing to train: --no-train-encoder and --no-train-decoder leave no parameter"
        )
    if args.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=args.lr_start, momentum=args.momentum)
    return (torch.optim.AdamW if args.optimizer == "adamw" else torch.optim.Adam)(
        groups, lr=args.lr_start
    )


class TrainingState:
    """Saved and loaded as one; a resumed run continues bit for bit (on a CPU)."""

    def __init__(
        self,
        model: torch.nn.Module,
        args,
        classes: Sequence[str],
        clips: int,
        steps_per_epoch: int,
        device: torch.device,
    ):
        """classes: their names; clips: how many the training set has."""
        self.model, self.args, self.classes = model, args, list(classes)
        self.fixed = {name: getattr(args, name) for name in FIXED} | {"clips": clips}
        self.optimizer = make_optimizer(model, args)
        self.schedule = Schedule(
            self.optimizer,
            args.lr_strategy,
            epochs=args.num_epochs,
            steps_per_epoch=steps_per_epoch,
            power=args.lr_power,
            min_lr=args.lr_min,
            warmup_steps=args.lr_warmup,
            gamma=args.lr_gamma,
            every=args.lr_step,
        )
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=args.precision == "fp16" and device.type == "cuda"
        )
        self.progress = Progress()

    def save(self, folder: Path) -> None:
        """Write folder/checkpoint.pth.tar; every rank must call."""
        random = gather(random_state())
        if rank() == 0:
            checkpoint.save(
                folder / CHECKPOINT,
                {
                    "progress": self.progress.state(),
                    "state_dict": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "random": random,
                    "fixed": self.fixed,
                    "classes": self.classes,
                    "network": self.args.network,
                },
            )
        barrier()

    def load(self, folder: Path) -> str | None:
        """Continue from folder/checkpoint.pth.tar; a note if an older one had to serve.

        ValueError if it is of another run: another network, data, optimizer or number of ranks.
        """
        content, note = checkpoint.read_latest(folder / CHECKPOINT)
        if "fixed" not in content:
            raise ValueError(
                f"{folder / CHECKPOINT} is no checkpoint of a training of ours: give it to --weights"
            )
        for name, value in self.fixed.items():
            if content["fixed"].get(name) != value:
                option = (
                    "clips in the training set:"
                    if name == "clips"
                    else f"--{name.replace('_', '-')}"
                )
                raise ValueError(
                    f"{folder / CHECKPOINT} was trained with {option} {content['fixed'].get(name)}, not "
                    f"{value}: resume with the options in {folder / 'args.txt'}"
                )
        if len(content["random"]) != world_size():
            raise ValueError(
                f"{folder / CHECKPOINT} was saved by {len(content['random'])} ranks, this run has "
                f"{world_size()}: resume with --gpus {len(content['random'])}"
            )
        self.model.load_state_dict(content["state_dict"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        set_random_state(content["random"][rank()])
        return note


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators on this rank (clips are drawn from seeds of their own)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
