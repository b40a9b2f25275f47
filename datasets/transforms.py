"""The geometry of a clip: resize, scale, rotate, flip, shift, crop and pad.

A transform takes a RawClip and a random.Random and returns a new RawClip. All frames, labels and
flows of a clip share one draw. Frames are resampled linearly, labels by nearest neighbour; a label
that comes from outside the frame is 255. Flows follow the frames: they are scaled, mirrored and
rotated as vectors, and 0 outside.

interpolation: "pil" is Pillow's bilinear, antialiased when it shrinks (LMANet); "cv2" is OpenCV's
(TMANet, VSS-MRCFA, ETC), 13 to 21 times faster and needs OpenCV.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .clip import RawClip, Transform
from .labels import IGNORE
from .opencv import opencv

Size = tuple[int, int]  # (H, W)
Array = Callable[[np.ndarray], np.ndarray]

MEAN = (124, 116, 104)  # the ImageNet mean: nearly 0 once normalised
REDRAWS = 10  # of a crop that shows too much of one class, in TMANet and VSS-MRCFA


def check(name: str, value: str, choices: Collection[str]) -> None:
    """ValueError where a value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown: choose {' or '.join(choices)}")


def size_of(clip: RawClip) -> Size:
    """(H, W) of the frames.

    ValueError where frames differ in size, or a label or flow lies on another grid.
    """
    size = clip.frames[-1].shape[:2]
    sizes = {frame.shape[:2] for frame in clip.frames}
    sizes |= {label.shape for label in clip.labels if label is not None}
    sizes |= {flow.shape[1:] for flow in clip.flows or ()}
    if sizes != {size}:
        raise ValueError(
            f"the frames, labels and flows of a clip need one size (H, W), got {sorted(sizes)}"
        )
    return size


def each(clip: RawClip, frame: Array, label: Array, flow: Array) -> RawClip:
    """One function for every frame (H, W, 3), one for every label (H, W), one for every flow."""
    frames = [frame(array) for array in clip.frames]
    labels = [None if array is None else label(array) for array in clip.labels]
    flows = None
    if clip.flows is not None:
        flows = [flow(array) for array in clip.flows]
    return RawClip(frames, labels, flows)


def vectors(flow: np.ndarray, plane: Array, matrix: np.ndarray | None = None) -> np.ndarray:
    """flow (2, H, W): apply `plane` to both components, then the 2x2 `matrix` to every vector."""
    flow = np.stack([plane(component) for component in flow])
    if matrix is None:
        return flow
    # NumPy computes with the float64 of the matrix
    return np.einsum("ij,jyx->iyx", matrix, flow).astype(np.float32)


@dataclass(frozen=True)
class Compose:
    """Transforms one after another; they draw in this order."""

    transforms: Sequence[Transform]

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip


def resample_pil(array: np.ndarray, size: Size, nearest: bool) -> np.ndarray:
    """`resample` by Pillow, which takes (width, height)."""
    height, width = size
    method = Image.Resampling.BILINEAR
    if nearest:
        method = Image.Resampling.NEAREST
    return np.array(Image.fromarray(array).resize((width, height), method))


def resample_cv2(array: np.ndarray, size: Size, nearest: bool) -> np.ndarray:
    """`resample` by OpenCV, which takes (width, height)."""
    cv2 = opencv()
    height, width = size
    method = cv2.INTER_LINEAR
    if nearest:
        method = cv2.INTER_NEAREST
    return cv2.resize(array, (width, height), interpolation=method)


RESAMPLE = {"pil": resample_pil, "cv2": resample_cv2}


def resample(
    array: np.ndarray, size: Size, interpolation: str, nearest: bool = False
) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or float32 -> the same at `size`."""
    return RESAMPLE[interpolation](array, size, nearest)


def resize(clip: RawClip, size: Size, interpolation: str, labels: bool = True) -> RawClip:
    """Frames and flows, and with `labels` the labels, at size (H, W).

    The clip itself where its frames have that size. ValueError: unknown interpolation.
    """
    check("interpolation", interpolation, RESAMPLE)
    height, width = clip.frames[-1].shape[:2]
    if all(frame.shape[:2] == tuple(size) for frame in clip.frames):
        return clip
    # flow vectors grow with the frame, x before y
    stretch = np.diag([size[1] / width, size[0] / height])

    def image(array):
        return resample(array, size, interpolation)

    def label(array):
        if not labels:
            return array
        return resample(array, size, interpolation, nearest=True)

    return each(clip, image, label, lambda flow: vectors(flow, image, stretch))


@dataclass(frozen=True)
class Resize:
    """To size (H, W); with labels=False, as evaluation wants, the labels keep their own size."""

    size: Size
    interpolation: str = "pil"
    labels: bool = True

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        return resize(clip, self.size, self.interpolation, self.labels)


@dataclass(frozen=True)
class KeepRatio:
    """Into the box `bound` (H, W) without distortion, the box scaled by a random ratio first.

    As in TMANet and VSS-MRCFA, the longer side of the frame is fitted to the longer side of the
    box, whatever their directions.
    """

    bound: Size
    ratio: tuple[float, float] = (1.0, 1.0)
    interpolation: str = "cv2"
    labels: bool = True

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        ratio = rng.uniform(*self.ratio)
        # truncated, as published
        box = [int(side * ratio) for side in self.bound]
        size = clip.frames[-1].shape[:2]
        factor = min(max(box) / max(size), min(box) / min(size))
        return resize(clip, scaled(size, factor), self.interpolation, self.labels)


@dataclass(frozen=True)
class ToMultiple:
    """Stretch up to sides that are multiples of `multiple`, as VSS-MRCFA's evaluation does.

    Labels keep their size.
    """

    multiple: int
    interpolation: str = "cv2"

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        height, width = clip.frames[-1].shape[:2]
        size = (self.round_up(height), self.round_up(width))
        return resize(clip, size, self.interpolation, labels=False)

    def round_up(self, side: int) -> int:
        return -(-side // self.multiple) * self.multiple


@dataclass(frozen=True)
class RandomScale:
    """By a factor uniform in [low, high] (ETC)."""

    low: float
    high: float
    interpolation: str = "cv2"

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        size = size_of(clip)
        factor = rng.uniform(self.low, self.high)
        return resize(clip, scaled(size, factor), self.interpolation)


def scaled(size: Size, factor: float) -> Size:
    """Both sides times `factor`, rounded, at least 1."""
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    return height, width


@dataclass(frozen=True)
class RandomRotate:
    """About the centre by an angle uniform in [-degrees, degrees], with probability p.

    ETC: 10 degrees, 0.5.
    """

    degrees: float
    p: float = 0.5
    fill: tuple[int, int, int] = MEAN

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if rng.random() >= self.p:
            return clip
        cv2 = opencv()
        height, width = size_of(clip)
        angle = rng.uniform(-self.degrees, self.degrees)
        # of the pixel positions 0..width-1: the centre of the frame stays where it is
        centre = ((width - 1) / 2, (height - 1) / 2)
        matrix = cv2.getRotationMatrix2D(centre, angle, 1.0)  # (2, 3) old -> new position

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
            # a copy, because neither torch nor OpenCV takes negative strides
            return np.ascontiguousarray(array[:, ::-1])

        negate_x = np.diag([-1, 1])
        return each(clip, mirror, mirror, lambda flow: vectors(flow, mirror, negate_x))


# what labels are at the right and bottom of a shifted frame, where nothing moved in
BORDERS = {"ignore": IGNORE, "road": 0}


@dataclass(frozen=True)
class RandomShift:
    """By whole pixels uniform in [-n, n], x drawn before y (LMANet: n = 2).

    Frames are 0 where nothing moved in. border: what labels are there: "ignore" everywhere, or
    "road", as LMANet was trained: ignore at the left and top, but 0, which is the class road, at
    the right and bottom.
    """

    n: int
    border: str = "ignore"

    def __post_init__(self):
        check("border", self.border, BORDERS)

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        # a clip of several sizes is an error, whatever is drawn
        size_of(clip)
        x = rng.randint(-self.n, self.n)
        y = rng.randint(-self.n, self.n)

        def move(array, before=0, after=0):
            moved = slide(array, x, 1, before=before, after=after)
            return slide(moved, y, 0, before=before, after=after)

        def move_label(label):
            return move(label, IGNORE, BORDERS[self.border])

        return each(clip, move, move_label, lambda flow: vectors(flow, move))


def slide(array: np.ndarray, n: int, axis: int, *, before: int, after: int) -> np.ndarray:
    """Move by n along an axis.

    The strip that becomes free gets the value `before` at the low end, `after` at the high end.
    """
    if n == 0:
        return array
    result = np.roll(array, n, axis)
    # a view, so that writing to it fills the result
    lines = np.moveaxis(result, axis, 0)
    if n > 0:
        lines[:n] = before
    else:
        lines[n:] = after
    return result


# of the rows or columns that are added: how many come before the frame
PLACES = {"centre": lambda added: added // 2, "end": lambda added: 0}


@dataclass(frozen=True)
class Pad:
    """Up to at least size (H, W): around the frame, or at its end only (right and bottom)."""

    size: Size
    where: str = "end"
    fill: tuple[int, int, int] = MEAN

    def __post_init__(self):
        check("padding", self.where, PLACES)

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        height, width = size_of(clip)
        new_height = max(self.size[0], height)
        new_width = max(self.size[1], width)
        if (new_height, new_width) == (height, width):
            return clip
        top = PLACES[self.where](new_height - height)
        left = PLACES[self.where](new_width - width)

        def place(array, fill=0):
            canvas = np.full((new_height, new_width, *array.shape[2:]), fill, array.dtype)
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

    max_ratio: draw again, up to 10 times, until the last frame's window shows two classes and none
    of them on that share of its labelled pixels (TMANet, VSS-MRCFA: 0.75). pad: where to pad a
    smaller frame, "centre" (ETC) or "end"; with None the window is cut short, and Pad may follow,
    which TMANet and VSS-MRCFA do after all other transforms.
    """

    size: Size
    max_ratio: float | None = None
    pad: str | None = "end"
    fill: tuple[int, int, int] = MEAN

    def __post_init__(self):
        if self.pad is not None:
            check("padding", self.pad, PLACES)

    def __call__(self, clip: RawClip, rng: random.Random) -> RawClip:
        if self.pad is not None:
            clip = Pad(self.size, self.pad, self.fill)(clip, rng)
        window = self.draw_mixed(clip, rng)

        def cut(array):
            return array[window]

        return each(clip, cut, cut, lambda flow: vectors(flow, cut))

    def draw_mixed(self, clip: RawClip, rng: random.Random) -> tuple[slice, slice]:
        """A window that shows a mixture of classes, if max_ratio asks for it and 11 draws do it."""
        size = size_of(clip)
        label = clip.labels[-1]
        window = self.draw(size, rng)
        if self.max_ratio is None or label is None:
            return window
        for _ in range(REDRAWS):
            if mixed(label[window], self.max_ratio):
                break
            window = self.draw(size, rng)
        return window

    def draw(self, size: Size, rng: random.Random) -> tuple[slice, slice]:
        """Rows and columns of a window in a frame of size (H, W)."""
        height = min(self.size[0], size[0])
        width = min(self.size[1], size[1])
        top = rng.randint(0, size[0] - height)
        left = rng.randint(0, size[1] - width)
        return slice(top, top + height), slice(left, left + width)


def mixed(label: np.ndarray, max_ratio: float) -> bool:
    """Whether no class of label (H, W) has max_ratio <= 1 or more of its labelled pixels.

    So it shows at least two classes; a label without a labelled pixel is not mixed.
    """
    counts = np.bincount(label.ravel(), minlength=256)[:IGNORE]
    return bool(counts.max() < max_ratio * counts.sum())
