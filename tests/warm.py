"""New processes without the seconds of importing PyTorch.

Each is forked from a Python that has imported it (tests/warm_server.py) and has run nothing; this
project's modules are imported anew. What must hold before PyTorch is there, or depends on how
Python starts and ends, needs a subprocess of its own.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import main
from visdom_server import free_port

SERVER = Path(__file__).with_name("warm_server.py")
# What libraries read once, when they are loaded: GOMP_SPINCOUNT as main.py sets it.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "GOMP_SPINCOUNT": main.SPIN_COUNT,
}


@cache
def server(owner: int) -> socket.socket:
    """What takes the requests of the process `owner`; the server ends with that process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours


class Process:
    """`python WORDS` in a process group of its own; like subprocess.Popen with text=True."""

    def __init__(self, *words, cwd=None, env: dict[str, str] | None = None, stdin=None):
        """stdin: None for none, or subprocess.PIPE."""
        self.args = [str(word) for word in words]
        self.returncode: int | None = None
        mine, theirs = zip(*(os.pipe() for _ in range(3)), strict=True)
        reads, writes = os.pipe()
        self.stdin = open(writes, "w")
        if stdin is None:
            self.stdin.close()
        request = {
            "words": self.args,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
        }
        message = json.dumps(request).encode()
        socket.send_fds(server(os.getpid()), [message], [reads, *theirs])
        for descriptor in (reads, *theirs):
            os.close(descriptor)
        self.stdout, self.stderr, self.news = (open(descriptor) for descriptor in mine)
        self.output: dict[io.TextIOWrapper, bytes] = {self.stdout: b"", self.stderr: b""}
        self.pid = int(self.news.readline())

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, -n after signal n. subprocess.TimeoutExpired."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ended:
                ended.register(self.news, selectors.EVENT_READ)
                if not ended.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self.news.readline())
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it and its children write -> stdout, stderr. subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as ready:
            for pipe in self.output:
                ready.register(pipe, selectors.EVENT_READ)
            while ready.get_map():
                events = ready.select(end and end - time.monotonic())
                if not events:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in events:
                    part = os.read(key.fd, 1 << 16)
                    self.output[key.fileobj] += part
                    if not part:
                        ready.unregister(key.fileobj)
        self.wait(end and max(end - time.monotonic(), 0))
        # With the line ends of a text: a bar's \r is one.
        out, err = (io.TextIOWrapper(io.BytesIO(part)).read() for part in self.output.values())
        for pipe in (*self.output, self.news):
            pipe.close()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(*words, timeout: float = 300, **options) -> subprocess.CompletedProcess:
    """The finished process: returncode, stdout, stderr."""
    process = Process(*words, **options)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_ranks(*words, env: dict[str, str] | None = None, timeout: float = 300, **options):
    """The same as two ranks, as a launcher starts them: the outputs of both, and the first exit
    code that is not 0."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    common = {**(os.environ if env is None else env), **place}
    members = [
        Process(*words, env={**common, "RANK": rank, "LOCAL_RANK": rank}, **options)
        for rank in "01"
    ]
    try:
        outputs = [member.communicate(timeout) for member in members]
    finally:
        for member in members:
            member.kill()
    codes = [member.returncode for member in members]
    out, err = ("".join(texts) for texts in zip(*outputs, strict=True))
    return subprocess.CompletedProcess(members[0].args, next(filter(None, codes), 0), out, err)
