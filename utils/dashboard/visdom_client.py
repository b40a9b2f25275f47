"""A client of a visdom server, on a thread of its own so that no run ever waits for it.

This speaks what visdom's own client speaks (events, update, close, save) without that client, which
has no timeouts, prints, and changes the logging of the process; a training needs no visdom package
to be watched from elsewhere.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from urllib.error import URLError
from urllib.parse import urlsplit

from ..console import get_logger
from .windows import Record, images_in

TIMEOUT = 4.0  # seconds for an answer
PAUSE = 20.0  # seconds until a server that failed is asked again
OPTS = ("title", "width", "height", "show_slider")  # what a server is told beside the content
WAITING = 32  # images that wait for the thread; one more drops the oldest


class Server:
    """What a server was told of a record.

    Every method may raise OSError, with one line that says why.
    """

    def __init__(self, server: str, port: int):
        """server: http://HOST, perhaps with a path; http where nothing else is said."""
        self.server = server if "://" in server else f"http://{server}"
        self.port = port
        # How many images of each (environment, window) it has.
        self.shown: dict[tuple[str, str], int] = {}
        self.cleared: set[str] = set()

    def __str__(self) -> str:
        return f"{self.server}, port {self.port}"

    def url(self, endpoint: str) -> str:
        parts = urlsplit(self.server)
        return f"{parts.scheme}://{parts.netloc}:{self.port}{parts.path.rstrip('/')}/{endpoint}"

    def post(self, endpoint: str, message: dict) -> str:
        """The text of its answer."""
        try:
            request = urllib.request.Request(
                self.url(endpoint),
                json.dumps(message, allow_nan=False).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return answer.read().decode()
        except URLError as error:
            raise OSError(str(error.reason)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            # ValueError: what was given is no address.
            raise OSError(str(error)) from error

    def update(self, record: Record) -> None:
        """Send what it does not have yet: everything, if it was started anew in the meantime."""
        there = self.environments()
        if any(env not in there for env, _ in self.shown):
            self.shown.clear()
        if record.fresh:
            self.clear(set(record.envs) - self.cleared, there)
        for env, windows in record.envs.items():
            for name, window in windows.items():
                if self.shown.get((env, name)) != images_in(window):
                    self.send(env, window)

    def clear(self, envs: set[str], there: list[str]) -> None:
        """Close what an earlier run of the same name has left, once."""
        for env in envs:
            if env in there:
                self.post("close", {"win": None, "eid": env})
            self.cleared.add(env)

    def environments(self) -> list[str]:
        """ConnectionError where something else answers than a visdom server."""
        try:
            names = json.loads(self.post("env_state", {}))
        except ValueError:
            names = None
        if not isinstance(names, list):
            raise ConnectionError("what answers there is no visdom server")
        return names

    def send(self, env: str, window: dict) -> None:
        """Show a window; of a history the images that the server does not have yet."""
        first = self.shown.get((env, window["id"]), 0)
        taken = self.send_from(env, window, first)
        if not taken and first:
            # Somebody has closed the window: it comes anew, with all images.
            taken = self.send_from(env, window, 0)
        if not taken:
            raise ConnectionError(f"it did not take the window {window['title']!r}")
        self.shown[env, window["id"]] = images_in(window)

    def send_from(self, env: str, window: dict, first: int) -> bool:
        """Whether all was taken."""
        opts = {name: window[name] for name in OPTS if window.get(name) is not None}
        message = {"win": window["id"], "eid": env, "opts": opts}
        if window["type"] == "plot":
            return self.post("events", message | window["content"]) == window["id"]
        images = window["content"] if window["type"] == "image_history" else [window["content"]]
        for index in range(first, len(images)):
            data = [{"type": window["type"], "content": images[index]}]
            # The first image makes the window, the others are added to it.
            endpoint = "update" if index else "events"
            if self.post(endpoint, message | {"data": data}) != window["id"]:
                return False
        return True

    def save(self, record: Record) -> None:
        """Have it write the environments to its own disk."""
        self.post("save", {"data": list(record.envs)})


class VisdomClient:
    """Takes what is to be shown at once, and records and sends it on a thread.

    A plot takes the place of one of its name that still waits, so all that can pile up is images,
    of which the oldest goes. A server that fails costs one warning; it is asked again from time to
    time, and then gets everything.
    """

    def __init__(self, record: Record, server: Server):
        self.record = record
        self.server = server
        self.waiting: dict[object, tuple[str, Callable[[], dict]]] = {}
        self.unique = itertools.count()
        self.bell = threading.Condition()
        self.saving = False
        self.closing = False
        self.failed_at: float | None = None
        self.warned: set[str] = set()
        self.thread = threading.Thread(target=self.run, name="dashboard", daemon=True)
        self.thread.start()

    def show(self, env: str, name: str, make: Callable[[], dict], *, history: bool = False) -> None:
        """make: gives the window, on the thread.

        history: it must not take the place of one that waits.
        """
        key = next(self.unique) if history else (env, name)
        with self.bell:
            self.waiting[key] = env, make
            images = [key for key in self.waiting if isinstance(key, int)]
            if len(images) > WAITING:
                del self.waiting[images[0]]
            self.bell.notify()

    def save(self) -> None:
        """Have the record written, here and by the server."""
        with self.bell:
            self.saving = True
            self.bell.notify()

    def close(self, wait: float = 5.0) -> None:
        """Save, and wait at most so many seconds until all is sent."""
        with self.bell:
            self.saving = True
            self.closing = True
            self.bell.notify()
        self.thread.join(wait)
        if self.thread.is_alive():
            self.warn("server", "is slow, and has not got all")

    # On the thread

    def run(self) -> None:
        done = False
        while not done:
            with self.bell:
                self.bell.wait_for(self.has_work, timeout=PAUSE)
                waiting = self.waiting
                self.waiting = {}
                saving = self.saving
                self.saving = False
                done = self.closing
            self.keep(waiting, saving)
            if done or self.failed_at is None or time.monotonic() - self.failed_at > PAUSE:
                self.send(saving or done)

    def has_work(self) -> bool:
        return bool(self.waiting or self.saving or self.closing)

    def keep(self, waiting: dict, saving: bool) -> None:
        for env, make in waiting.values():
            try:
                window = make()
            except Exception as error:
                # Of any kind: no picture is worth a training.
                self.warn("window", f"lacks a window: {error!r}")
                continue
            if not self.record.show(env, window):
                self.server.shown.pop((env, window["id"]), None)
        if saving:
            try:
                self.record.save()
            except OSError as error:
                self.warn("disk", f"cannot be saved: {error.strerror or error}")

    def send(self, saving: bool) -> None:
        try:
            self.server.update(self.record)
            if saving:
                self.server.save(self.record)
            self.failed_at = None
        except Exception as error:
            # Of any kind: a server may answer whatever it likes.
            self.failed_at = time.monotonic()
            self.server.shown.clear()
            self.warn("server", f"does not work: {error}")

    def warn(self, about: str, text: str) -> None:
        """Once for each thing that may fail."""
        if about not in self.warned:
            self.warned.add(about)
            get_logger().warning(
                f"the dashboard at {self.server} {text}; the run goes on, and "
                f"--replay {self.record.folder} shows it later"
            )
