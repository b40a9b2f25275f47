"""Toy methods with the shapes of what is to come: each is one class and one table row
(tests/test_contract.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.backbone import Backbone, Features, Normalize, SizeRule
from models.method import Method, WindowMethod
from models.optical_flow import FlowProvider
from models.parts.frozen import Frozen
from models.parts.losses import IGNORE


class ToyBackbone(Backbone):
    """Two convolutions and two heads: a published network in small."""

    channels, stride, size_rule, align_corners = 8, 4, SizeRule(4), False

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_outputs = num_classes
        self.normalize = Normalize((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.Tanh())
        self.classifier = nn.Conv2d(8, num_classes, 1)
        self.aux = nn.Conv2d(8, num_classes, 1)
        self.calls = 0

    def encode(self, frame):
        self.calls += 1
        return Features(self.encoder(self.normalize(frame)))

    def embed(self, features):
        return features.last

    def classify(self, embedding):
        return self.classifier(embedding)

    def auxiliary(self, features):
        return self.aux(features.last)

    def encoder_parts(self):
        return [self.encoder]


class Gaps(WindowMethod):
    """Reads frames t-9, t-6, t-3 by attention over them, with a start-up table and cached features
    (as mrcfa)."""

    TABLE = {
        0: (),
        1: (),
        2: (),
        3: (-3, -2, -1),
        4: (-4, -2, -1),
        5: (-5, -3, -1),
        6: (-6, -4, -2),
        7: (-7, -4, -2),
        8: (-8, -5, -2),
    }

    def __init__(self, backbone, offsets=(-9, -6, -3)):
        super().__init__(backbone, offsets)
        self.project = nn.Conv2d(backbone.channels, backbone.channels, 1)

    @classmethod
    def from_args(cls, backbone, args):
        return cls(backbone, args.offsets)

    def startup(self, past):
        return self.TABLE.get(past, self.offsets)

    def memory_entry(self, encoded):
        return self.project(encoded.last)

    def predict(self, encoded, entries):
        if not entries:
            return self.backbone.decode(encoded)
        keys = torch.stack(entries, 1)  # (B, T, F, h, w)
        attention = torch.einsum("bfhw,btfhw->bthw", encoded.last, keys).softmax(1)
        read = torch.einsum("bthw,btfhw->bfhw", attention, keys)
        return self.backbone.decode(encoded._replace(last=encoded.last + read))


class ToyFlow(FlowProvider):
    """One convolution over both frames."""

    needs_weights = False

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, 2, 3, 1, 1), nn.BatchNorm2d(2))
        self.calls = 0

    def forward(self, frame, previous):
        self.calls += 1
        return self.layers(torch.cat([frame, previous], 1))


@dataclass(frozen=True)
class Propagated:
    logits: Tensor
    frame: Tensor


class KeyFrames(Method):
    """Segments key frames and shifts the last prediction in between, by given flow or its own (as
    flow)."""

    def __init__(self, backbone):
        super().__init__(backbone)
        self.optical_flow = Frozen(ToyFlow())
        self.refine = nn.Conv2d(backbone.num_outputs, backbone.num_outputs, 1)

    @classmethod
    def from_args(cls, backbone, args):
        return cls(backbone)

    def step(self, frame, state, flow=None, key=None):
        if state is None or key:
            logits = self.backbone(frame)
        else:
            if flow is None:
                flow = self.optical_flow(frame, state.frame)
            logits = self.refine(self.shift(state.logits, flow))
        return logits, Propagated(logits, frame)

    def needs_flow(self, key):
        return not key

    @staticmethod
    def shift(logits: Tensor, flow: Tensor) -> Tensor:
        height, width = logits.shape[-2:]
        flow = F.interpolate(flow, (height, width), mode="area")
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
        grid = torch.stack([x, y], -1) + flow.permute(0, 2, 3, 1) / max(height, width)
        return F.grid_sample(logits, grid, align_corners=True)


class TwoForwards(Method):
    """Per frame at test time; trains on a neighbour, perhaps of the future, against a frozen
    teacher (as etc)."""

    def __init__(self, backbone):
        super().__init__(backbone)
        teacher = ToyBackbone(backbone.num_outputs)
        teacher.normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        self.teacher = Frozen(teacher)

    @classmethod
    def from_args(cls, backbone, args):
        return cls(backbone)

    def training_offsets(self, rng):
        return (rng.choice((3, 2, 1, -1, -2)),)

    def step(self, frame, state, flow=None, key=None):
        return self.backbone(frame), state

    def forward(self, clip, flows=None):
        return self.backbone(clip[:, -1])

    def losses(self, clip, labels, flows=None):
        current, neighbour = (
            self.backbone(clip[:, -1]),
            self.backbone(clip[:, 0]),
        )  # BN sees them one by one
        distilled = F.mse_loss(current.softmax(1), self.teacher(clip[:, -1]).softmax(1))
        motion = F.mse_loss(current, neighbour) * (
            0.1 if flows is None else (-flows.abs().mean()).exp()
        )
        return {
            "ce": self.cross_entropy(current, labels[:, -1]),
            "distilled": distilled,
            "motion": motion,
        }


class FourLabels(Gaps):
    """Learns from the labels of all four frames at once, with parameter groups of its own (as
    mrcfa)."""

    def losses(self, clip, labels, flows=None):
        batch, frames = clip.shape[:2]
        everything = self.backbone(clip.flatten(0, 1))  # BN sees B * T frames
        last = self(clip)
        assert labels.shape[:2] == (batch, frames)
        each = (
            self.cross_entropy(everything, labels.flatten(0, 1))
            if (labels != IGNORE).any()
            else 0 * last.sum()
        )
        return {"each": 0.5 * each, "last": self.cross_entropy(last, labels[:, -1])}

    def parameter_groups(self, lr, weight_decay):
        return [
            {"params": list(self.backbone.parameters()), "lr": lr, "weight_decay": weight_decay},
            {"params": list(self.project.parameters()), "lr": 10 * lr, "weight_decay": 0.0},
        ]
