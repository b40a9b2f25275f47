"""A Python that has imported PyTorch and forks a process for each request (tests/warm.py asks it).

A request is one message on a socket: a JSON object with the words after `python`, the folder and
the environment, and four descriptors: stdin, stdout, stderr and a pipe for the news. The news are
two lines, the process's number and, once it has ended, its exit code (-n after signal n).

Processes end without taking their Python apart: objects it shares with all others would be copied.

python warm_server.py DESCRIPTOR
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module

# What trainings and ranks import as well. Nothing of this project: each process reads it anew.
PRELOADED = (
    "torch._dynamo",
    "torch.utils.data",
    "torch.distributed.launcher.api",
    "matplotlib.backends.backend_agg",
)
LONGEST = 1 << 17  # bytes of a request


def preload() -> None:
    for name in PRELOADED:
        import_module(name)


def serve(control: socket.socket) -> dict | None:
    """Answer requests -> None when nobody asks any more; in each new process, what it is to do."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LONGEST, 4)
        if not message:
            return None
        request = json.loads(message)
        if not os.fork():
            control.close()
            return watch(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        reap()


def reap() -> None:
    """Watchers that have ended are forgotten."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def watch(request: dict, descriptors: list[int]) -> dict:
    """Fork the process itself and tell its news. -> only in that process."""
    *streams, news = descriptors
    pid = os.fork()
    if not pid:
        os.close(news)
        become(request, streams)
        return request
    for descriptor in streams:
        os.close(descriptor)
    os.write(news, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(news, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict, streams: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])


def run(words: list[str]) -> None:
    """As `python WORDS`: a script, or -c and code."""
    sys.argv = words
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path[0] = ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def run_to_its_end(words: list[str]) -> None:
    try:
        run(words)
    except SystemExit as end:
        leave(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        leave(1)
    leave(0)


def leave(code: int | str | None) -> None:
    """As sys.exit(code), with what is registered for the end of a process."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    preload()
    gc.freeze()  # what is imported is looked at no more: looking would copy it
    todo = serve(socket.socket(fileno=int(sys.argv[1])))
    if todo:
        run_to_its_end(todo["words"])
