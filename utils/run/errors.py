"""How a mistake of the user's is told: one line on stderr."""

from __future__ import annotations

import re
import signal
import sys
import time

from .dist import rank

USER_ERRORS = (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError, OverflowError)
PATIENCE = 10.0  # seconds in which rank 0 tells what all ranks met


def one_line(error: BaseException) -> str:
    """The text of an error in one line; of one that a loader worker raised, the original's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    text = re.sub(r"^\[Errno \d+\] ", "", lines[0])
    if "in DataLoader worker process" in text:
        text = lines[-1].partition(": ")[2] or lines[-1]
    elif len(lines) > 1:
        text = " ".join([text, *lines[1:]])[:500]
    if text.startswith("DataLoader worker (pid"):
        text = f"a loader worker died ({text[:100]}): if nobody killed it, memory was short: lower --num-workers"
    if isinstance(error, MemoryError):
        text = f"there is not enough memory for this ({text}): choose smaller sizes"
    if "gloo/transport" in text:
        text = "another rank has ended, so this one cannot go on"
    if text.startswith("Expected more than 1 value per channel"):
        text = "batch norm needs more than one value per channel: raise --batch-size to 2 or more"
    if "out of memory" in text:
        text = f"{text[:200]}; lower --batch-size, --work-size or --random-crop"
    return text


def say(text: str) -> None:
    """Print the line. A rank other than 0 waits first: rank 0 meets most mistakes too, and its end
    ends all ranks."""
    if rank():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)
        text = f"[rank {rank()}] {text}"
    print(f"main.py: error: {text}", file=sys.stderr, flush=True)
