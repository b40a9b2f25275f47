"""At which size a network sees the frames of a video, and what is odd about it.

--work-size is taken as it is. A size that weights bring says at which scale they know objects: a
frame of another shape gets as many pixels and keeps its shape. Without either a frame stays as it
is, unless it is larger than those of Cityscapes: then it is slow, and weights know no such scale.
"""

from __future__ import annotations

import math
from argparse import Namespace
from random import Random

import numpy as np

from datasets.clip import RawClip
from datasets.pipeline import work_steps
from datasets.transforms import Compose, resample

LARGEST = 1024 * 2048  # pixels
ALIKE = 1.03  # shapes that differ by less are one
STEP = 32  # most networks take sides of so many pixels without padding

Size = tuple[int, int]  # (H, W)


class WorkSize:
    """Brings images to the size that the network works at."""

    def __init__(self, args):
        self.size = args.work_size
        self.exact = args.exact_work_size
        self.interpolation = args.interpolation
        # --work-box and --stretch keep or nearly keep the shape of any frame.
        box = None if args.work_size else args.work_box
        self.boxed = box is not None
        others = Namespace(**{**vars(args), "work_size": None, "work_box": box})
        self.steps = Compose(work_steps(others, labels=False))

    def of(self, size: Size) -> Size:
        """The size that a frame of `size` is resized to, before --work-box and --stretch."""
        if self.boxed:
            return size
        if self.size is None:
            return size if math.prod(size) <= LARGEST else as_many_pixels(size, LARGEST)
        if self.exact or alike(size, self.size):
            return self.size
        return as_many_pixels(size, math.prod(self.size))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image (H, W, 3) uint8 -> the same at working size."""
        size = self.of(image.shape[:2])
        if size != image.shape[:2]:
            image = resample(image, size, self.interpolation)
        if not self.steps.transforms:
            return image
        return self.steps(RawClip([image], [None], None), Random(0)).frames[0]

    def note(self, size: Size) -> str | None:
        """That frames of `size` are seen at another one that nobody has asked for."""
        work = self.of(size)
        if self.exact or work in (size, self.size):
            return None
        return (
            f"frames of {size[0]}x{size[1]} (HxW) are labelled at {work[0]}x{work[1]}, and the "
            "labels enlarged: --work-size H W chooses another size"
        )


def alike(size: Size, other: Size) -> bool:
    """Whether two sizes have nearly the same shape."""
    ratio = (size[0] / size[1]) / (other[0] / other[1])
    return max(ratio, 1 / ratio) < ALIKE


def as_many_pixels(size: Size, pixels: int) -> Size:
    """(H, W) of the shape of `size` with about so many pixels."""
    scale = math.sqrt(pixels / math.prod(size))
    height, width = (max(round(scale * side / STEP), 1) * STEP for side in size)
    return height, width


def size_warnings(args, height: int, width: int) -> list[str]:
    """What is odd about --work-size and --eval-crop for frames of this size."""
    found = []
    if args.work_size:
        high, wide = args.work_size
        if (high > wide) != (height > width) and high != wide and height != width:
            found.append(
                f"--work-size {high} {wide} is height, width; the frames are {height}x{width} "
                f"(HxW): did you mean --work-size {wide} {high}?"
            )
        height, width = args.work_size
    if args.eval_crop and (args.eval_crop[0] > height or args.eval_crop[1] > width):
        high, wide = args.eval_crop
        found.append(
            f"--eval-crop {high} {wide} is larger than the frames, {height}x{width} (HxW): it cuts "
            "nothing there"
        )
    return found
