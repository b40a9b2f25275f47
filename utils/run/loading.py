"""From a data set of clips to batches: collation and the two loaders."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, get_worker_info

from ..training.sampler import EpochBatches
from .handover import hand_over, possible_workers, prepare_worker
from .stopping import Interrupted, StopRequest

# Seconds that a batch may still take once a signal asked to stop: its step is then done, too.
GRACE = 3.0


def begin_worker(worker: int) -> None:
    """A loader worker leaves stopping to the process that started it, which may first want the rest
    of its batch."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker()


def collate(clips: list) -> tuple:
    """Clips (named tuples) to one clip with a leading B; flows stay None, names become a list.

    ValueError names the clip whose frames have another size than the first's.
    """
    first = clips[0]
    for clip in clips:
        if clip.frames.shape != first.frames.shape:
            raise ValueError(
                f"the frames of {clip.name} are {tuple(clip.frames.shape[-2:])}, those of "
                f"{first.name} "
                f"{tuple(first.frames.shape[-2:])}: add --random-crop H W or --batch-size 1"
            )
    fields = {}
    for name, value in first._asdict().items():
        values = [getattr(clip, name) for clip in clips]
        if isinstance(value, torch.Tensor):
            fields[name] = torch.stack(values)
        elif isinstance(value, int):
            fields[name] = torch.tensor(values)
        else:
            fields[name] = None if value is None else values
    batch = type(first)(**fields)
    return hand_over(batch) if get_worker_info() else batch


class Loader(DataLoader):
    """Waits for a batch no longer than it should.

    A worker that died while it handed over a batch is told of as torch tells of others:
    RuntimeError. Where `stop` was asked for and no batch has come GRACE seconds later, Interrupted.
    """

    def __init__(self, dataset, *, stop: StopRequest | None = None, **options):
        super().__init__(dataset, **options)
        self.stop = stop

    def __iter__(self) -> Iterator[tuple]:
        try:
            batches = super().__iter__()
            while True:
                with ended_by(self.stop):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
                # Not kept during the wait for the next one.
                del batch
        except Interrupted:
            # A worker that hangs would be waited for when the loader goes.
            end_workers()
            raise
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            # An error of a worker's own comes whole, with its traceback: torch has told it.
            if not self.num_workers or "in DataLoader worker process" in str(error):
                raise
            raise RuntimeError(f"DataLoader worker (pid unknown) is gone: {error}") from error


@contextmanager
def ended_by(stop: StopRequest | None) -> Iterator[None]:
    """What is done within raises Interrupted GRACE seconds after `stop` was asked for."""
    # Without timers (Windows) the wait ends with the batch.
    if stop is None or not hasattr(signal, "setitimer"):
        yield
        return

    set_before = []

    def set_timer() -> None:
        # Others may use this timer, too: it is touched only where a signal came.
        if not set_before:
            set_before.append(signal.signal(signal.SIGALRM, lambda number, frame: stop.check()))
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    wake = stop.wake
    stop.wake = set_timer
    try:
        # The signal may have come before the wait.
        if stop:
            set_timer()
        yield
    finally:
        stop.wake = wake
        for handler in set_before:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def training_loader(
    dataset, batches: EpochBatches, workers: int, device: str, stop: StopRequest | None = None
) -> DataLoader:
    """A loader that follows `batches`, epoch after epoch. stop: a signal that ends a wait."""
    workers = possible_workers(workers)
    return Loader(
        dataset,
        stop=stop,
        batch_sampler=batches,
        pin_memory=device == "cuda",
        persistent_workers=workers > 0,
        **common(workers),
    )


def evaluation_loader(
    dataset,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    start: int = 0,
    stop: StopRequest | None = None,
) -> DataLoader:
    """This rank's share, in order, one clip at a time: whole videos where the data set steps, else
    every ranks-th.

    start: how many of its clips are done already; stop: a signal that ends a wait.
    """
    workers = possible_workers(workers)
    if dataset.step:
        # A video is stepped by one rank from its first frame to its last.
        mine = [i for i, (video, _) in enumerate(dataset.samples) if video % ranks == rank]
    else:
        mine = list(range(rank, len(dataset), ranks))
    sampler = InOrder(mine[start:])
    return Loader(dataset, stop=stop, sampler=sampler, batch_size=1, **common(workers))


@functools.cache
def end_workers_at_exit() -> None:
    """Once: multiprocessing ends its children by SIGTERM, which ours ignore, and would wait for
    them for ever."""
    atexit.register(end_workers)


def end_workers() -> None:
    """Kill the loader workers that still live: an error left their loader in the middle of an
    epoch."""
    children = multiprocessing.active_children()
    if children:
        # torch's handler would call the end of a worker a failure.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in children:
        child.kill()


def common(workers: int) -> dict:
    """What both loaders have."""
    context = None
    if workers:
        end_workers_at_exit()
        # Forked where that is safe: a data set may hold a method's `training_offsets`, and with it
        # the network, which would have to be pickled otherwise.
        context = "fork" if sys.platform == "linux" else None
    return {
        "num_workers": workers,
        "collate_fn": collate,
        "worker_init_fn": begin_worker,
        # Their own: they must not draw from the run's random state.
        "generator": torch.Generator(),
        "multiprocessing_context": context,
    }


class InOrder:
    """A sampler of given indices."""

    def __init__(self, indices: list[int]):
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
