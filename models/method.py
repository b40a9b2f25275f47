"""The contract between a video segmentation method and the rest of the house.

Shapes, everywhere in this project:

    B clips, T frames (oldest first), H W image, h w feature map, F feature, C key, V value
    channels, K classes (channels of the logits), P side of a local window

Words: a *frame* is one image, a *clip* T frames whose last is the one to label, *logits* come
before softmax, *labels* are class ids, a *read* is what memory returns, *state* is what the next
frame needs.

A method is a network that labels the last frame of a clip and may look at the frames before it. It
does so in two ways that give the same numbers in eval mode (the Law, tests/laws.py):

    forward(clip) -> logits                           all frames at once
    start() -> state;  step(frame, state) -> logits, state      frame by frame, nothing kept on self

State is a value: a frozen dataclass or tuple of tensors, bounded in size, so two videos can be
stepped in turns and a new video begins with `start()`.

Flow, where a method wants it from outside: on the grid of a frame, pointing into the frame before
it in the clip, in pixels, channel 0 = x. In a clip, `flows[:, t - 1]` belongs to frame t.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .parts.losses import cross_entropy


class Method(nn.Module):
    """Base class, and the recurrent default.

    `forward` folds `observe` over the clip and steps the last frame. A subclass gives `from_args`,
    `step` and, if the default does not serve, anything else. Optional, for the dashboard:
    `attention(frame, state, yx) -> (T, h, w)`, where one pixel attends in each remembered frame.
    """

    # whether a read depends on all frames since the start of the video
    recurrent = True
    # whether `losses` may leave a trained parameter without a gradient
    has_unused_parameters = False
    # whether a CUDA graph can hold `step`: all of it runs on the device
    capturable = True
    # whether `losses` learns from the flow that clips bring
    wants_flows = False
    # whether it cannot do without: else it computes what clips do not bring
    needs_known_flows = True
    # whether `losses` takes the flow that clips bring instead of its own; None: it has none
    takes_flows: bool | None = None
    # side of frames that are small, but take every path of `step`
    probe_side = 32

    def __init__(self, backbone: nn.Module, offsets: tuple[int, ...] = ()):
        """offsets: which past frames a read uses, in frame steps of the data set.

        Oldest first: (-3, -2, -1).
        """
        super().__init__()
        if any(offset >= 0 for offset in offsets) or sorted(set(offsets)) != list(offsets):
            raise ValueError(
                f"offsets must be negative and rising (oldest first), got {tuple(offsets)}"
            )
        self.backbone = backbone
        self.offsets = tuple(offsets)
        # A buffer, so that it moves with the model; not persistent: it belongs to a run.
        self.register_buffer("class_weights", None, persistent=False)
        self.loss_options: dict[str, Any] = {}
        # Parts that keep their batch norm statistics while the rest trains.
        self.always_eval: list[nn.Module] = []

    @classmethod
    def from_args(cls, backbone: nn.Module, args) -> Method:
        """Build from parsed options; the only place of a method that sees them."""
        raise NotImplementedError(f"{cls.__name__} has no from_args")

    # What the method is

    @property
    def num_outputs(self) -> int:
        """Channels of the logits: the classes, and an "ignore" output where there is one."""
        return self.backbone.num_outputs

    @property
    def size_rule(self):
        """Which input sizes work (backbone.SizeRule); the engine pads to it."""
        return self.backbone.size_rule

    def training_offsets(self, rng: random.Random) -> tuple[int, ...]:
        """Frames of one training clip relative to the labelled one, in clip order.

        They may lie in the future.
        """
        return self.offsets

    def startup(self, past: int) -> tuple[int, ...]:
        """Which offsets a read uses when only `past` frames came before: those that exist.

        0 is the frame itself, for methods that begin a video by repeating its first frame.
        """
        return tuple(offset for offset in self.offsets if -offset <= past)

    # Frame by frame

    def start(self) -> Any:
        """The state of a video of which no frame was seen."""
        return None

    def step(
        self, frame: Tensor, state: Any, flow: Tensor | None = None, key: bool | None = None
    ) -> tuple[Tensor, Any]:
        """frame (B, 3, H, W) RGB in [0, 1], flow (B, 2, H, W) -> logits (B, K, h, w), state.

        Logits are at the network's own resolution. key: whether this is a key frame, for methods
        that distinguish; None leaves it to the method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def needs_flow(self, key: bool | None) -> bool:
        """Whether `step` would use flow for such a frame; others need not compute it."""
        return False

    def observe(
        self, frame: Tensor, state: Any, flow: Tensor | None = None, key: bool | None = None
    ) -> Any:
        """`step` for its state alone; a method whose decoding is separate saves it here."""
        return self.step(frame, state, flow, key)[1]

    # A clip at once

    def forward(self, clip: Tensor, flows: Tensor | None = None) -> Tensor:
        """clip (B, T, 3, H, W), flows (B, T-1, 2, H, W) -> logits (B, K, h, w) of the last frame.

        The first frame of the clip is a key frame, the others are not.
        """
        state = self.start()
        for t, frame in enumerate(clip.unbind(1)):
            flow = flows[:, t - 1] if t and flows is not None else None
            key = t == 0
            if t < clip.shape[1] - 1:
                state = self.observe(frame, state, flow, key)
        logits, _ = self.step(frame, state, flow, key)
        return logits

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """logits (B, K, h, w) -> (B, K, *size), bilinear.

        align_corners is the one that this network was published with.
        """
        if logits.shape[-2:] == tuple(size):
            return logits
        return F.interpolate(
            logits, size=tuple(size), mode="bilinear", align_corners=self.backbone.align_corners
        )

    # Training

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        # nn.Module.train has just put these into training mode as well.
        for part in self.always_eval:
            part.eval()
        return self

    def losses(
        self, clip: Tensor, labels: Tensor, flows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named, weighted scalars: cross entropy of the last frame.

        clip (B, T, 3, H, W); labels (B, T, H, W) int64, 255 where a pixel or a whole frame has
        none.
        """
        return {"ce": self.cross_entropy(self(clip, flows), labels[:, -1])}

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits (B, K, h, w), labels (B, H, W) -> scalar.

        Under the class weights and loss options of this run.
        """
        if self.backbone.loss_at_logits:
            # interpolate takes no integers; float64 holds every label exactly
            maps = labels[:, None].double()  # (B, 1, H, W)
            small = F.interpolate(maps, logits.shape[-2:], mode="nearest-exact")
            labels = small[:, 0].long()
        logits = self.upsample(logits, labels.shape[-2:])
        return cross_entropy(logits, labels, self.class_weights, **self.loss_options)

    def with_auxiliary(
        self, loss: Tensor, features, labels: Tensor, weight: float
    ) -> dict[str, Tensor]:
        """{"ce": loss} and, where the backbone has an auxiliary head, "aux" times `weight`."""
        terms = {"ce": loss}
        logits = self.backbone.auxiliary(features) if weight else None
        if logits is not None:
            terms["aux"] = weight * self.cross_entropy(logits, labels)
        return terms

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """What the optimizer gets; default: one group of all that require grad."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [{"params": trained, "lr": lr, "weight_decay": weight_decay}]

    def training_parts(self) -> list[nn.Module]:
        """The modules that only `losses` uses."""
        return self.backbone.auxiliary_parts()

    # Weights

    def follow_keys(self, keys: Collection[str]) -> None:
        """Become the variant that a file with these keys is of."""
        self.backbone.follow_keys(keys)

    def key_maps(self) -> list:
        """Published checkpoints this network reads (models.keymaps.KeyMap), besides its own."""
        return self.backbone.key_maps()


def split_rates(
    model: nn.Module,
    parts: Iterable[tuple[Iterable[nn.Parameter], float]],
    lr: float,
    factor: float,
    weight_decay: float,
) -> list[dict]:
    """Parameter groups of all that is trained.

    Each of `parts` learns at lr times its factor, all others at lr * factor. Of a parameter that
    stands in several parts the last one counts. Weight decay leaves alone what the backbone says.
    """
    rates = {id(p): lr * share for parameters, share in parts for p in parameters}
    undecayed = {id(p) for p in model.backbone.undecayed()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            rate = rates.get(id(p), lr * factor)
            decay = 0.0 if id(p) in undecayed else weight_decay
            groups.setdefault((rate, decay), []).append(p)
    return [
        {"params": params, "lr": rate, "weight_decay": decay}
        for (rate, decay), params in groups.items()
    ]


def drawn_offsets(rng: random.Random, frames: int, window: int) -> tuple[int, ...]:
    """So many of the last `window` frames, oldest first.

    The memory of a training clip under --memory-strategy random.
    """
    return tuple(sorted(rng.sample(range(-window, 0), frames)))


@dataclass(frozen=True)
class History:
    """What the last frames left behind, oldest first."""

    entries: tuple = ()

    def push(self, entry: Any, size: int) -> History:
        """A new history of at most `size` entries."""
        if size == 0:
            return History()
        return History((*self.entries, entry)[-size:])


class WindowMethod(Method):
    """A method that reads a window of past frames.

    What a frame leaves behind depends on that frame alone. A subclass says what to compute from a
    frame (`encode`), what to keep of it (`memory_entry`), and how to label a frame given what
    others left behind (`predict`); `step` and `forward` follow.
    """

    recurrent = False

    def encode(self, frame: Tensor) -> Any:
        """frame (B, 3, H, W) -> whatever `memory_entry` and `predict` need of it."""
        return self.backbone.encode(frame)

    def memory_entry(self, encoded: Any) -> Any:
        """What later frames may read: the encoded frame itself, if not less."""
        return encoded

    def predict(self, encoded: Any, entries: tuple) -> Tensor:
        """Label one frame given the entries of earlier ones -> logits (B, K, h, w).

        entries: of 0 to len(offsets) frames, oldest first.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def start(self) -> History:
        return History()

    @property
    def reach(self) -> int:
        """How many frames back the oldest offset lies."""
        return -min(self.offsets, default=0)

    def select_entries(self, state: History, entry: Any = None) -> tuple:
        """The entries that the next frame reads after `state`, oldest first.

        entry: its own, for methods whose `startup` names the frame itself (offset 0).
        """
        past = len(state.entries)
        known = (*state.entries, entry)
        return tuple(known[past + offset] for offset in self.startup(past))

    def step(self, frame, state, flow=None, key=None):
        encoded = self.encode(frame)
        entry = self.memory_entry(encoded)
        logits = self.predict(encoded, self.select_entries(state, entry))
        return logits, state.push(entry, self.reach)

    def observe(self, frame, state, flow=None, key=None):
        return state.push(self.memory_entry(self.encode(frame)), self.reach)

    def forward(self, clip, flows=None):
        """The clip's frames are the entries, whatever their distance in time."""
        *past, last = clip.unbind(1)
        entries = tuple(self.memory_entry(self.encode(frame)) for frame in past)
        return self.predict(self.encode(last), entries)
