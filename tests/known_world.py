"""A clip in which the colour of each pixel says which point of a plane it shows."""

import numpy as np

from datasets.clip import RawClip

H = 64
W = 96
CELL = 16  # pixels: side of the squares that have one class each
COLUMNS = W // CELL


def cells(world):
    """World position (..., 2) -> class id (...) of the cell it lies in."""
    x, y = np.moveaxis((world // CELL).astype(int), -1, 0)
    return np.clip(x + COLUMNS * y, 0, 254)


def world_clip(length=3):
    """A clip whose last frame shows the world unmoved, with flow that is known everywhere.

    Colours: red 2x, green 3y, blue 255 where a pixel shows the world. The motion is affine: from
    each frame, v(p) = A p + b into the frame before. So a frame one step older shows at p what the
    next frame shows at the point that moves to p.
    """
    matrix = np.array([[0.03, -0.02], [0.04, 0.01]])
    shift = np.array([7.0, -6.0])
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(float)  # (H, W, 2), x first
    inverse = np.linalg.inv(np.eye(2) + matrix).T

    frames = []
    world = grid
    for _ in range(length):
        frames.insert(0, draw(world))
        world = (world - shift) @ inverse

    flow = (grid @ matrix.T + shift).transpose(2, 0, 1).astype(np.float32)
    labels = [None] * (length - 1) + [cells(grid).astype(np.uint8)]
    return RawClip(frames, labels, [flow] * (length - 1))


def draw(world):
    """World positions (H, W, 2) -> the frame (H, W, 3) uint8 that shows them, black outside."""
    blue = np.full((H, W, 1), 255.0)
    colour = np.concatenate([world * (2, 3), blue], -1)
    inside = ((colour >= 0) & (colour <= 255)).all(-1, keepdims=True)
    return np.where(inside, np.round(colour), 0).astype(np.uint8)


def decode(frame):
    """Frame -> world positions (H, W, 2) and where the pixel shows the world and nothing else."""
    return frame[..., :2] / np.array([2.0, 3.0]), frame[..., 2] == 255
