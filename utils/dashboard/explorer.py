"""Where a pixel attends: click it in the current frame, or move with the arrow keys.

Its weights in each remembered frame are shown beside. The server hands clicks and keys to whoever
listens at its websocket. visdom 0.2.4 sends them once for every image window on the page, each with
a mouse position of its own; so an environment of its own, with one image, is where they mean
something. It sends none for the click that chooses a window. Positions are those of a window of the
size it came with: a double click on its corner gives that back to one that was pulled larger.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..console import warn_once
from ..output.pictures import as_picture
from ..views import pad_edges
from . import windows
from .dashboard import Dashboard
from .windows import ATTENTION

FRAME = "frame"  # the window that is clicked
MOVES = {"ArrowUp": (-1, 0), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowRight": (0, 1)}
# pixels: least width and longest side of the frame as it is shown
SMALLEST = 480
LARGEST = 1024
TURN = 0.25  # seconds between looks at whether to stop
RETRY = 2.0  # seconds until a lost server is called again


class AttentionExplorer:
    """The frame with a mark at the chosen pixel, and a map of weights over each memory."""

    def __init__(
        self,
        dashboard: Dashboard,
        frame: np.ndarray,
        memory: Sequence[np.ndarray],
        attention: Callable[[tuple[int, int]], np.ndarray],
    ):
        """frame and the T frames in memory, oldest first: (H, W, 3) uint8.

        attention: pixel (y, x) -> (T, h, w). T + 1 maps: the frame attends to itself too.
        ValueError where the two do not agree.
        """
        self.client = dashboard.client
        self.memory = list(memory)
        self.attention = attention
        self.height, self.width = frame.shape[:2]
        self.shown = enlarge(frame)
        self.pixel = self.height // 2, self.width // 2
        weights = attention(self.pixel)
        if len(weights) == len(self.memory) + 1:
            self.memory.append(frame)
        if len(weights) != len(self.memory):
            raise ValueError(
                f"attention over {len(weights)} frames, but {len(self.memory)} pictures of them"
            )
        # Pixels to one weight, down and right: a step of the arrow keys.
        self.cell = self.height // weights.shape[1], self.width // weights.shape[2]
        self.show(weights)

    def look(self, y: int, x: int) -> np.ndarray:
        """Show where pixel (y, x) looks; outside the frame, its nearest. The weights (T, h, w)."""
        y = min(max(y, 0), self.height - 1)
        x = min(max(x, 0), self.width - 1)
        self.pixel = y, x
        weights = self.attention(self.pixel)
        self.show(weights)
        return weights

    def show(self, weights: np.ndarray) -> None:
        if self.client is None:
            return
        y, x = self.pixel
        tall, wide = self.shown.shape[:2]
        image = mark(self.shown, y * tall // self.height, x * wide // self.width)
        title = f"pixel y {y}, x {x}: choose this window, then click a pixel or use the arrow keys"
        self.put(FRAME, lambda: windows.picture(FRAME, title, image))
        # One scale for all memories, so that they can be compared.
        top = float(weights.max(initial=0))
        for number, (map_, below) in enumerate(zip(weights, self.memory, strict=True), 1):
            share = 100 * map_.sum()
            of_map = (
                f"memory {number} of {len(weights)} (oldest first): {share:.0f} % of the attention"
            )
            name = f"memory_{number}"
            make = partial(heat_window, name, of_map, map_, top=top, below=below)
            self.put(name, make)

    def put(self, name: str, make: Callable[[], dict]) -> None:
        """make: gives the window, later and on another thread."""
        self.client.show(self.client.record.env(ATTENTION), name, make)

    def on_event(self, event: dict) -> None:
        """A message of the server's: clicks and keys that mean this frame move the pixel."""
        if self.client is None or not self.is_meant(event):
            return
        y, x = self.pixel
        if event.get("event_type") == "Click":
            y, x = position(event["image_coord"], self.shown.shape[:2])
            self.look(int(y * self.height), int(x * self.width))
        elif event.get("event_type") == "KeyPress" and event.get("key") in MOVES:
            down, right = MOVES[event["key"]]
            self.look(y + down * self.cell[0], x + right * self.cell[1])

    def is_meant(self, event: dict) -> bool:
        """Whether an event came from the window with the frame."""
        env = self.client.record.env(ATTENTION)
        return event.get("eid") == env and event.get("target") == FRAME

    def serve(self, until: Callable[[], bool]) -> None:
        """Follow clicks and keys until `until()` is true. A server that goes away is waited for."""
        if self.client is None:
            return
        while not until():
            try:
                self.listen(until)
            except Exception as error:
                # The websocket package has errors of its own, and so has a broken server.
                warn_once(
                    f"the attention explorer lost {self.client.server} and calls it again: "
                    f"{error or type(error).__name__}"
                )
                pause(RETRY, until)

    def listen(self, until: Callable[[], bool]) -> None:
        """One connection. ImportError, OSError, WebSocketException."""
        import websocket  # comes with visdom

        address = self.client.server.url("vis_socket").replace("http", "ws", 1)
        socket = websocket.create_connection(address, timeout=RETRY)
        socket.settimeout(TURN)
        try:
            while not until():
                try:
                    self.on_event(json.loads(socket.recv()))
                except websocket.WebSocketTimeoutException:
                    continue
        finally:
            socket.close(timeout=TURN)


def heat_window(name: str, title: str, weights, *, top: float, below: np.ndarray) -> dict:
    """A map of weights over a remembered frame, as a window."""
    behind = windows.shrink(below, SMALLEST)
    return windows.heat_map(name, title, weights, top=top, below=behind)


class LastFrames:
    """Stands before a Stepper and remembers what `model.attention` wants.

    That is the last frames, and the state that the last one met.
    """

    def __init__(self, stepper):
        """ValueError where the network does not see the frame as it is."""
        if not stepper.views.single_pass:
            raise ValueError(
                "--explore shows what one pass over a frame looks at: drop --flip, --scales, "
                "--eval-crop"
            )
        self.stepper = stepper
        self.model = stepper.model
        self.views = stepper.views
        self.reach = max((-offset for offset in stepper.model.offsets), default=0)
        self.frames = []
        self.state = None

    def __call__(self, frame):
        """frame (1, 3, H, W) -> scores, as the stepper's."""
        padded = pad_edges(frame[:, None], self.model.size_rule)[:, 0]
        resized = self.frames and self.frames[-1].shape != padded.shape
        if self.stepper.states is None or resized:
            self.frames = []
        # The state before the frame: `attention` asks what the frame found in memory.
        self.state = self.stepper.states[0] if self.frames else self.model.start()
        self.frames = [*self.frames, padded][-self.reach - 1 :]
        return self.stepper(frame)

    def memory(self) -> list:
        """The frames that labelling the last one has read, oldest first."""
        past = len(self.frames) - 1
        return [self.frames[past + offset] for offset in self.model.startup(past)]

    @torch.inference_mode()
    def attention(self, pixel: tuple[int, int]) -> np.ndarray:
        """Where the pixel (y, x) of the last frame attends -> (T, h, w)."""
        with self.stepper.autocast:
            weights = self.model.attention(self.frames[-1], self.state, pixel)
        return weights.float().cpu().numpy()


def explore(dashboard: Dashboard, last: LastFrames, until: Callable[[], bool]) -> None:
    """Explore the last frame of a video until `until()` is true."""
    frame, *memory = (as_picture(frame[0]) for frame in (last.frames[-1], *last.memory()))
    AttentionExplorer(dashboard, frame, memory, last.attention).serve(until)


def enlarge(frame: np.ndarray) -> np.ndarray:
    """frame (H, W, 3) -> large enough to be clicked and small enough for a screen."""
    tall, wide = frame.shape[:2]
    scale = min(max(SMALLEST / wide, 1), LARGEST / max(tall, wide))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    size = round(wide * scale), max(round(tall * scale), 1)  # (W, H), as Pillow takes it
    return np.asarray(Image.fromarray(frame).resize(size, how))


def position(mouse: dict, size: tuple[int, int]) -> tuple[float, float]:
    """Where in an image of `size` (H, W) the mouse is that visdom places in the image's window: (y,
    x) from 0 to 1.

    The page lays windows out in rows of 15 pixels, 10 of them between two windows and 14 for a
    window's title. In a window the image is shown 2 pixels wider than it is, and in the middle of
    the window as if it had no title.
    """
    tall, wide = size
    window = 15 * math.ceil((tall + windows.ROOM["plain"] + 24) / 15) - 10
    height = tall * (wide + 2) / wide
    width = wide + 2
    return (mouse["y"] - (window + 1 - height) / 2) / height, mouse["x"] / width


def mark(image: np.ndarray, y: int, x: int, arm: int = 12) -> np.ndarray:
    """A cross around pixel (y, x), which itself stays to be seen."""
    marked = Image.fromarray(image)
    draw = ImageDraw.Draw(marked)
    for colour, width in (((0, 0, 0), 5), ((255, 255, 0), 2)):
        for down, right in MOVES.values():
            draw.line(
                (x + 4 * right, y + 4 * down, x + arm * right, y + arm * down),
                fill=colour,
                width=width,
            )
    return np.asarray(marked)


def pause(seconds: float, until: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        time.sleep(0.1)
