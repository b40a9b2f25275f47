"""Textures of the synthetic world: small pictures (h, w, 4) uint8 RGBA, drawn from a random
generator.

Alpha says where the thing is (0 or 255 at full size); colour continues beyond it, so that
interpolation at an outline stays clean. Grey and green are shared between classes on purpose: shape
and place must tell them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ..opencv import opencv

Colour = tuple[float, float, float]
FACADE_SCALE = 20  # pixels a metre


class Texture:
    """A picture with smaller versions of itself: halved i times across and j times down (a ripmap),
    made when asked."""

    def __init__(self, picture: np.ndarray, wrap: bool = False):
        self.wrap = wrap
        self.opaque = bool((picture[..., 3] == 255).all())
        self.levels = {(0, 0): np.ascontiguousarray(picture)}

    def level(self, i: int, j: int) -> np.ndarray:
        """(h / 2^j, w / 2^i, 4) uint8, at least one pixel each way."""
        cv2 = opencv()
        height, width = self.levels[0, 0].shape[:2]
        if (i, j) not in self.levels:
            size = (max(width >> i, 1), max(height >> j, 1))  # OpenCV: width first
            self.levels[i, j] = cv2.resize(self.levels[0, 0], size, interpolation=cv2.INTER_AREA)
        return self.levels[i, j]


def noise(
    rng: Generator,
    shape: tuple[int, int],
    cells: tuple[int, int] = (4, 4),
    octaves: int = 4,
    fade: float = 0.6,
) -> np.ndarray:
    """(h, w) float32 of about zero mean and unit spread that repeats seamlessly: sums of smoothed
    random grids."""
    cv2 = opencv()
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        how = cv2.INTER_LINEAR if octave else cv2.INTER_CUBIC
        rows, columns = (min(n << octave, side) for n, side in zip(cells, shape, strict=True))
        grid = np.pad(rng.standard_normal((rows, columns)).astype(np.float32), 2, mode="wrap")
        step = shape[0] / rows, shape[1] / columns
        big = cv2.resize(
            grid, (round(step[1] * (columns + 4)), round(step[0] * (rows + 4))), interpolation=how
        )
        top = round(2 * step[0])
        left = round(2 * step[1])
        total += fade**octave * big[top : top + shape[0], left : left + shape[1]]
    return total / max(float(total.std()), 1e-6)


def paint(
    base: np.ndarray | Colour, light: np.ndarray, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Colour (3,) or (h, w, 3) times light (h, w), and alpha (h, w) bool -> (h, w, 4) uint8."""
    colour = np.clip(np.asarray(base, np.float32) * light[..., None], 0, 255)
    picture = np.full((*light.shape, 4), 255, np.uint8)
    picture[..., :3] = colour
    if alpha is not None:
        picture[..., 3] *= alpha
    return picture


def grey(rng: Generator, low: float, high: float, tint: float = 6) -> Colour:
    """A nearly neutral colour."""
    return tuple(rng.uniform(low, high) + rng.normal(0, tint, 3))


def road(rng: Generator, width: float, bays: bool) -> np.ndarray:
    """Asphalt with lane markings: `width` metres across, 12 m along, 20 pixels a metre."""
    shape = (240, max(round(20 * width), 8))
    light = 1 + 0.04 * noise(rng, shape, (4, 3), 5, 0.8) + 0.05 * noise(rng, shape, (1, 4), 2)
    out = paint(grey(rng, 68, 122), light)
    white = np.array(grey(rng, 185, 235), np.float32)
    middle = shape[1] // 2
    line = 3
    dash = slice(0, 100) if rng.random() < 0.7 else slice(0, 240)
    marks = [(dash, slice(middle - 1, middle - 1 + line))]
    if bays:
        marks += [
            (slice(None), slice(40, 40 + line)),
            (slice(None), slice(shape[1] - 43, shape[1] - 43 + line)),
        ]
    for rows, columns in marks:
        worn = 0.75 + 0.12 * noise(rng, shape, (12, 8), 3)[rows, columns, None]
        out[rows, columns, :3] = np.clip(out[rows, columns, :3] * (1 - worn) + white * worn, 0, 255)
    return out


def pavement(rng: Generator) -> np.ndarray:
    """Slabs, 4 m square, 24 pixels a metre; the joint width and slab size vary per video."""
    shape = (96, 96)
    slab = int(rng.choice([12, 16, 24, 32, 48]))
    light = 1 + 0.04 * noise(rng, shape, (3, 3), 5, 0.8)
    light *= np.kron(
        1 + 0.035 * rng.standard_normal((96 // slab, 96 // slab)), np.ones((slab, slab))
    )
    light[::slab] *= 0.86
    light[:, ::slab] *= 0.86
    return paint(
        np.array(grey(rng, 105, 175)) * rng.uniform([0.98, 0.95, 0.86], [1.08, 1.0, 1.0]), light
    )


def grass(rng: Generator) -> np.ndarray:
    """Lawn or dry ground, 6 m square: yellower and smoother than leaves, mostly."""
    shape = (128, 128)
    green = np.array([rng.uniform(80, 150), rng.uniform(110, 150), rng.uniform(50, 80)])
    dry = np.array([rng.uniform(130, 165), rng.uniform(115, 140), rng.uniform(75, 100)])
    mix = np.clip(rng.uniform(0.0, 0.5) + 0.22 * noise(rng, shape, (2, 2), 4), 0, 1)[..., None]
    return paint(green * (1 - mix) + dry * mix, 1 + 0.10 * noise(rng, shape, (8, 8), 4, 0.9))


def facade(rng: Generator, floors: int, shade: float) -> np.ndarray:
    """Wall with windows, two to four bays of 2.5 m across, `floors` of 3.2 m high, FACADE_SCALE
    pixels a metre."""
    bays = int(rng.integers(2, 5))
    bay = 50
    floor = 64
    shape = (floors * floor, bays * bay)
    colour = wall_colour(rng) * shade
    light = 1 + 0.05 * noise(rng, shape, (3, 3), 5, 0.7)
    if rng.random() < 0.4:  # courses of brick or board
        light[:: int(rng.integers(4, 9))] *= 0.9
    out = paint(colour, light)
    width = int(rng.integers(18, 38))
    height = int(rng.integers(24, 46))
    frame = np.clip(colour * rng.choice([0.6, 1.35]), 0, 245)
    for row in range(floors):
        shop = row == floors - 1 and rng.random() < 0.6
        for column in range(bays):
            w, h = (42, 48) if shop else (width, height)
            y = row * floor + (60 - h if shop else (floor - h) // 2)
            x = column * bay + (bay - w) // 2
            out[y - 2 : y + h + 2, x - 2 : x + w + 2, :3] = frame
            out[y : y + h, x : x + w, :3] = window(rng, h, w, shade)
    out[:5, :, :3] = np.clip(colour * 0.8, 0, 255)  # cornice
    if rng.random() < 0.5:
        out[floor - 3 : floor * floors : floor, :, :3] = np.clip(colour * 1.15, 0, 250)
    return out


def wall_colour(rng: Generator) -> np.ndarray:
    """Plaster, brick, concrete or a painted front."""
    kind = rng.integers(4)
    if kind == 0:
        return np.array([rng.uniform(185, 225), rng.uniform(170, 205), rng.uniform(130, 180)])
    if kind == 1:
        return np.array([rng.uniform(125, 170), rng.uniform(75, 100), rng.uniform(60, 85)])
    if kind == 2:
        return np.array(grey(rng, 110, 185))
    return 0.6 * rng.uniform(95, 215) + 0.4 * rng.uniform(80, 215, 3)


def window(rng: Generator, height: int, width: int, shade: float) -> np.ndarray:
    """(height, width, 3): a dark or sky-reflecting pane with a cross bar, sometimes a curtain."""
    down = np.linspace(1.25, 0.75, height)[:, None, None]
    glass = rng.uniform(30, 110) * np.array([0.92, 1.0, rng.uniform(1.0, 1.25)])
    pane = glass * down * np.ones((1, width, 1)) * (0.5 + 0.5 * shade)
    if rng.random() < 0.35:
        pane[: int(height * rng.uniform(0.2, 0.8))] = rng.uniform(130, 210) * shade
    pane[:, width // 2 - 1 : width // 2 + 1] = rng.uniform(120, 215) * shade
    return pane.clip(0, 255)


def roof(rng: Generator, shade: float) -> np.ndarray:
    """Rows of tiles, 4 m square."""
    light = 1 + 0.06 * noise(rng, (64, 64), (4, 4), 4)
    light[::8] *= 0.75
    return paint(rng.uniform([85, 50, 45], [160, 95, 90]) * shade, light)


def gable(rng: Generator, shade: float) -> np.ndarray:
    """(48, 96): the triangle of wall below a pitched roof."""
    y = np.linspace(0, 1, 48)[:, None]
    x = np.abs(np.linspace(-1, 1, 96))
    return paint(wall_colour(rng) * shade, 1 + 0.05 * noise(rng, (48, 96)), x <= y)


def leaves(rng: Generator, shape: tuple[int, int], ragged: float, colour: np.ndarray) -> np.ndarray:
    """A crown, bush or row of trees filling most of the picture; `ragged` is how far the outline
    frays."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    inside = 0.82 - (np.abs(x) ** 2.4 + np.abs(y[:, None]) ** 2.4) ** (1 / 2.4)
    cells = (max(shape[0] // 32, 2), max(shape[1] // 32, 2))
    clumps = noise(rng, shape, cells, 3)
    fine = noise(rng, shape, (cells[0] * 4, cells[1] * 4), 3, 0.9)
    alpha = inside + ragged * (0.16 * clumps + 0.10 * fine) > 0
    light = 0.95 - 0.28 * y[:, None] + 0.16 * clumps + 0.20 * fine  # lit from above
    return paint(colour, light.clip(0.2, 1.8), alpha)


def leaf_colour(rng: Generator) -> np.ndarray:
    """Green, from dark conifer to the yellow of autumn."""
    return np.array([rng.uniform(45, 105), rng.uniform(75, 112), rng.uniform(38, 62)])


def bark(rng: Generator) -> np.ndarray:
    """A trunk, seen from the side."""
    return paint(
        rng.uniform([70, 58, 45], [110, 90, 72]),
        rounded(16, 96) * (1 + 0.12 * noise(rng, (96, 16), (12, 4))),
    )


def rounded(width: int, height: int) -> np.ndarray:
    """Light on an upright cylinder (height, width)."""
    return np.tile(1.12 - 0.55 * np.linspace(-0.6, 1, width, dtype=np.float32) ** 2, (height, 1))


def pole(rng: Generator) -> np.ndarray:
    """Metal or painted: grey, dark green, black."""
    colour = grey(rng, 60, 165, 4) if rng.random() < 0.8 else (45, 70, 55)
    return paint(colour, rounded(8, 64) * (1 + 0.05 * noise(rng, (64, 8), (6, 1), 3)))


def fence(rng: Generator) -> np.ndarray:
    """2.5 m long, 40 pixels a metre: boards, railings or a wall with a rail; gaps show what is
    behind."""
    shape = (60, 100)
    kind = int(rng.integers(3))
    light = 1 + 0.07 * noise(rng, shape, (2, 10), 4)
    alpha = np.zeros(shape, bool)
    pitch = (20, 10, 25)[kind]
    across = np.arange(100) % pitch
    if kind == 2:  # masonry below, rail above
        alpha[28:] = alpha[4:9] = True
        alpha[:, across < 4] = True
        colour = np.array(grey(rng, 110, 170))
    else:
        alpha[:, across < (17, 5)[kind]] = True
        alpha[8:14] = alpha[46:52] = True
        colour = (
            rng.uniform([95, 70, 45], [185, 150, 115])
            if kind == 0
            else np.array(grey(rng, 50, 190, 12))
        )
        light[:, across == 0] *= 0.7
    return paint(colour, light, alpha)


def sky(rng: Generator) -> np.ndarray:
    """(128, 384): horizon three quarters down; clear, cloudy or overcast."""
    shape = (128, 384)
    rows = np.linspace(0, 1.33, shape[0], dtype=np.float32)[:, None, None].clip(0, 1)
    high = rng.uniform([70, 120, 190], [130, 175, 240])
    low = rng.uniform([175, 195, 210], [225, 230, 240])
    if rng.random() < 0.3:
        high = np.array(grey(rng, 150, 205, 4))
        low = np.array(grey(rng, 195, 230, 4))
    clouds = (noise(rng, shape, (3, 7), 5) + rng.uniform(-1.6, 0.6))[..., None].clip(0, 1.2) / 1.2
    colour = high * (1 - rows) + low * rows
    colour = colour * (1 - clouds * 0.85) + clouds * 0.85 * rng.uniform(215, 246)
    return paint(colour, np.ones(shape, np.float32))
