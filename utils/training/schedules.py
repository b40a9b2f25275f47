"""Learning rates: every published strategy as one object, stepped as it was meant.

Epochs count from 1, as in automated_log.txt, steps of an epoch from 0; an iteration is a step counted from the
beginning of the training, i = (epoch - 1) * steps_per_epoch + step, of N * steps_per_epoch for N epochs. Each
parameter group has a base rate of its own (`initial_lr`), so groups keep their ratios. For the base rate b:

constant                b
pow_07, pow_09          b * (1 - (epoch - 1) / N) ** 0.7, ** 0.9 (LMANet, as meant; its release steps with the loss)
pow_09_b                b * (1 - (epoch - 1) / min(N, 50)) ** 0.9, from epoch 50 on b * 0.02 ** 0.9 (LMANet)
plateau_03 ... _09      times 0.3, 0.5, 0.7, 0.8, 0.9 whenever the training loss did not fall for more than 10 epochs
                        (LMANet: torch's ReduceLROnPlateau and its defaults); never below 0 (03, 05) or 1e-9 (others)
poly                    (b - min_lr) * (1 - i / iterations) ** power + min_lr; min_lr is the same for every group
                        (TMANet: power 0.9, 1e-4; ETC: power 0.9, 0; MRCFA: power 1, 0)
step                    b * gamma ** (i // every) (SwNet-seq: 0.992 every 100)

With warm-up (MRCFA: 1500 steps from 1e-6) the rate of the first iterations, whatever the strategy, is multiplied by
1 - (1 - i / warmup_steps) * (1 - warmup_ratio).
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

POWERS = {"pow_07": 0.7, "pow_09": 0.9, "pow_09_b": 0.9}
PLATEAUS = {  # factor, lowest rate
    "plateau_03": (0.3, 0.0),
    "plateau_05": (0.5, 0.0),
    "plateau_07": (0.7, 1e-9),
    "plateau_08": (0.8, 1e-9),
    "plateau_09": (0.9, 1e-9),
}
NAMES = ("constant", *POWERS, *PLATEAUS, "poly", "step")


class Schedule:
    """Sets the learning rates of an optimizer: `before_step` before each of its steps, `after_epoch` after an epoch."""

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int,
        power: float = 0.9,
        min_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_ratio: float = 1e-6,
        gamma: float = 0.992,
        every: int = 100,
    ):
        """power, min_lr: of poly; gamma, every: of step. ValueError for an unknown name or a count below 1."""
        if name not in NAMES:
            raise ValueError(
                f"unknown learning rate strategy {name!r}: choose one of {', '.join(NAMES)}"
            )
        for word, count in (
            ("epochs", epochs),
            ("steps_per_epoch", steps_per_epoch),
            ("every", every),
        ):
            if count < 1:
                raise ValueError(f"{word} must be at least 1, got {count}")
        self.optimizer, self.name = optimizer, name
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.power, self.min_lr, self.gamma, self.every = power, min_lr, gamma, every
        self.warmup_steps, self.warmup_ratio = warmup_steps, warmup_ratio
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.plateau = Plateau(self.base_rates, *PLATEAUS[name]) if name in PLATEAUS else None

    @property
    def base_rates(self) -> list[float]:
        """The rate each parameter group starts from."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The rate of the first group, as last set: after `after_epoch` still the one used in that epoch."""
        return self.optimizer.param_groups[0]["lr"]

    def before_step(self, epoch: int, step: int) -> None:
        """Set the rates for one optimizer step: epoch from 1, step from 0."""
        if epoch < 1 or step < 0:
            raise ValueError(
                f"epochs count from 1 and steps from 0, got epoch {epoch}, step {step}"
            )
        iteration = (epoch - 1) * self.steps_per_epoch + step
        rates = (
            self.plateau.rates
            if self.plateau
            else [self._rate(b, epoch, iteration) for b in self.base_rates]
        )
        warmth = self._warmth(iteration)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * warmth

    def after_epoch(self, epoch: int, train_loss: float) -> None:
        """Tell the strategy the epoch's training loss (the mean over all ranks, so that all ranks agree)."""
        if self.plateau:
            self.plateau.report(epoch, train_loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values: all that a resumed run needs to go on as if it had not stopped."""
        return {"name": self.name, **(self.plateau.state_dict() if self.plateau else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; ValueError if it is of another strategy or number of groups."""
        if state["name"] != self.name:
            raise ValueError(
                f"the checkpoint was trained with the learning rate strategy {state['name']}, "
                f"not {self.name}: resume with the same one"
            )
        if self.plateau:
            self.plateau.load_state_dict(state)

    def _rate(self, base: float, epoch: int, iteration: int) -> float:
        if self.name in POWERS:
            epochs, done = self.epochs, epoch - 1
            if self.name == "pow_09_b":
                epochs, done = min(epochs, 50), min(done, 49)
            return base * max(1 - done / epochs, 0.0) ** POWERS[self.name]
        if self.name == "poly":
            left = max(1 - iteration / (self.epochs * self.steps_per_epoch), 0.0)
            return (base - self.min_lr) * left**self.power + self.min_lr
        if self.name == "step":
            return base * self.gamma ** (iteration // self.every)
        return base

    def _warmth(self, iteration: int) -> float:
        if iteration >= self.warmup_steps:
            return 1.0
        return 1 - (1 - iteration / self.warmup_steps) * (1 - self.warmup_ratio)


class Plateau:
    """Reduces rates when the loss stops falling: torch's ReduceLROnPlateau, kept apart from the optimizer's rates
    because warm-up scales those.
    """

    patience = 10  # epochs without a better loss that are forgiven
    threshold = 1e-4  # better: below (1 - threshold) times the best
    smallest = 1e-8  # a rate that would fall by no more than this stays

    def __init__(self, rates: list[float], factor: float, lowest: float):
        self.rates, self.factor, self.lowest = rates, factor, lowest
        self.best, self.bad_epochs, self.epoch = math.inf, 0, 0

    def report(self, epoch: int, loss: float) -> None:
        """ValueError for an epoch that is not after the last one: its loss would count twice."""
        if epoch <= self.epoch:
            raise ValueError(f"the loss of epoch {epoch} came after that of epoch {self.epoch}")
        self.epoch = epoch
        if loss < self.best * (1 - self.threshold):
            self.best, self.bad_epochs = float(loss), 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.rates, self.bad_epochs = [self._reduced(rate) for rate in self.rates], 0

    def _reduced(self, rate: float) -> float:
        reduced = max(rate * self.factor, self.lowest)
        return reduced if rate - reduced > self.smallest else rate

    def state_dict(self) -> dict[str, Any]:
        return {
            "rates": list(self.rates),
            "best": self.best,
            "bad_epochs": self.bad_epochs,
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["rates"]) != len(self.rates):
            raise ValueError(
                f"the checkpoint has learning rates for {len(state['rates'])} parameter groups, "
                f"this training has {len(self.rates)}"
            )
        self.rates, self.best = list(state["rates"]), state["best"]
        self.bad_epochs, self.epoch = state["bad_epochs"], state["epoch"]
