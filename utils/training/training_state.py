"""All that training changes: weights, optimizer, schedule, scaler, random states, progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .. import checkpoint
from ..run.dist import barrier, gather, rank, world_size
from .progress import Progress
from .schedules import Schedule

CHECKPOINT = "checkpoint.pth.tar"
CLIPS = "clips in the training set:"


class TrainingState:
    """Saved and loaded as one; a resumed run continues bit for bit (on a CPU)."""

    def __init__(
        self,
        model: torch.nn.Module,
        args,
        *,
        described: dict[str, Any],
        clips: int,
        steps_per_epoch: int,
        device: torch.device,
    ):
        """described: what checkpoints say of the weights; clips: how many the training set has."""
        self.model = model
        self.args = args
        self.described = described
        # What a resumed run may not change: its options say so where they are declared.
        self.fixed = {**args.resume_same, CLIPS: clips}
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
        # bfloat16 has the range of float32: its gradients need no scaling.
        scales = args.precision == "fp16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scales)
        self.progress = Progress()

    def save(self, folder: Path) -> None:
        """Write folder/checkpoint.pth.tar; every rank must call."""
        # Each rank draws its own dropout: their states differ.
        random = gather(random_state())
        if rank() == 0:
            content = {
                "progress": self.progress.state(),
                "state_dict": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random,
                "fixed": self.fixed,
                **self.described,
            }
            checkpoint.save(folder / CHECKPOINT, content)
        barrier()

    def load(self, folder: Path) -> str | None:
        """Continue from folder/checkpoint.pth.tar; a note if an older one had to serve.

        ValueError if it is of another run: other options, data or number of ranks.
        """
        path = folder / CHECKPOINT
        content, note = checkpoint.read_latest(path)
        if "fixed" not in content:
            raise ValueError(f"{path} is no checkpoint of a training of ours: give it to --weights")
        # Before anything is loaded: a refused resume changes nothing.
        require_same_run(path, content["fixed"], self.fixed)
        ranks = len(content["random"])
        if ranks != world_size():
            raise ValueError(
                f"{path} was saved by {ranks} ranks, this run has {world_size()}: resume with "
                f"--gpus {ranks}"
            )
        self.model.load_state_dict(content["state_dict"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        set_random_state(content["random"][rank()])
        return note


def require_same_run(path: Path, stored: dict[str, Any], now: dict[str, Any]) -> None:
    """ValueError names the first option whose value differs from the one of the stored run.

    An option that one of the two does not know had no effect there; where that matters, another
    option differs as well.
    """
    for option, value in now.items():
        if option in stored and stored[option] != value:
            raise ValueError(
                f"{path} was trained with {option} {in_words(stored[option])}, not "
                f"{in_words(value)}: resume with the options in {path.parent / 'args.txt'}"
            )


def in_words(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "by default" if value is None else str(value)


def make_optimizer(model: torch.nn.Module, args) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD over the model's parameter groups. ValueError if nothing is trained."""
    groups = model.parameter_groups(args.lr_start, args.weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError(
            "nothing to train: --no-train-encoder and --no-train-decoder leave no parameter"
        )
    if args.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=args.lr_start, momentum=args.momentum, nesterov=args.nesterov
        )
    if args.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=args.lr_start)
    return torch.optim.Adam(groups, lr=args.lr_start)


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators on this rank (clips are drawn from seeds of their own)."""
    state = {"cpu": torch.get_rng_state()}
    # Asking an unused GPU would initialise it, which takes memory and seconds.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
