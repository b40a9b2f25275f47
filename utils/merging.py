"""Scores of a network's classes as scores of others: the probabilities of merged classes add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORE = 255
# The logit of a class that nothing becomes: its probability is 0, and mixing it gives no nan.
NEVER = -1e4


class Merging:
    """logits (B, N, h, w) -> (B, K, h, w), or (B, K + 1, h, w) where classes are ignored.

    log(sum of exp) over the logits that become one class: the softmax of the result is the sum of
    their probabilities, and where one class becomes one class its logit stays. So the result is
    interpolated, averaged and scored as any logits. What is ignored is one output of its own behind
    the classes, as networks have it that learn "ignore": where it wins, a pixel has no class.
    """

    def __init__(self, table: Sequence[int], num_classes: int):
        """table: the class of each of the network's, 255 = ignored. Outputs beyond the table, such
        as an "ignore" output, are ignored too."""
        self.table = tuple(table)
        self.num_classes = num_classes

    @property
    def absent(self) -> list[int]:
        """The classes that nothing becomes."""
        return [k for k in range(self.num_classes) if k not in self.table]

    def members(self, outputs: int) -> list[list[int]]:
        """The outputs that become each class, and those that are ignored last, if there are any."""
        table = (*self.table, *[IGNORE] * (outputs - len(self.table)))
        classes = [*range(self.num_classes), IGNORE]
        found = [[output for output, k in enumerate(table) if k == place] for place in classes]
        return found if found[-1] else found[:-1]

    def __call__(self, logits: Tensor) -> Tensor:
        members = self.members(logits.shape[1])
        return torch.stack([merge(logits, outputs) for outputs in members], 1)


def merge(logits: Tensor, outputs: list[int]) -> Tensor:
    """logits (B, N, h, w) -> (B, h, w): the logit of these outputs together."""
    if not outputs:
        return torch.full_like(logits[:, 0], NEVER)
    if len(outputs) == 1:
        return logits[:, outputs[0]]
    if len(outputs) == 2:
        return torch.logaddexp(logits[:, outputs[0]], logits[:, outputs[1]])
    return logits[:, outputs].logsumexp(1)
