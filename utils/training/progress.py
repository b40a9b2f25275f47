"""How far a training is, as a checkpoint holds it beside weights and optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass
class Progress:
    """Epochs count from 0. Sums are over the steps done in this epoch."""

    epoch: int = 0
    step: int = 0  # the next one of this epoch
    sums: dict[str, float] = field(default_factory=dict)  # of each named loss
    skipped: int = 0  # of the steps done, left out since their loss was not finite
    best: float = -1.0  # validation mIoU as a fraction; -1 is below any
    best_epoch: int = 0  # from 1, as logged

    def add(self, terms: dict[str, float] | None) -> None:
        """Count one step and its named losses; None: a step that was left out."""
        self.step += 1
        if terms is None:
            self.skipped += 1
            return
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The mean of each named loss over the steps done in this epoch, without those left out."""
        # At least 1: an epoch may have no step that counts.
        counted = max(self.step - self.skipped, 1)
        return {name: total / counted for name, total in self.sums.items()}

    def next_epoch(self) -> None:
        """Begin the next epoch; the best result so far stays."""
        self.epoch += 1
        self.step = 0
        self.sums = {}
        self.skipped = 0

    def state(self) -> dict:
        """Plain values: Progress(**state) is the same again."""
        return asdict(self)
