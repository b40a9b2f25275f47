"""Pictures of people."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from .canvas import Canvas
from .texture import grey


class Pose(NamedTuple):
    """How a person holds limbs and trunk, in fractions of the picture's width."""

    stride: float  # of a foot from the middle
    swing: float  # of a hand from the shoulder
    lean: float  # of the shoulders and the head


def person(rng: Generator) -> np.ndarray:
    """(128, 64): 0.875 m x 1.75 m, walking or standing, in two or three colours of clothing."""
    top = cloth(rng)
    bottom = cloth(rng)
    skin = np.array([230, 185, 155]) * rng.uniform(0.4, 1.0)
    canvas = Canvas(128, 64, top)
    stride = rng.uniform(0.03, 0.17)
    swing = rng.uniform(0.05, 0.16)
    lean = rng.uniform(-0.02, 0.02)
    pose = Pose(stride, swing, lean)

    # later parts cover earlier ones
    draw_legs(canvas, pose, bottom, rng.uniform(20, 90, 3))
    if rng.random() < 0.3:
        draw_coat(canvas, rng, top, bottom)
    draw_trunk(canvas, pose, top)
    draw_arms(canvas, pose, top, skin)
    draw_head(canvas, pose, skin, rng)
    if rng.random() < 0.3:  # a bag
        canvas.rectangle((0.62, 0.40), (0.80, 0.56), cloth(rng))
    return canvas.finish()


def draw_legs(canvas: Canvas, pose: Pose, colour: np.ndarray, shoe: np.ndarray) -> None:
    """Two legs with knees, and shoes."""
    for side in (-1, 1):
        hip = (0.5 + side * 0.05, 0.52)
        knee = (0.5 + side * (pose.stride * 0.7 + 0.02), 0.74)
        foot = 0.5 + side * pose.stride
        shade = 0.92 + 0.08 * side  # the far leg is darker
        canvas.line([hip, knee, (foot, 0.95)], colour * shade, 0.115)
        canvas.line([(foot - 0.02, 0.965), (foot + 0.05, 0.965)], shoe, 0.07)


def draw_coat(canvas: Canvas, rng: Generator, top: np.ndarray, bottom: np.ndarray) -> None:
    """A coat in the colour of the top, or a skirt in that of the bottom."""
    colour = bottom
    if rng.random() < 0.5:
        colour = top
    canvas.polygon([(0.39, 0.48), (0.61, 0.48), (0.68, 0.72), (0.32, 0.72)], colour)


def draw_trunk(canvas: Canvas, pose: Pose, colour: np.ndarray) -> None:
    """Trunk and shoulders."""
    left = (0.34 + pose.lean, 0.20)
    right = (0.66 + pose.lean, 0.20)
    canvas.polygon([left, right, (0.62, 0.54), (0.38, 0.54)], colour)
    canvas.disc((0.5 + pose.lean, 0.21), 0.16, colour, 0.5)  # shoulders


def draw_arms(canvas: Canvas, pose: Pose, sleeve: np.ndarray, skin: np.ndarray) -> None:
    """Sleeves and hands."""
    # arms that swing far are bent
    raised = 0.1 * (pose.swing > 0.12)
    for side in (-1, 1):
        shoulder = (0.5 + side * 0.15 + pose.lean, 0.22)
        elbow = (0.5 + side * (0.17 + pose.swing * 0.5), 0.38)
        hand = (0.5 + side * (0.17 + pose.swing), 0.52 - raised)
        canvas.line([shoulder, elbow, hand], sleeve * 0.85, 0.085)
        canvas.disc(hand, 0.045, skin)


def draw_head(canvas: Canvas, pose: Pose, skin: np.ndarray, rng: Generator) -> None:
    """Neck, hair and face."""
    x = 0.5 + pose.lean
    canvas.line([(x, 0.13), (x, 0.19)], skin * 0.85, 0.10)
    hair = rng.uniform(15, 120, 3) * (1.0, 0.85, 0.7)
    canvas.disc((x, 0.085), 0.108, hair, 1.2)
    canvas.disc((x, 0.10), 0.088, skin, 1.2)


def cloth(rng: Generator) -> np.ndarray:
    """(3,): mostly muted, at times bright."""
    if rng.random() < 0.4:
        return rng.uniform(20, 225, 3)
    return np.array(grey(rng, 25, 150, 18)).clip(10, 220)
