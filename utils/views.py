"""The views of a clip that a network sees at test time, as one object.

    frames -- scale, border --> canvas -- window, mirror, pad --> network
    network -- un-pad, un-mirror --> scores of the window -- sum / cover count --> canvas
    canvas -- un-border, resize --> mean over canvases --> scores

A *pass* is one run of the network on one view: one window of one canvas. A *canvas* is the clip at
one scale, seen one way round; without `crop` its only window is all of it. Passes are numbered
scale by scale (in the order given), as it is and then mirrored, windows row by row; the numbers
depend on the frames' size alone, so a caller that steps a video keeps one state per number. What
the options mean, exactly:

padding   each view is padded at the right and the bottom to the sides that `size_rule.fit` gives,
          by repeating its edge (after mirroring, so the network sees a mirrored image as it would
          see that image in a file); the logits of the padding are cropped off.
scales    frames are resized, bilinear with half-pixel centres and without antialiasing, to a long
          side of round(scale * long) and a short side of round(new long / long * short). The
          published recipes resize the image as float, never rounded to uint8. Scores are resized
          back to (H, W), bilinear: probabilities with half-pixel centres (semseg does it by
          OpenCV), logits with the network's `align_corners` (TMANet).
crop      windows of (height, width) every `stride` (default ceil(crop * 2 / 3)):
          ceil((side - crop) / stride) + 1 of them along a side, the last shifted back inside.
          Where windows overlap, scores are summed and divided by the number of windows that cover
          the pixel.
small     what to do where the scaled image is smaller than the crop. "pad": the image lies on a
          canvas of the crop's size, half of the missing pixels (rounded down) before it, the rest
          behind, filled with `fill`, and this border's scores are cropped off (semseg, ETC).
          "whole": that side of the window is the whole side (TMANet).
average   "probabilities": the softmax of each pass is averaged over windows and resized, then
          averaged over scales and mirroring; a mirrored pass sees the same window as the pass
          before it, mirrored (semseg, ETC). "logits": logits are averaged over windows and
          resized; only where there are several canvases their softmaxes are taken, at (H, W), and
          averaged; the windows of a mirrored pass are laid out on the mirrored image (TMANet's
          slide and aug test).

Sources: specs of ETC (semseg's sliding evaluation) and of TMANet (slide, aug test).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
AVERAGES = ("probabilities", "logits")
SMALL = ("pad", "whole")
PLANS = 16  # sizes whose plan a Views keeps

Size = tuple[int, int]
Network = Callable[[int, Tensor], Tensor]


class Rule(Protocol):
    """Which sides a network takes (models.backbones.backbone.SizeRule)."""

    def fit(self, side: int) -> int:
        """The smallest side >= `side` that works."""


class Window(NamedTuple):
    """A rectangle of a canvas, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """image (..., H, W) -> its part (..., height, width), a view of the same memory."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


class Canvas(NamedTuple):
    """The clip at one scale, seen one way round."""

    size: Size  # (H, W) of the canvas
    # where the scaled frames lie on it: everywhere, unless they are smaller than a crop
    image: Window
    mirrored: bool
    # one pass each, in the coordinates of the canvas before mirroring
    windows: tuple[Window, ...]

    @property
    def bordered(self) -> bool:
        return self.size != (self.image.height, self.image.width)


class Views:
    """How a network sees a clip at test time; see the module's docstring for what each option
    means."""

    def __init__(
        self,
        size_rule: Rule,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        crop: Size | None = None,
        stride: Size | None = None,
        average: str = "probabilities",
        small: str = "pad",
        fill: tuple[float, float, float] = IMAGENET_MEAN,
        align_corners: bool = False,
        merge: Callable[[Tensor], Tensor] | None = None,
    ):
        """crop, stride: (height, width). fill: RGB of the border around a small image, on the scale
        of the frames (the mean that the network subtracts). align_corners: of resizing logits back
        from a scale. merge: logits -> logits of other classes (merging.Merging).
        """
        _check(scales, crop, stride, average, small)
        self.size_rule = size_rule
        self.scales = tuple(scales)
        self.flip = flip
        self.crop = crop
        self.average = average
        self.small = small
        self.stride = stride or (crop and tuple(-(-2 * side // 3) for side in crop))
        self.fill = tuple(fill)
        self.merge = merge or unmerged
        self.align_corners = align_corners and average == "logits"
        # A cache of its own per object: a cache on the method would keep every Views alive.
        self._plans = lru_cache(maxsize=PLANS)(lambda size: Plan(self, size))

    @property
    def single_pass(self) -> bool:
        """Whether the scores are the network's logits, whatever the size.

        That is without mirroring, scales and windows.
        """
        return self.scales == (1.0,) and not self.flip and self.crop is None

    def plan(self, size: Size) -> Plan:
        """The passes over frames of `size` (H, W); the last few sizes are kept."""
        return self._plans((int(size[0]), int(size[1])))

    def canvases(self, size: Size) -> tuple[Canvas, ...]:
        """One canvas per scale and way round for frames of `size` (H, W), as passes are ordered."""
        ways = (False, True) if self.flip else (False,)
        return tuple(
            self._canvas(_scaled(size, scale), mirrored)
            for scale in self.scales
            for mirrored in ways
        )

    def _canvas(self, scaled: Size, mirrored: bool) -> Canvas:
        size = scaled
        if self.crop and self.small == "pad":
            size = (max(scaled[0], self.crop[0]), max(scaled[1], self.crop[1]))
        image = Window((size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2, *scaled)
        windows = self._windows(size)
        if mirrored and self.average == "logits":
            # the grid begins at the left of the mirrored image
            windows = tuple(w._replace(left=size[1] - w.left - w.width) for w in windows)
        return Canvas(size, image, mirrored, windows)

    def _windows(self, size: Size) -> tuple[Window, ...]:
        if self.crop is None:
            return (Window(0, 0, *size),)
        height, width = (min(crop, side) for crop, side in zip(self.crop, size, strict=True))
        tops, lefts = map(_starts, size, self.crop, self.stride)
        return tuple(Window(top, left, height, width) for top in tops for left in lefts)


class Plan:
    """The passes over frames of one size.

    passes: how many times `run` calls the network. probabilities: whether `run` gives probabilities
    (they sum to 1 over K) or logits: logits from a single pass at scale 1, and with
    average="logits" from a single canvas.
    """

    def __init__(self, views: Views, size: Size):
        if min(size) < 1:
            raise ValueError(f"frames need at least one pixel, got a size (H, W) of {size}")
        self.views = views
        self.size = size
        self.canvases = views.canvases(size)
        self.passes = sum(len(canvas.windows) for canvas in self.canvases)
        if views.average == "logits":
            self.probabilities = len(self.canvases) > 1
        else:
            self.probabilities = self.passes > 1 or self.canvases[0].image[2:] != size

    @torch.no_grad()
    def run(self, network: Network, frames: Tensor) -> Tensor:
        """frames (B, T, 3, H, W) -> scores (B, K, H, W): probabilities or logits, as
        `probabilities` says.

        network: (number of the pass, view (B, T, 3, h, w)) -> logits (B, K, h, w), at the view's
        own, padded size. Scores of several passes are float32; a single pass keeps the network's
        dtype. At any time at most one pass's logits are alive besides the sums. ValueError for
        frames or logits of another size.
        """
        if tuple(frames.shape[-2:]) != self.size:
            raise ValueError(
                f"this plan is for frames of {self.size}, got {tuple(frames.shape[-2:])}: "
                "ask Views.plan for the plan of that size"
            )
        total = None
        first = 0
        for canvas in self.canvases:
            total = _add(total, self._canvas_scores(canvas, first, network, frames))
            first += len(canvas.windows)
        if len(self.canvases) > 1:
            total.div_(len(self.canvases))
        return total

    def _canvas_scores(
        self, canvas: Canvas, first: int, network: Network, frames: Tensor
    ) -> Tensor:
        """The scores (B, K, H, W) of one canvas, at the frames' own size."""
        frames = self._lay_out(frames, canvas)
        if len(canvas.windows) == 1:
            scores = self._see(canvas, canvas.windows[0], first, network, frames)
        else:
            scores = None
            for number, window in enumerate(canvas.windows, first):
                seen = self._see(canvas, window, number, network, frames)
                scores = _paste(scores, canvas.size, window, seen)
                del seen  # or it would live on during the next pass
            scores.div_(_cover(canvas).to(scores.device))
        scores = resize_scores(canvas.image.of(scores), self.size, self.views.align_corners)
        if self.probabilities and self.views.average == "logits":
            scores = scores.softmax(1, dtype=torch.float32)
        return scores

    def _see(
        self, canvas: Canvas, window: Window, number: int, network: Network, frames: Tensor
    ) -> Tensor:
        """One pass: the scores (B, K, h, w) of one window."""
        view = window.of(frames)
        if canvas.mirrored:
            view = view.flip(-1)
        view = pad_edges(view, self.views.size_rule)
        logits = network(number, view)
        if logits.shape[-2:] != view.shape[-2:]:
            raise ValueError(
                f"logits of a view of {tuple(view.shape[-2:])} must have its size, got "
                f"{tuple(logits.shape[-2:])}: upsample them first"
            )
        # The padding lies at the right of the mirrored view: off with it before turning back.
        logits = logits[..., : window.height, : window.width]
        if canvas.mirrored:
            logits = logits.flip(-1)
        if self.probabilities and self.views.average == "probabilities":
            return logits.softmax(1, dtype=torch.float32)
        return logits

    def _lay_out(self, frames: Tensor, canvas: Canvas) -> Tensor:
        """frames (B, T, 3, H, W) -> the canvas (B, T, 3, *canvas.size)."""
        scaled = canvas.image[2:]
        if scaled != self.size:
            images = F.interpolate(
                frames.flatten(0, 1), size=scaled, mode="bilinear", align_corners=False
            )
            frames = images.unflatten(0, frames.shape[:2])
        if not canvas.bordered:
            return frames
        border = frames.new_tensor(self.views.fill).view(3, 1, 1)
        laid = border.repeat(*frames.shape[:2], 1, *canvas.size)  # (B, T, 3, H', W')
        canvas.image.of(laid).copy_(frames)
        return laid


def unmerged(logits: Tensor) -> Tensor:
    return logits


def pad_edges(frames: Tensor, size_rule: Rule) -> Tensor:
    """frames (B, T, C, H, W) -> (B, T, C, H', W') of sides that fit the rule.

    The edge is repeated at the right and the bottom.
    """
    height, width = frames.shape[-2:]
    below = size_rule.fit(height) - height
    right = size_rule.fit(width) - width
    if not (below or right):
        return frames
    # mode "replicate" takes four dimensions at most
    padded = F.pad(frames.flatten(0, 1), (0, right, 0, below), mode="replicate")
    return padded.unflatten(0, frames.shape[:2])


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """labels (B, H, W) -> (B, *size): the nearest pixel, the one Pillow takes."""
    rows, columns = (
        nearest(side, n).to(labels.device) for side, n in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def nearest(side: int, target: int) -> Tensor:
    """(target,) indices below `side`.

    Added up step by step as Pillow does: rounding decides where two are as near.
    """
    steps = torch.full((target,), side / target, dtype=torch.float64)
    steps[0] /= 2
    return steps.cumsum(0).long()


def resize_scores(scores: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """scores (B, K, h, w), logits or probabilities -> (B, K, *size), bilinear.

    Untouched where they have that size.
    """
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=align_corners)


def _check(scales, crop, stride, average, small) -> None:
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be one or more positive numbers, got {tuple(scales)}")
    for name, value, choices in (("average", average, AVERAGES), ("small", small, SMALL)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if stride and not crop:
        raise ValueError(f"a stride of {tuple(stride)} needs a crop: give both or neither")
    if crop and min(crop) < 1:
        raise ValueError(f"the crop must be at least 1 x 1, got {tuple(crop)}")
    if stride and not all(1 <= step <= side for step, side in zip(stride, crop, strict=True)):
        raise ValueError(
            f"the stride must be from 1 to the crop {tuple(crop)}, or pixels are left out; "
            f"got {tuple(stride)}"
        )


def _scaled(size: Size, scale: float) -> Size:
    """(H, W) times the scale.

    The long side is rounded first and the short side follows it, as semseg does.
    """
    long = max(round(scale * max(size)), 1)
    return tuple(max(round(long / max(size) * side), 1) for side in size)


def _starts(side: int, crop: int, stride: int) -> list[int]:
    """Where the windows along one side begin."""
    last = max(side - crop, 0)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]


def _cover(canvas: Canvas) -> Tensor:
    """How many windows cover each pixel: (H, W) float32."""
    counts = torch.zeros(canvas.size)
    for window in canvas.windows:
        window.of(counts).add_(1)
    return counts


def _paste(total: Tensor | None, size: Size, window: Window, scores: Tensor) -> Tensor:
    """Add the scores of a window to the sums of its canvas, float32."""
    if total is None:
        total = scores.new_zeros((*scores.shape[:2], *size), dtype=torch.float32)
    window.of(total).add_(scores)
    return total


def _add(total: Tensor | None, scores: Tensor) -> Tensor:
    """The sum, in the memory of the first addend."""
    if total is None:
        return scores
    return total.add_(scores)
