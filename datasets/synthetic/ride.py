"""How the camera of a synthetic video moves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class Ride(NamedTuple):
    """The camera's path: forward at a constant speed, swaying and turning a little.

    Metres, seconds and radians; axes as in scene.py (X right, Y down, Z along the street).
    """

    speed: float  # m/s
    lane: float  # X of the camera's lane
    height: float  # above the road
    focal: float  # focal length over the image width
    sway: np.ndarray  # (5, 3): amplitude, angular frequency, phase of x, y, yaw, pitch, roll
    yaw: float  # mean direction
    pitch: float

    @classmethod
    def draw(cls, rng: Generator, lane: float) -> Ride:
        """A random ride in the lane at X = `lane`."""
        # of x, y, yaw, pitch and roll, each with its own range
        period = rng.uniform([4, 0.5, 4, 0.7, 2], [9, 0.9, 9, 1.4, 5])  # seconds
        amplitude = rng.uniform(0.2, 1, 5) * (0.35, 0.025, 0.09, 0.006, 0.008)
        phase = rng.uniform(0, 2 * np.pi, 5)
        field_of_view = np.radians(rng.uniform(58, 78))  # horizontal
        return cls(
            speed=rng.uniform(2, 12),
            lane=lane,
            height=rng.uniform(1.3, 2.1),
            focal=0.5 / np.tan(field_of_view / 2),
            sway=np.stack([amplitude, 2 * np.pi / period, phase], 1),
            yaw=rng.normal(0, 0.07),
            pitch=rng.uniform(-0.06, 0.01),
        )

    def pose(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """World-to-camera rotation (3, 3) and position (3,) at `time` seconds."""
        amplitude, frequency, phase = self.sway.T
        wave = np.sin(frequency * time + phase)
        x, y, yaw, pitch, roll = amplitude * wave
        angles = (self.yaw + yaw, self.pitch + pitch, roll)
        cos_yaw, cos_pitch, cos_roll = np.cos(angles)
        sin_yaw, sin_pitch, sin_roll = np.sin(angles)
        # fmt: off
        turn = np.array([[cos_yaw, 0, -sin_yaw],
                         [0, 1, 0],
                         [sin_yaw, 0, cos_yaw]])
        nod = np.array([[1, 0, 0],
                        [0, cos_pitch, sin_pitch],
                        [0, -sin_pitch, cos_pitch]])
        tilt = np.array([[cos_roll, sin_roll, 0],
                         [-sin_roll, cos_roll, 0],
                         [0, 0, 1]])
        # fmt: on
        x = self.lane + x
        y = y - self.height  # Y points down
        z = self.speed * time
        return tilt @ nod @ turn, np.array([x, y, z])
