"""Where a training stands: what a checkpoint holds besides weights and optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass
class Progress:
    """Epochs count from 0; `step` is the next step of this epoch. Sums are over the steps done in this epoch."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    skipped: int = 0  # of those steps, left out since their loss was not finite
    best: float = -1.0  # below any mIoU
    best_epoch: int = 0

    def add(self, terms: dict[str, float] | None) -> None:
        """Count one step and its named losses; None: a step that was left out."""
        self.step += 1
        self.skipped += terms is None
        for name, value in (terms or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The mean of each named loss over the steps done in this epoch."""
        return {name: total / max(self.step - self.skipped, 1) for name, total in self.sums.items()}

    def next_epoch(self) -> None:
        self.epoch, self.step, self.sums, self.skipped = self.epoch + 1, 0, {}, 0

    def state(self) -> dict:
        return asdict(self)
