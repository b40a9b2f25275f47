"""A real visdom server on a free port, with an environment folder of its own, and servers that are
none.

As a script it is that server: like `python -m visdom.server`, but it downloads nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import visdom_assets


def post(port: int, endpoint: str, message: dict):
    """The server's answer to a message, as JSON where it is."""
    request = urllib.request.Request(
        f"http://localhost:{port}/{endpoint}", json.dumps(message).encode()
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def windows_of(port: int, env: str) -> dict[str, dict]:
    """The windows that the server has in an environment, by their ids; none where it has no such
    environment."""
    return (
        post(port, "win_data", {"win": None, "eid": env})
        if env in post(port, "env_state", {})
        else {}
    )


def wait_for(condition, seconds: float = 15.0):
    """What condition() gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class VisdomServer:
    """The server's process; kill it and start it again on the same port."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.process = Path(folder), free_port(), None

    def __enter__(self) -> VisdomServer:
        return self.start()

    def __exit__(self, *error) -> None:
        self.kill()

    def start(self) -> VisdomServer:
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
            "STREAMSEG_VISDOM_ASSETS": str(visdom_assets.PLACE),
        }
        with (self.folder / "visdom.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(self.port), str(self.folder)],
                stdout=output,
                stderr=output,
                env=environment,
            )
        wait_for(self.answers, 60)
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "visdom.log").read_text()
        try:
            return isinstance(post(self.port, "env_state", {}), list)
        except OSError:
            return False

    def kill(self, *, forget: bool = False) -> None:
        """forget: its environments too."""
        self.process.kill()
        self.process.wait()
        if forget:
            shutil.rmtree(self.folder / "environments", ignore_errors=True)


@contextmanager
def hanging_port():
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen(128)
        yield listening.getsockname()[1]


def serve(port: int, folder: Path) -> None:
    """What the process does: visdom's pages from a copy of its own files and the fetched ones."""
    import visdom
    from visdom.server import app, run_server

    static = folder / "static"
    shutil.copytree(Path(visdom.__file__).parent / "static", static, dirs_exist_ok=True)
    if visdom_assets.PLACE.is_dir():
        shutil.copytree(visdom_assets.PLACE, static, dirs_exist_ok=True)
    app.tornado_settings |= {"static_path": str(static), "template_path": str(static)}
    environments = folder / "environments"
    environments.mkdir(exist_ok=True)
    run_server.start_server(port=port, base_url="", env_path=str(environments), bind_local=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
