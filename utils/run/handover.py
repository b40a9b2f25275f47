"""How a loader worker hands a batch over: through /dev/shm where there is room, else by a pipe.

torch puts every batch into /dev/shm, of which a container has 64 MB unless it is told otherwise. A
worker that finds no room there says so on stderr and goes on, and the run waits for ever for the
batch. Here each worker looks first, and sends what does not fit through the pipe of its queue. The
numbers are the same either way.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor
from torch._utils import ExceptionWrapper

from ..console import warn_once

SHARED_MEMORY = "/dev/shm"
MB = 1 << 20

# Locks and semaphores that torch's queues and events need, at most: they lie in /dev/shm, too.
LOCKS = 16
LOCKS_OF_A_WORKER = 4

told = threading.Event()  # whether this process has said that batches come by a pipe


def hand_over(batch: tuple) -> Any:
    """In a worker: the batch (a named tuple) as it can be sent, in /dev/shm or as a `Piped`."""
    tensors = [value for value in batch if isinstance(value, Tensor)]
    if has_room(sum(tensor.nbytes for tensor in tensors)):
        try:
            for tensor in tensors:
                tensor.share_memory_()
            return batch
        except RuntimeError:
            # Another process took the room between the look and the taking.
            pass
    return Piped(batch)


def has_room(size: int) -> bool:
    """Whether /dev/shm takes `size` bytes and stays half empty: others live there too (NCCL)."""
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        # Elsewhere shared memory has no folder. Taking it fails cleanly where there is none.
        return True
    free = state.f_bavail * state.f_frsize
    return free - size >= state.f_blocks * state.f_frsize // 2


class Piped:
    """A batch that is pickled with its numbers; what arrives is the batch itself."""

    def __init__(self, batch: tuple):
        self.batch = batch

    def __reduce__(self) -> tuple:
        # As arrays, since torch would put tensors into /dev/shm.
        tensors = [isinstance(value, Tensor) for value in self.batch]
        values = [value.numpy() if isinstance(value, Tensor) else value for value in self.batch]
        return receive, (type(self.batch), values, tensors)


def receive(kind: type, values: list, tensors: list[bool]) -> tuple:
    """In the run's own process: the batch that a `Piped` was made of."""
    fields = [
        torch.from_numpy(value) if is_tensor else value
        for value, is_tensor in zip(values, tensors, strict=True)
    ]
    if not told.is_set():
        told.set()
        warn_once(slow_way(sum(field.nbytes for field in fields if isinstance(field, Tensor))))
    return kind(*fields)


def slow_way(size: int) -> str:
    """Says why batches of `size` bytes go through a pipe, and what would avoid it."""
    return (
        f"{SHARED_MEMORY} has {room_in_words()}, too little to queue batches of {in_words(size)}: "
        "they go through a pipe, which is slower; docker run --shm-size 8g, a smaller "
        "--batch-size or --num-workers 0 avoid that"
    )


def room_in_words() -> str:
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        return "no room"
    size = in_words(state.f_blocks * state.f_frsize)
    return f"{size} ({in_words(state.f_bavail * state.f_frsize)} free)"


def in_words(size: int) -> str:
    if size < MB:
        return "under 1 MB"
    return f"{round(size / MB)} MB"


def send_again(queue: Queue, error: Exception, item: Any) -> None:
    """In a worker, where an item of its queue could not be sent: send it otherwise, or say why.

    Python's own answer is a traceback, and a reader that waits for ever. (A hook of
    multiprocessing.Queue, called in the thread that feeds the pipe.)
    """
    number, batch = item
    if isinstance(batch, tuple):
        queue.put((number, Piped(batch)))
        return
    where = "in DataLoader worker process, which could not hand over its batch"
    queue.put((number, ExceptionWrapper((type(error), error, error.__traceback__), where)))


def prepare_worker() -> None:
    """Called in a worker before its first batch."""
    Queue._on_queue_feeder_error = send_again


def possible_workers(workers: int) -> int:
    """`workers`, or 0 where the system has no room for the locks between processes (warned of)."""
    if not workers:
        return 0
    try:
        # Kept until all are there; they go with the list.
        _ = [multiprocessing.Lock() for _ in range(LOCKS + LOCKS_OF_A_WORKER * workers)]
    except (ImportError, OSError) as error:
        warn_once(
            f"no loader workers: {SHARED_MEMORY} has {room_in_words()}, too little for their locks "
            f"({error}): clips are read between the steps; docker run --shm-size 8g avoids that"
        )
        return 0
    return workers
