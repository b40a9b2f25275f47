"""Memory that tensors leave is kept for the next ones.

glibc hands large blocks back to the system the moment they are freed, and gets them back page by
page, zeroed: a network on a CPU that makes and drops maps of some megabytes spends much of its time
so. Told not to, it keeps them; the process then stays at its largest size, which bounded memory
does not change.
"""

from __future__ import annotations

import ctypes
import os
import platform

# M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
TRIM_THRESHOLD = -1
MMAP_MAX = -4
SETTINGS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
)


def keep_freed_memory() -> bool:
    """To be called before the first large tensor -> whether it was done.

    Not without glibc, nor where the environment sets it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # -1: never give the top of the heap back; no block is mapped on its own
    return bool(mallopt(TRIM_THRESHOLD, -1) and mallopt(MMAP_MAX, 0))
