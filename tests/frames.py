"""Writes videos, images and PPM whose frames differ in grey value, and reads them."""

import numpy as np
from PIL import Image

from datasets.source import open_source
from utils.output.video import VideoWriter


def flat(value, size=(48, 64)):
    """(H, W, 3) uint8 of one value."""
    return np.full((*size, 3), value, np.uint8)


def write_video(path, frames=10, size=(48, 64), fps=25.0):
    """Frame i is grey of value 5 + 10 * (i % 25), so its index can be read from it."""
    with VideoWriter(path, fps) as writer:
        for i in range(frames):
            writer.write(flat(5 + 10 * (i % 25), size))
    return path


def index_in(image):
    """The i that write_video gave this frame."""
    return round((float(image.mean()) - 5) / 10)


def write_images(folder, names):
    """Image i is grey of value i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(flat(i, (6, 8))).save(folder / name)
    return folder


def read(spec, **options):
    """Frames of a source, and the source itself."""
    with open_source(str(spec), **options) as source:
        return list(source), source


def ppm(image):
    """The bytes of a P6 file."""
    height, width = image.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()
