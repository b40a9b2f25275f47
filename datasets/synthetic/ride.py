"""How the camera of a synthetic video moves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class Ride(NamedTuple):
    """The camera's path: forward at a constant speed, swaying and turning a little."""

    speed: float  # m/s
    lane: float  # X of the camera's lane
    height: float
    focal: float  # over the image width
    sway: np.ndarray  # (5, 3): amplitude, angular frequency, phase of x, y, yaw, pitch, roll
    yaw: float
    pitch: float

    @classmethod
    def draw(cls, rng: Generator, lane: float) -> Ride:
        period = rng.uniform([4, 0.5, 4, 0.7, 2], [9, 0.9, 9, 1.4, 5])
        amplitude = rng.uniform(0.2, 1, 5) * (0.35, 0.025, 0.09, 0.006, 0.008)
        sway = np.stack([amplitude, 2 * np.pi / period, rng.uniform(0, 2 * np.pi, 5)], 1)
        focal = 0.5 / np.tan(np.radians(rng.uniform(58, 78)) / 2)
        return cls(
            rng.uniform(2, 12),
            lane,
            rng.uniform(1.3, 2.1),
            focal,
            sway,
            rng.normal(0, 0.07),
            rng.uniform(-0.06, 0.01),
        )

    def pose(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """World-to-camera rotation (3, 3) and position (3,) at `time` seconds."""
        x, y, yaw, pitch, roll = self.sway[:, 0] * np.sin(self.sway[:, 1] * time + self.sway[:, 2])
        (cy, cp, cr), (sy, sp, sr) = (
            f((self.yaw + yaw, self.pitch + pitch, roll)) for f in (np.cos, np.sin)
        )
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        tilt = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        return tilt @ nod @ turn, np.array([self.lane + x, y - self.height, self.speed * time])
