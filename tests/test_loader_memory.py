"""Batches reach the run whatever room /dev/shm has, and signals end the wait for one."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from utils.run import handover, loading
from utils.run.loading import evaluation_loader, training_loader
from utils.run.stopping import Interrupted, StopRequest
from utils.training.sampler import EpochBatches, Share

ROOT = Path(__file__).resolve().parents[1]
MB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")


class Clip(NamedTuple):
    frames: torch.Tensor
    labels: torch.Tensor
    flows: torch.Tensor | None
    name: str
    video: int


class Data:
    """Clips of two megabytes, each filled with its number."""

    step = False

    def __init__(self, length: int = 6, wait: float = 0.0):
        self.length = length
        self.wait = wait

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key) -> Clip:
        index = key if isinstance(key, int) else key[0]
        # The first clip comes at once.
        if index:
            time.sleep(self.wait)
        frames = torch.full((2, 3, 256, 340), float(index))
        return Clip(frames, torch.full((2, 8, 8), index), None, f"clip {index}", index)


def batches_of(workers: int, length: int = 6) -> list[Clip]:
    """Two epochs by the loader of training, one by that of evaluation."""
    data = Data(length)
    order = EpochBatches([Share(length, length)], 2)
    loader = training_loader(data, order, workers, "cpu")
    found = []
    for epoch in range(2):
        order.begin(epoch)
        found += loader
    return [*found, *evaluation_loader(data, workers)]


def assert_same(batches: list[Clip], others: list[Clip]) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert type(batch) is type(other) and batch.name == other.name and other.flows is None
        for name in ("frames", "labels", "video"):
            value = getattr(batch, name)
            assert value.dtype == getattr(other, name).dtype
            assert torch.equal(value, getattr(other, name))


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    found = []
    monkeypatch.setattr(handover, "warn_once", found.append)
    handover.told.clear()
    yield found
    handover.told.clear()


def pretend_room(monkeypatch, size: int, free: int) -> None:
    """An /dev/shm of `size` bytes with `free` bytes left."""
    state = SimpleNamespace(f_blocks=size // 4096, f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr(handover.os, "statvfs", lambda path: state)


@pytest.mark.parametrize("free", [0, 1, 33, 64])
def test_batches_are_the_same_through_a_pipe_and_one_line_says_so(monkeypatch, warnings, free):
    pretend_room(monkeypatch, 64 * MB, free * MB)
    assert_same(batches_of(2), batches_of(0))
    # Batches of 4 MB: half of /dev/shm stays free.
    if free == 64:
        assert warnings == []
    else:
        (line,) = warnings
        assert line.startswith("/dev/shm has 64 MB (")
        assert "too little to queue batches of 4 MB: they go through a pipe" in line
        for way in ("--num-workers 0", "--batch-size", "docker run --shm-size"):
            assert way in line


def test_room_that_is_gone_when_it_is_taken_costs_no_batch(monkeypatch, warnings):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert_same(batches_of(2), batches_of(0))
    assert len(warnings) == 1


def test_what_the_queue_cannot_send_goes_another_way(monkeypatch, warnings):
    """As where files or sockets have run out while a tensor is handed over."""

    def broken(*args):
        raise OSError(24, "Too many open files")

    # The queue's thread of a worker asks for it.
    monkeypatch.setattr(torch.multiprocessing.reductions, "reduce_storage", broken)
    handlers = multiprocessing.reduction.ForkingPickler._extra_reducers
    for kind in list(handlers):
        if kind is torch.UntypedStorage or kind is torch.Tensor:
            monkeypatch.setitem(handlers, kind, broken)
    assert_same(batches_of(1), batches_of(0))


def test_what_no_way_can_send_is_an_error_and_no_wait(monkeypatch):
    def unsendable(batch):
        return {"lock": threading.Lock()}

    monkeypatch.setattr(loading, "hand_over", unsendable)
    with pytest.raises(TypeError, match="in DataLoader worker process"):
        list(evaluation_loader(Data(), 1))


def test_without_room_for_locks_there_are_no_workers(monkeypatch, warnings):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handover.multiprocessing, "Lock", full)
    assert_same(batches_of(2), batches_of(0))
    assert len(warnings) == 2 and "no loader workers: /dev/shm has" in warnings[0]


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import test_loader_memory as here
from utils.console import Console
Console()
here.assert_same(here.batches_of(2), here.batches_of(0))
"""


@pytest.mark.parametrize("size", ["16k", "1m", "9m", "128m"])
def test_a_small_dev_shm_is_enough(tmp_path, size):
    """On a real one, where this system permits."""
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    unshare = shutil.which("unshare")
    trial = [unshare or "false", "-m", "sh", "-c", mount]
    if subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("needs the right to mount: root, and unshare -m")
    (tmp_path / "job.py").write_text(SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests")))
    command = f"{mount} && exec {sys.executable} {tmp_path / 'job.py'}"
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", command], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all("/dev/shm has" in line and "docker run --shm-size" in line for line in lines)
    assert (not lines) == (size == "128m")


# Signals


@pytest.fixture
def stop():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield StopRequest("; --resume goes on from here").listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_ends_the_wait_for_a_batch_that_does_not_come(monkeypatch, stop, workers, number):
    monkeypatch.setattr(loading, "GRACE", 0.3)
    loader = evaluation_loader(Data(wait=60.0), workers, stop=stop)
    begun = time.monotonic()
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    with pytest.raises(Interrupted, match=rf"{number.name}; --resume") as caught:
        list(loader)
    assert caught.value.code == 128 + number
    assert time.monotonic() - begun < 10
    # They ignore SIGTERM, and sleep for a minute.
    for child in multiprocessing.active_children():
        child.join(5)
        assert not child.is_alive()


def test_a_signal_before_the_wait_ends_it_too(monkeypatch, stop):
    monkeypatch.setattr(loading, "GRACE", 0.3)
    batches = iter(evaluation_loader(Data(wait=60.0), 1, stop=stop))
    assert next(batches).name == ["clip 0"]
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted):
        next(batches)


def test_a_batch_that_comes_soon_after_a_signal_is_handed_over(monkeypatch, stop):
    """Its step can then be done, and the run stops where all ranks stop."""
    before = signal.getsignal(signal.SIGALRM)
    batches = iter(evaluation_loader(Data(wait=0.5), 0, stop=stop))
    next(batches)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert next(batches).name == ["clip 1"] and stop
    assert signal.getsignal(signal.SIGALRM) == before
    batches.close()
