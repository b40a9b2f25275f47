"""A clip whose every pixel knows where in the world it is."""

import numpy as np

from datasets.clip import RawClip

H, W, CELL = 64, 96, 16


def cells(world):
    """World position (..., 2) -> class id of the 16x16 cell it lies in."""
    x, y = (world // CELL).astype(int).transpose(-1, *range(world.ndim - 1))
    return np.clip(x + 6 * y, 0, 254)


def world_clip(length=3):
    """A clip whose every pixel knows where in the world it is: red 2x, green 3y, blue 255 = is in
    the world.

    The motion is affine, so its flow is known everywhere: from frame t, v(p) = A p + b into frame
    t-1.
    """
    a, b = np.array([[0.03, -0.02], [0.04, 0.01]]), np.array([7.0, -6.0])
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(float)  # (H, W, 2), x first
    world, frames = grid, []
    for _ in range(length):
        colour = np.concatenate([world * (2, 3), np.full((H, W, 1), 255.0)], -1)
        inside = ((colour >= 0) & (colour <= 255)).all(-1, keepdims=True)
        frames.insert(0, np.where(inside, np.round(colour), 0).astype(np.uint8))
        back = np.linalg.inv(np.eye(2) + a)
        world = (world - b) @ back.T if len(frames) == 1 else ((grid - b) @ back.T - b) @ back.T
    flow = (grid @ a.T + b).transpose(2, 0, 1).astype(np.float32)
    return RawClip(
        frames, [None] * (length - 1) + [cells(grid).astype(np.uint8)], [flow] * (length - 1)
    )


def decode(frame):
    """Frame -> world positions (H, W, 2) and where the pixel shows the world and nothing else."""
    return frame[..., :2] / np.array([2.0, 3.0]), frame[..., 2] == 255
