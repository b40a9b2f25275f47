"""Learning rate schedules: the published strategies behind one object.

Epochs count from 1, as in automated_log.txt, the steps of an epoch from 0. An iteration is a step
counted from the beginning of the training, i = (epoch - 1) * steps_per_epoch + step; N epochs have
N * steps_per_epoch iterations. Each parameter group has its own base rate (`initial_lr`), so the
ratios between groups stay. For the base rate b:

constant        b
pow_07, pow_09  b * (1 - (epoch - 1) / N) ** 0.7, ** 0.9
                (LMANet, as meant; its release passes the loss where the epoch belongs)
pow_09_b        b * (1 - (epoch - 1) / min(N, 50)) ** 0.9, from epoch 50 on b * 0.02 ** 0.9 (LMANet)
plateau_03, _05, _07, _08, _09
                times 0.3, 0.5, 0.7, 0.8, 0.9 whenever the training loss did not fall for more than
                10 epochs; never below 0 (03, 05) or 1e-9 (others)
                (LMANet: torch's ReduceLROnPlateau and its defaults)
poly            (b - min_lr) * (1 - i / iterations) ** power + min_lr, min_lr the same in each group
                (TMANet: power 0.9, min_lr 1e-4; ETC: power 0.9, min_lr 0; MRCFA: power 1, min_lr 0)
step            b * gamma ** (i // every) (SwNet-seq: gamma 0.992, every 100)

With warm-up (MRCFA: 1500 steps from 1e-6), whatever the strategy, the rate of the first iterations
is multiplied by 1 - (1 - i / warmup_steps) * (1 - warmup_ratio).
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from .plateau import Plateau

POWERS = {  # power, the epoch from which the rate stays
    "pow_07": (0.7, math.inf),
    "pow_09": (0.9, math.inf),
    "pow_09_b": (0.9, 50),
}
PLATEAUS = {  # factor, lowest rate
    "plateau_03": (0.3, 0.0),
    "plateau_05": (0.5, 0.0),
    "plateau_07": (0.7, 1e-9),
    "plateau_08": (0.8, 1e-9),
    "plateau_09": (0.9, 1e-9),
}
NAMES = ("constant", *POWERS, *PLATEAUS, "poly", "step")


class Schedule:
    """Sets the learning rates of an optimizer.

    Call `before_step` before each step of the optimizer and `after_epoch` after each epoch.
    """

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
        """power, min_lr: of poly; gamma, every: of step.

        Raises ValueError for an unknown name or a count below 1.
        """
        if name not in NAMES:
            raise ValueError(
                f"unknown learning rate strategy {name!r}: choose one of {', '.join(NAMES)}"
            )
        _require_positive(epochs=epochs, steps_per_epoch=steps_per_epoch, every=every)
        self.optimizer = optimizer
        self.name = name
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.power = power
        self.min_lr = min_lr
        self.warmup_steps = warmup_steps
        self.warmup_ratio = warmup_ratio
        self.gamma = gamma
        self.every = every
        for group in optimizer.param_groups:
            # An optimizer that was restored has its base rates already.
            group.setdefault("initial_lr", group["lr"])
        self.plateau = None
        if name in PLATEAUS:
            self.plateau = Plateau(self.base_rates, *PLATEAUS[name])

    @property
    def base_rates(self) -> list[float]:
        """The rate that each parameter group starts from."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The rate of the first group, as last set: after `after_epoch` still that of the epoch."""
        return self.optimizer.param_groups[0]["lr"]

    def before_step(self, epoch: int, step: int) -> None:
        """Set the rates for one optimizer step: epoch from 1, step from 0."""
        if epoch < 1 or step < 0:
            raise ValueError(
                f"epochs count from 1 and steps from 0, got epoch {epoch}, step {step}"
            )
        iteration = (epoch - 1) * self.steps_per_epoch + step
        rates = self._rates(epoch, iteration)
        warmup = self._warmup_factor(iteration)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * warmup

    def after_epoch(self, epoch: int, train_loss: float) -> None:
        """Report an epoch's training loss: the mean over all ranks, so that all ranks agree."""
        if self.plateau:
            self.plateau.report(epoch, train_loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values: all that a resumed run needs to continue as if it had not stopped."""
        state = {"name": self.name}
        if self.plateau:
            state |= self.plateau.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises ValueError if it is of another strategy or has another number of parameter groups.
        """
        if state["name"] != self.name:
            raise ValueError(
                f"the checkpoint was trained with the learning rate strategy {state['name']}, "
                f"not {self.name}: resume with the same one"
            )
        if self.plateau:
            self.plateau.load_state_dict(state)

    def _rates(self, epoch: int, iteration: int) -> list[float]:
        """The rate of each parameter group, before warm-up."""
        if self.plateau:
            return self.plateau.rates
        formula = FORMULAS[self.name]
        return [formula(self, base, epoch, iteration) for base in self.base_rates]

    def _warmup_factor(self, iteration: int) -> float:
        if iteration >= self.warmup_steps:
            return 1.0
        return 1 - (1 - iteration / self.warmup_steps) * (1 - self.warmup_ratio)


def _require_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def constant_rate(schedule: Schedule, base: float, epoch: int, iteration: int) -> float:
    """Stays."""
    return base


def power_rate(schedule: Schedule, base: float, epoch: int, iteration: int) -> float:
    """Falls by epoch, down to the rate of the epoch from which it stays."""
    power, last = POWERS[schedule.name]
    epochs = min(schedule.epochs, last)
    done = min(epoch, last) - 1
    # Not below 0, should a training go on after its last epoch.
    return base * max(1 - done / epochs, 0.0) ** power


def poly_rate(schedule: Schedule, base: float, epoch: int, iteration: int) -> float:
    """Falls by iteration."""
    iterations = schedule.epochs * schedule.steps_per_epoch
    left = max(1 - iteration / iterations, 0.0)
    return (base - schedule.min_lr) * left**schedule.power + schedule.min_lr


def step_rate(schedule: Schedule, base: float, epoch: int, iteration: int) -> float:
    """Falls by `gamma` once in `every` iterations."""
    return base * schedule.gamma ** (iteration // schedule.every)


FORMULAS = {  # of all strategies that do not look at the loss
    "constant": constant_rate,
    **dict.fromkeys(POWERS, power_rate),
    "poly": poly_rate,
    "step": step_rate,
}
