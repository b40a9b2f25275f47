"""Published checkpoints: which entry of a file becomes which entry of our network.

A table is a tuple of rules (pattern of the published key, our key); the pattern must match the
whole key, the first rule that matches decides, None means "known and not used by us". A `*` in our
key stands for each of `copies`: such an entry fills several of ours. Keys that no rule matches are
unexpected, and loading stops (utils/checkpoint/loading.py). The tables are written
relative to the network that holds the weights; a method holds its backbone as `backbone`, hence
`SEMSEG_PSPNET.prefixed(BACKBONE)`. Where two published entries are one of ours, `joins` names them.
Leading `module.` is removed from keys before they come here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

BACKBONE = "backbone."  # where a method holds its backbone


class Renamed(NamedTuple):
    """What a table makes of the keys of a file."""

    ours: dict[str, str]  # our key -> published key
    unused: tuple[str, ...]  # published keys that are known and not used
    unexpected: tuple[str, ...]  # published keys that the table does not know


@dataclass(frozen=True)
class KeyMap:
    """One kind of published file."""

    name: str
    rules: tuple[tuple[str, str | None], ...]  # (pattern of the published key, our key or None)
    covers: str  # pattern of our keys that such a file holds without exception
    dropped: tuple[str, ...] = ()  # beginnings of our keys that a network does without
    copies: tuple[str, ...] = ()  # what `*` in our keys stands for, one after the other
    # (part of the name of the first, of the second, of both together), before any rule
    joins: tuple[tuple[str, str, str], ...] = ()
    # (pattern of our key, published key), where weights of ours are written in this form too
    back: tuple[tuple[str, str], ...] = ()

    def prefixed(self, prefix: str) -> KeyMap:
        """The same table for a network that holds ours below `prefix`, such as "backbone."."""
        rules = tuple((pattern, ours and prefix + ours) for pattern, ours in self.rules)
        covers = f"{re.escape(prefix)}(?:{self.covers})"
        back = tuple((f"{re.escape(prefix)}(?:{ours})", name) for ours, name in self.back)
        return replace(self, rules=rules, covers=covers, back=back, dropped=())

    def without(self, *beginnings: str) -> KeyMap:
        """The same table for a network without such keys: their entries are known and not used."""
        return replace(self, dropped=beginnings)

    def must_hold(self, key: str) -> bool:
        """Whether a file of this kind without our `key` is incomplete."""
        return re.fullmatch(self.covers, key) is not None

    def look_up(self, key: str) -> tuple[int, str | None] | None:
        """The number of the rule that decides a key, and our key; None if no rule does."""
        for rank, (pattern, ours) in enumerate(self.rules):
            match = re.fullmatch(pattern, key)
            if match:
                return rank, self.kept(ours and match.expand(ours))
        return None

    def kept(self, ours: str | None) -> str | None:
        """Our key, or None where the network does without it."""
        if ours is None or ours.startswith(self.dropped):
            return None
        return ours

    def spread(self, ours: str) -> list[str]:
        """The entries of ours that a key stands for."""
        if "*" not in ours:
            return [ours]
        return [ours.replace("*", copy) for copy in self.copies]

    def joined(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's entries, with those that `joins` names put together along their first axis."""
        found = dict(weights)
        for first, second, whole in self.joins:
            for key in weights:
                other = key.replace(first, second)
                if first in key and other in weights:
                    pair = found.pop(key), found.pop(other)
                    found[key.replace(first, whole)] = torch.cat(pair)
        return found

    def published(self, ours: str) -> str:
        """The published key of an entry of ours, by `back`. ValueError where it has none."""
        for pattern, published in self.back:
            match = re.fullmatch(pattern, ours)
            if match:
                return match.expand(published)
        raise ValueError(f"{ours} has no name in files of {self.name}")

    def rename(self, keys: Iterable[str]) -> Renamed:
        """Apply the rules; of several keys for one of ours, that of the earlier rule is used."""
        candidates: dict[str, list[tuple[int, str]]] = {}
        unused = []
        unexpected = []
        for key in keys:
            found = self.look_up(key)
            if found is None:
                unexpected.append(key)
            elif found[1] is None:
                unused.append(key)
            else:
                for name in self.spread(found[1]):
                    candidates.setdefault(name, []).append((found[0], key))
        ours = {}
        for name, published in candidates.items():
            # sorted by rule alone: of equal ones the order in the file decides
            (first, chosen), *others = sorted(published, key=lambda candidate: candidate[0])
            ours[name] = chosen
            for rank, key in others:
                # two keys by one rule contradict each other
                (unexpected if rank == first else unused).append(key)
        return Renamed(ours, tuple(unused), tuple(unexpected))


# Parts of published keys that several tables share

BN = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
LAYERS = rf"layer[1-4]\.\d+\.(?:(?:conv|bn)[1-3]|downsample\.[01])\.{BN}"
FC = r"fc\.(?:weight|bias)"  # the ImageNet classifier
