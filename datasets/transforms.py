"""The geometry of a clip: resize, scale, rotate, flip, shift, crop and pad.

A transform takes a RawClip and a random.Random and returns a new RawClip. All frames, labels and flows of a clip
share one draw. Frames are resampled linearly, labels by nearest neighbour; a label that comes from outside the
frame is 255. Flows follow the frames: they are scaled, mirrored and rotated as vectors, and 0 outside.

interpolation: "pil" is Pillow's bilinear, antialiased when it shrinks (LMANet); "cv2" is OpenCV's (TMANet,
VSS-MRCFA, ETC), 13 to 21 times faster and needs OpenCV.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .clip import RawClip, Transform
from .labels import IGNORE
from .opencv import opencv

Size = tuple[int, int]
Array = Callable[[np.ndarray], np.ndarray]

MEAN = (124, 116, 104)  # the ImageNet mean: nearly 0 once normalised
REDRAWS = 10  # of a crop that shows too much of one class, in TMANet and VSS-MRCFA


def check(name: str, value, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown: choose {' or '.join(choices)}")


def size_of(clip: RawClip) -> Size:
    """(H, W) of the frames; ValueError where they differ, or a label or flow lies on another grid."""
    size = clip.frames[-1].shape[:2]
    arrays = [*clip.frames, *(label for label in clip.labels if label is not None)]
    shapes = {array.shape[:2] for array in arrays} | {flow.shape[1:] for flow in clip.flows or ()}
    if shapes != {size}:
        raise ValueError(
            f"the frames, labels and flows of a clip need one size (H, W), got {sorted(shapes)}"
        )
    return size


def each(clip: RawClip, frame: Array, label: Array, flow: Array) -> RawClip:
    """One function for every frame (H, W, 3), one for every label (H, W), one for every flow (2, H, W)."""
    return RawClip(
        [frame(array) for array in clip.frames],
        [None if array is None else label(array) for array in clip.labels],
        None if clip.flows is None else [flow(array) for array in clip.flows],
    )


def vectors(flow: np.ndarray, plane: Array, matrix: np.ndarray | None = None) -> np.ndarray:
    """flow (2, H, W): apply `plane` to both components, then the 2x2 `matrix` to every vector."""
    flow = np.stack([plane(component) for component in flow])
    return flow if matrix is None else np.einsum("ij,jyx->iyx", matrix, flow).astype(np.float32)


@dataclass(frozen=True)
class Compose:
    """Transforms one after another; they draw in this order."""

    transforms: Sequence[Transform]

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip


def resample(
    array: np.ndarray, size: Size, interpolation: str, nearest: bool = False
) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or float32 -> the same at `size`."""
    height, width = size
    if interpolation == "cv2":
        cv2 = opencv()
        return cv2.resize(
            array, (width, height), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        )
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(array).resize((width, height), method))


def resize(clip: RawClip, size: Size, interpolation: str, labels: bool = True) -> RawClip:
    """Frames and flows, and with `labels` the labels, at size (H, W); the clip itself where it has that size."""
    check("interpolation", interpolation, ("pil", "cv2"))
    height, width = clip.frames[-1].shape[:2]
    if all(frame.shape[:2] == tuple(size) for frame in clip.frames):
        return clip
    stretch = np.diag([size[1] / width, size[0] / height])

    def image(array):
        return resample(array, size, interpolation)

    def label(array):
        return resample(array, size, interpolation, nearest=True) if labels else array

    return each(clip, image, label, lambda flow: vectors(flow, image, stretch))


@dataclass(frozen=True)
class Resize:
    """To size (H, W); with labels=False the labels keep their own size, as evaluation wants them."""

    size: Size
    interpolation: str = "pil"
    labels: bool = True

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        return resize(clip, self.size, self.interpolation, self.labels)


@dataclass(frozen=True)
class KeepRatio:
    """Into the box `bound` (H, W), itself scaled by a random ratio, without distortion (TMANet, VSS-MRCFA).

    The longer side of the frame is held against the longer side of the box, whatever their directions.
    """

    bound: Size
    ratio: tuple[float, float] = (1.0, 1.0)
    interpolation: str = "cv2"
    labels: bool = True

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        ratio = rng.uniform(*self.ratio)
        box, size = [int(side * ratio) for side in self.bound], clip.frames[-1].shape[:2]
        factor = min(max(box) / max(size), min(box) / min(size))
        return resize(clip, scaled(size, factor), self.interpolation, self.labels)


@dataclass(frozen=True)
class ToMultiple:
    """Stretch up to sides that are multiples of `multiple`, as VSS-MRCFA's evaluation does; labels stay."""

    multiple: int
    interpolation: str = "cv2"

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        height, width = (
            -(-side // self.multiple) * self.multiple for side in clip.frames[-1].shape[:2]
        )
        return resize(clip, (height, width), self.interpolation, labels=False)


@dataclass(frozen=True)
class RandomScale:
    """By a factor uniform in [low, high] (ETC)."""

    low: float
    high: float
    interpolation: str = "cv2"

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        return resize(
            clip, scaled(size_of(clip), rng.uniform(self.low, self.high)), self.interpolation
        )


def scaled(size: Size, factor: float) -> Size:
    """Both sides times `factor`, rounded, at least 1."""
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


@dataclass(frozen=True)
class RandomRotate:
    """About the centre by an angle uniform in [-degrees, degrees], with probability p (ETC: 10, 0.5)."""

    degrees: float
    p: float = 0.5
    fill: tuple[int, int, int] = MEAN

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if rng.random() >= self.p:
            return clip
        cv2 = opencv()
        height, width = size_of(clip)
        angle = rng.uniform(-self.degrees, self.degrees)
        matrix = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), angle, 1.0
        )  # old -> new position

        def warp(array, fill=0, method=cv2.INTER_LINEAR):
            return cv2.warpAffine(array, matrix, (width, height), flags=method, borderValue=fill)

        return each(
            clip,
            lambda frame: warp(frame, self.fill),
            lambda label: warp(label, IGNORE, cv2.INTER_NEAREST),
            lambda flow: vectors(flow, warp, matrix[:, :2]),
        )


@dataclass(frozen=True)
class RandomFlip:
    """Left to right, with probability p."""

    p: float = 0.5

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if rng.random() >= self.p:
            return clip

        def mirror(array):
            return np.ascontiguousarray(array[:, ::-1])

        return each(clip, mirror, mirror, lambda flow: vectors(flow, mirror, np.diag([-1, 1])))


@dataclass(frozen=True)
class RandomShift:
    """By whole pixels uniform in [-n, n], x drawn before y; frames are 0 where nothing moved in (LMANet: n = 2).

    border: what labels are there: "ignore" everywhere, or as LMANet was trained, "road": ignore at the left and
    top, but 0, which is the class road, at the right and bottom.
    """

    n: int
    border: str = "ignore"

    def __post_init__(self):
        check("border", self.border, ("ignore", "road"))

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        size_of(clip)
        x, y = rng.randint(-self.n, self.n), rng.randint(-self.n, self.n)

        def move(array, before=0, after=0):
            return slide(slide(array, x, 1, before, after), y, 0, before, after)

        after = IGNORE if self.border == "ignore" else 0
        return each(
            clip, move, lambda label: move(label, IGNORE, after), lambda flow: vectors(flow, move)
        )


def slide(array: np.ndarray, n: int, axis: int, before: int, after: int) -> np.ndarray:
    """Move by n along an axis; the strip set free gets the value `before` at the low end, `after` at the high end."""
    if n == 0:
        return array
    result = np.roll(array, n, axis)
    np.moveaxis(result, axis, 0)[slice(n) if n > 0 else slice(n, None)] = before if n > 0 else after
    return result


@dataclass(frozen=True)
class Pad:
    """Up to at least size (H, W): around the frame, or at its end only (right and bottom)."""

    size: Size
    where: str = "end"
    fill: tuple[int, int, int] = MEAN

    def __post_init__(self):
        check("padding", self.where, ("centre", "end"))

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        height, width = size_of(clip)
        new = max(self.size[0], height), max(self.size[1], width)
        if new == (height, width):
            return clip
        top, left = (
            ((new[0] - height) // 2, (new[1] - width) // 2) if self.where == "centre" else (0, 0)
        )

        def place(array, fill=0):
            canvas = np.full((*new, *array.shape[2:]), fill, array.dtype)
            canvas[top : top + height, left : left + width] = array
            return canvas

        return each(
            clip,
            lambda frame: place(frame, self.fill),
            lambda label: place(label, IGNORE),
            lambda flow: vectors(flow, place),
        )


@dataclass(frozen=True)
class RandomCrop:
    """A window of size (H, W), every position equally likely.

    max_ratio: draw again, up to 10 times, until the last frame's window shows two classes and none of them on that
    share of its labelled pixels (TMANet, VSS-MRCFA: 0.75). pad: where to pad a smaller frame, "centre" (ETC) or
    "end"; None cuts the window short, and Pad may follow, which TMANet and VSS-MRCFA do after all else.
    """

    size: Size
    max_ratio: float | None = None
    pad: str | None = "end"
    fill: tuple[int, int, int] = MEAN

    def __post_init__(self):
        check("padding", self.pad or "end", ("centre", "end"))

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if self.pad is not None:
            clip = Pad(self.size, self.pad, self.fill)(clip, rng)
        window = self.draw(size_of(clip), rng)
        if self.max_ratio is not None and clip.labels[-1] is not None:
            for _ in range(REDRAWS):
                if mixed(clip.labels[-1][window], self.max_ratio):
                    break
                window = self.draw(size_of(clip), rng)

        def cut(array):
            return array[window]

        return each(clip, cut, cut, lambda flow: vectors(flow, cut))

    def draw(self, size: Size, rng: random.Random) -> tuple[slice, slice]:
        height, width = min(self.size[0], size[0]), min(self.size[1], size[1])
        top, left = rng.randint(0, size[0] - height), rng.randint(0, size[1] - width)
        return slice(top, top + height), slice(left, left + width)


def mixed(label: np.ndarray, max_ratio: float) -> bool:
    """Whether every class of label (H, W) has less than max_ratio <= 1 of its labelled pixels; so it shows two."""
    counts = np.bincount(label.ravel(), minlength=256)[:IGNORE]
    return bool(counts.max() < max_ratio * counts.sum())
