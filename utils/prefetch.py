"""Preparing the next item while the consumer is busy with this one."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Prepared = TypeVar("Item"), TypeVar("Prepared")


def prefetched(items: Iterable[Item], prepare: Callable[[Item], Prepared]) -> Iterator[tuple[Item, Prepared]]:
    """Each item with prepare(item); the next is fetched and prepared on a thread meanwhile. Errors come in turn."""
    source = iter(items)

    def fetch() -> list[tuple[Item, Prepared]]:
        return [(item, prepare(item)) for item in (next(source, source),) if item is not source]

    with ThreadPoolExecutor(1, "prepare") as thread:
        coming = thread.submit(fetch)
        while got := coming.result():
            coming = thread.submit(fetch)
            yield got[0]
