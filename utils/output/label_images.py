"""Label PNGs: pixels are class ids, the palette shows them in the colours of the classes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from .pictures import colour_table


def colours_of_ids(palette, ids: np.ndarray | None) -> np.ndarray:
    """(256, 3) uint8: the colour of each id as it is written, black where no class has it."""
    colours = colour_table(palette)
    if ids is None:
        return colours
    shown = np.zeros((256, 3), np.uint8)
    # Several labels may share an id: the class, which comes first, decides.
    for label in reversed(range(len(palette))):
        shown[ids[label]] = colours[label]
    return shown


class LabelWriter:
    """One PNG of class ids per frame, FOLDER/NAME.png.

    palette: colours of the classes, for viewers; without it the PNG is grey. ids: what is written
    for each class, (K,) or (256,) of 0..255, such as Cityscapes' official ids; a label without an
    entry is an error. Without ids the labels are written as they are.
    """

    def __init__(self, folder: Path | str, ids: np.ndarray | None = None, palette=None):
        self.folder = Path(folder)
        self._colours = None if palette is None else colours_of_ids(palette, ids)
        self._ids = None if ids is None else np.asarray(ids)
        if self._ids is not None and (
            self._ids.ndim != 1 or not ((self._ids >= 0) & (self._ids <= 255)).all()
        ):
            raise ValueError(
                f"ids must be one number from 0 to 255 for each class, got {self._ids.tolist()}"
            )

    def write(self, name: str, labels: np.ndarray) -> Path:
        """name: the file's stem; labels (H, W) uint8 -> the file's path."""
        if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
            raise ValueError(
                f"labels must be (H, W) of uint8, got {labels.shape} of {labels.dtype}"
            )
        if not name or Path(name).name != name:
            raise ValueError(f"a label image needs a name without folders, got {name!r}")
        if self._ids is not None:
            if labels.max() >= len(self._ids):
                raise ValueError(
                    f"frame {name} has the class {labels.max()}, but there are ids for 0 to "
                    f"{len(self._ids) - 1} only"
                )
            labels = self._ids.astype(np.uint8)[labels]
        path = self.folder / f"{name}.png"
        temporary = self.folder / f".{name}.png.tmp"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            image = Image.fromarray(labels)
            if self._colours is not None:
                image.putpalette(self._colours.tobytes())
            image.save(temporary, format="PNG")
            temporary.replace(path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{path} cannot be written ({error.strerror or error}): is the disk full?",
            ) from error
        finally:
            with suppress(OSError):  # nothing can be removed where nothing may be written
                temporary.unlink(missing_ok=True)
        return path
