"""Published checkpoints: which entry of a file becomes which entry of our network.

A table is a tuple of rules (pattern of the published key, our key); the pattern must match the
whole key, the first rule that matches decides, None means "known and not used by us". Keys that no
rule matches are unexpected, and loading stops (utils/checkpoint/loading.py). The tables are written
relative to the network that holds the weights; a method holds its backbone as `backbone`, hence
`SEMSEG_PSPNET.prefixed(BACKBONE)`. Leading `module.` is removed from keys before they come here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

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

    def prefixed(self, prefix: str) -> KeyMap:
        """The same table for a network that holds ours below `prefix`, such as "backbone."."""
        rules = tuple((pattern, ours and prefix + ours) for pattern, ours in self.rules)
        return KeyMap(self.name, rules, f"{re.escape(prefix)}(?:{self.covers})")

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
                candidates.setdefault(found[1], []).append((found[0], key))
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
STEM_V1C = rf"stem\.[013467]\.{BN}"
FC = r"fc\.(?:weight|bias)"  # the ImageNet classifier
PSPNET = rf"(?:layer0\.\d\.{BN}|{LAYERS}|ppm\.features\.[0-3]\.[12]\.{BN}|(?:cls|aux)\.[014]\.{BN})"
PSPNET_COVERS = r"(?:layer[0-4]|ppm|cls)\..+"  # the auxiliary head is optional


# ERFNet. The encoder is pretrained with a classifier of its own, `encoder.output_conv`.

ERFNET_PARTS = r"encoder\.(?:initial_block|layers)\..+"
ERFNET = KeyMap(
    "ERFNet",
    (
        (r"encoder\.output_conv\.(?:weight|bias)", None),
        (ERFNET_PARTS, r"\g<0>"),
        (r"decoder\.(?:layers|output_conv)\..+", r"\g<0>"),
    ),
    covers=r"(?:encoder|decoder)\..+",
)
ERFNET_ENCODER = KeyMap(
    "ERFNet's encoder",
    ((r"encoder\.output_conv\.(?:weight|bias)", None), (ERFNET_PARTS, r"\g<0>")),
    covers=r"encoder\..+",
)
ERFNET_SHALLOW = KeyMap(
    "ERFNet for the shallow decoder",
    (
        (r"encoder\.output_conv\.(weight|bias)", r"decoder.output_conv_stm_shallow.\1"),
        (ERFNET_PARTS, r"\g<0>"),
        (rf"decoder\.(?:layers\.[0-5]\.\w+|output_conv)\.{BN}", None),
    ),
    covers=r"encoder\..+",
)


# PSPNet

SEMSEG_PSPNET = KeyMap("semseg's PSPNet", ((PSPNET, r"\g<0>"),), covers=PSPNET_COVERS)
# ETC's trainer saves student, flow network, losses and teacher in one. Its evaluation files hold
# the student alone; where both spellings of a key occur, the student's counts.
ETC_PSPNET18 = KeyMap(
    "ETC's PSPNet18",
    (
        (r"(?:(?:module|student)\.)*(?:flownet|teacher|criterion)\..+", None),
        (rf"student\.(?:(?:module|student)\.)*({PSPNET})", r"\1"),
        (PSPNET, r"\g<0>"),
    ),
    covers=PSPNET_COVERS,
)


# ImageNet classifiers, as a start

RESNET18_PSPNET = KeyMap(
    "torchvision's ResNet-18",
    (
        (r"conv1\.(weight)", r"layer0.0.\1"),
        (rf"bn1\.({BN})", r"layer0.1.\1"),
        (LAYERS, r"\g<0>"),
        (FC, None),
    ),
    covers=r"layer[0-4]\..+",
)
# ResNets with a deep stem of 64, 64, 128 channels: resnet50_v2.pth, resnet101_v2.pth
RESNET_V2_PSPNET = KeyMap(
    "ResNet-v2 (deep stem)",
    (
        (r"conv1\.(weight)", r"layer0.0.\1"),
        (rf"bn1\.({BN})", r"layer0.1.\1"),
        (r"conv2\.(weight)", r"layer0.3.\1"),
        (rf"bn2\.({BN})", r"layer0.4.\1"),
        (r"conv3\.(weight)", r"layer0.6.\1"),
        (rf"bn3\.({BN})", r"layer0.7.\1"),
        (LAYERS, r"\g<0>"),
        (FC, None),
    ),
    covers=r"layer[0-4]\..+",
)
# open-mmlab's: a deep stem of 32, 32, 64 channels
RESNET_V1C = KeyMap(
    "ResNet-v1c",
    ((STEM_V1C, r"\g<0>"), (LAYERS, r"\g<0>"), (FC, None)),
    covers=r"(?:stem|layer[1-4])\..+",
)
RESNET_V1C_STEM = KeyMap("the stem of ResNet-v1c", ((STEM_V1C, r"\g<0>"),), covers=r"stem\..+")
# torchvision's, whose plain stem does not fit a ResNet-v1c: to go with a stem of its own
RESNET_BODY = KeyMap(
    "the layers of torchvision's ResNet",
    ((rf"conv1\.weight|bn1\.{BN}", None), (LAYERS, r"\g<0>"), (FC, None)),
    covers=r"layer[1-4]\..+",
)


# A single-frame network of ours, as the start of a method that does without some of its parts.

SINGLE_FRAME = KeyMap(
    "our names of a single-frame network",
    ((r"backbone\..+", r"\g<0>"),),
    covers=r"backbone\.(?!aux\.|auxiliary_head\.).+",
)
