"""Windows of a visdom environment as plain data, and the record of a run's environments.

A window is the dict that a visdom server keeps of one, and an environment is the file that it keeps
of its windows, {"jsons": {id: window}, "reload": {}}: `SAVEDIR/graphs RUN.json` is shown by any
server that finds it in its -env_path, and by `main.py --replay SAVEDIR`. Images are PNG inside the
dict; an image_history has one per step of its slider.
"""

from __future__ import annotations

import base64
import io
import json
import math
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_text

# the environments of a run, before its name
GRAPHS = "graphs"
IMAGES = "images"
ATTENTION = "attention"
# Pixels that a window must be higher than its image.
ROOM = {"plain": 17, "caption": 45, "slider": 105}
LONGEST = 300  # images of a history; beyond, every second one is dropped
MARKED = 60  # points of a curve that have markers
PICTURE_WIDTH = 1024  # pixels; wider pictures are shrunk
NEEDED = {"id", "type", "content"}  # what every window of a record has
# White-hot to transparent: stops of a colour scale.
HEAT = [[0, "rgba(255,40,0,0)"], [0.4, "rgba(255,90,0,0.7)"], [1, "rgba(255,255,0,0.95)"]]


def window(name: str, title: str, kind: str, content, **more) -> dict:
    """A window as a visdom server keeps it; name: its id in the environment."""
    return {
        "command": "window",
        "id": name,
        "title": title,
        "inflate": True,
        "width": None,
        "height": None,
        "contentID": uuid.uuid4().hex,
        "type": kind,
        "content": content,
    } | more


def plot(
    name: str,
    title: str,
    traces: list[dict],
    *,
    width: int | None = None,
    height: int | None = None,
    **layout,
) -> dict:
    """A plotly figure; its title is the window's, since visdom's buttons would lie over its own."""
    common = {"showlegend": len(traces) > 1, "margin": {"l": 60, "r": 30, "t": 45, "b": 65}}
    layout = common | layout
    return window(
        name, title, "plot", {"data": traces, "layout": layout}, width=width, height=height
    )


def curves(name: str, title: str, epochs: Sequence[int], lines: dict[str, Sequence[float]]) -> dict:
    """Lines over the epochs, {trace: values}; nan leaves a gap.

    What falls by powers of ten gets a logarithmic axis.
    """
    # Markers show where a single epoch lies, as long as they do not run together.
    mode = "lines+markers" if len(epochs) <= MARKED else "lines"
    traces = []
    for name_of_trace, values in lines.items():
        heights = [finite(value) for value in values]
        trace = {"x": list(epochs), "y": heights, "name": name_of_trace}
        traces.append(trace | {"type": "scatter", "mode": mode})
    known = [value for trace in traces for value in trace["y"] if value is not None]
    powers = known and min(known) > 0 and max(known) > 10 * min(known)
    return plot(
        name,
        title,
        traces,
        xaxis={"title": "epoch", "tick0": epochs[0], "dtick": -(-len(epochs) // 8)},
        yaxis={"type": "log" if powers else "linear"},
    )


def bars(
    name: str, title: str, names: Sequence[str], values: Sequence[float | None], run: str
) -> dict:
    """A bar for each class, from 0 to 1; none where a class has no value."""
    trace = {"x": list(names), "y": [finite(value) for value in values], "name": run, "type": "bar"}
    return plot(
        name,
        title,
        [trace],
        yaxis={"range": [0, 1]},
        xaxis={"tickangle": -45, "type": "category"},
        margin={"l": 50, "r": 20, "t": 45, "b": 120},
    )


def heat_map(
    name: str, title: str, weights: np.ndarray, *, top: float, below: np.ndarray, width: int = 480
) -> dict:
    """weights (h, w), 0 transparent and `top` bright, over the picture `below` (H, W, 3)."""
    rows, columns = weights.shape
    tall, wide = below.shape[:2]
    # Cells are centred on whole numbers, so the picture begins half a cell before the first.
    behind = {
        "source": png(below),
        "xref": "x",
        "yref": "y",
        "x": -0.5,
        "y": -0.5,
        "sizex": columns,
        "sizey": rows,
        "sizing": "stretch",
        "layer": "below",
    }
    trace = {
        "z": [list(map(finite, row)) for row in weights.tolist()],
        "type": "heatmap",
        "name": name,
        "zmin": 0,
        "zmax": finite(top),
        "colorscale": HEAT,
    }
    margin = {"l": 30, "r": 80, "t": 40, "b": 45}
    return plot(
        name,
        title,
        [trace],
        images=[behind],
        margin=margin,
        width=width,
        height=round((width - 110) * tall / wide) + 85,
        xaxis={"range": [-0.5, columns - 0.5], "showgrid": False, "zeroline": False},
        yaxis={"range": [rows - 0.5, -0.5], "showgrid": False, "zeroline": False},
    )


def picture(
    name: str, title: str, image: np.ndarray, caption: str | None = None, *, step: int | None = None
) -> dict:
    """image (H, W, 3) uint8.

    step: a number by which it belongs to the history of its window (see Record.show).
    """
    content = {"src": png(image), "caption": caption}
    height, width = image.shape[:2]
    if step is None:
        room = ROOM["caption"] if caption else ROOM["plain"]
        return window(name, title, "image", content, width=width, height=height + room)
    return window(
        name,
        title,
        "image_history",
        [content | {"step": step}],
        selected=0,
        show_slider=True,
        width=width,
        height=height + ROOM["slider"],
    )


def finite(value: float | None) -> float | None:
    """JSON has no nan."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def png(image: np.ndarray) -> str:
    """A picture as the address of an HTML image."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def shrink(image: np.ndarray, width: int = PICTURE_WIDTH) -> np.ndarray:
    """image (H, W, 3) -> at most `width` pixels wide."""
    tall, wide = image.shape[:2]
    if wide <= width:
        return image
    return resize(image, (max(round(tall * width / wide), 1), width))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """image (H, W, 3) -> (*size, 3)."""
    if image.shape[:2] == tuple(size):
        return image
    # Pillow takes (W, H).
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX))


def images_in(window: dict) -> int:
    """Of the history of an image; 1 for everything else."""
    if window["type"] == "image_history":
        return len(window["content"])
    return 1


class Record:
    """The environments of a run: what was shown, whether or not a server was there to show it."""

    def __init__(self, folder: Path, *, keep: bool):
        """folder: the savedir, whose last component is the run's name.

        keep: go on from the files that are there.
        """
        self.folder = Path(folder)
        self.run = Path(folder).resolve().name
        self.envs: dict[str, dict[str, dict]] = {}
        if keep:
            for kind in (GRAPHS, IMAGES, ATTENTION):
                self.load(self.env(kind))
        # Nothing went before: what a server has under these names is another run's.
        self.fresh = not self.envs

    def env(self, kind: str) -> str:
        return f"{kind} {self.run}"

    def path(self, env: str) -> Path:
        return self.folder / f"{env}.json"

    def load(self, env: str) -> None:
        """A file that a kill or another program has spoilt counts as none: it is written anew."""
        try:
            stored = json.loads(self.path(env).read_text())["jsons"]
            self.envs[env] = {name: found for name, found in stored.items() if NEEDED <= set(found)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return

    def show(self, env: str, new: dict) -> bool:
        """Keep a window in place of the one of its name.

        -> True where it goes on where an image_history ended. An image takes the place of those of
        its step and later ones, which a killed run had left.
        """
        windows = self.envs.setdefault(env, {})
        old = windows.get(new["id"], {})
        new["i"] = old.get("i", len(windows))
        windows[new["id"]] = new
        if new["type"] != "image_history" or old.get("type") != "image_history":
            return False
        before = old["content"]
        step = new["content"][0]["step"]
        images = [image for image in before if image.get("step", -1) < step]
        goes_on = len(images) == len(before) < LONGEST
        images = [*images, *new["content"]]
        if len(images) > LONGEST:
            images = images[::-2][::-1]  # every second one, the newest kept
        new["content"] = images
        new["selected"] = len(new["content"]) - 1
        return goes_on

    def save(self) -> None:
        """OSError where the disk does not take them."""
        for env, windows in self.envs.items():
            write_text(self.path(env), json.dumps({"jsons": windows, "reload": {}}))
