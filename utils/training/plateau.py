"""Learning rates that fall when the training loss stops falling."""

from __future__ import annotations

import math
from typing import Any


class Plateau:
    """Reduces rates as torch's ReduceLROnPlateau does.

    The rates are kept apart from those of the optimizer, which warm-up scales.
    """

    patience = 10  # epochs without a better loss before the rates fall
    threshold = 1e-4  # better: below (1 - threshold) times the best
    smallest = 1e-8  # a rate that would fall by no more than this stays (torch's eps)

    def __init__(self, rates: list[float], factor: float, lowest: float):
        """rates: one per parameter group; they are multiplied by `factor`, down to `lowest`."""
        self.rates = rates
        self.factor = factor
        self.lowest = lowest
        self.best = math.inf
        self.bad_epochs = 0  # in a row
        self.epoch = 0  # the last one reported, from 1

    def report(self, epoch: int, loss: float) -> None:
        """Take in an epoch's training loss, and reduce the rates if it is time to.

        Raises ValueError for an epoch that is not after the last one: its loss would count twice.
        """
        if epoch <= self.epoch:
            raise ValueError(f"the loss of epoch {epoch} came after that of epoch {self.epoch}")
        self.epoch = epoch
        # A nan is not below anything, so it counts as no progress.
        if loss < self.best * (1 - self.threshold):
            self.best = float(loss)
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.rates = [self._reduced(rate) for rate in self.rates]
            self.bad_epochs = 0

    def _reduced(self, rate: float) -> float:
        reduced = max(rate * self.factor, self.lowest)
        if rate - reduced > self.smallest:
            return reduced
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for `load_state_dict`."""
        return {
            "rates": list(self.rates),
            "best": self.best,
            "bad_epochs": self.bad_epochs,
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; ValueError if it has another number of groups."""
        if len(state["rates"]) != len(self.rates):
            raise ValueError(
                f"the checkpoint has learning rates for {len(state['rates'])} parameter groups, "
                f"this training has {len(self.rates)}"
            )
        self.rates = list(state["rates"])
        self.best = state["best"]
        self.bad_epochs = state["bad_epochs"]
        self.epoch = state["epoch"]
