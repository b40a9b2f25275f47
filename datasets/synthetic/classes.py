"""The classes of the synthetic world with Cityscapes' colours."""

from __future__ import annotations

_COLOURS: dict[str, tuple[int, int, int]] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "car": (0, 0, 142),
}
CLASSES: tuple[str, ...] = tuple(_COLOURS)
PALETTE: tuple[tuple[int, int, int], ...] = tuple(_COLOURS.values())

# class ids: the positions in CLASSES
ROAD = CLASSES.index("road")
SIDEWALK = CLASSES.index("sidewalk")
BUILDING = CLASSES.index("building")
FENCE = CLASSES.index("fence")
POLE = CLASSES.index("pole")
SIGN = CLASSES.index("sign")
VEGETATION = CLASSES.index("vegetation")
TERRAIN = CLASSES.index("terrain")
SKY = CLASSES.index("sky")
PERSON = CLASSES.index("person")
CAR = CLASSES.index("car")
