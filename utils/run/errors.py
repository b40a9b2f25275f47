"""Formats user errors as one line on stderr."""

from __future__ import annotations

import re
import signal
import sys
import time
import traceback
from pathlib import Path

from .dist import rank

ROOT = Path(__file__).resolve().parents[2]

USER_ERRORS = (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError, OverflowError)
PATIENCE = 10.0  # seconds in which rank 0 tells what all ranks met


LONGEST = 500  # characters of a message in several lines

# Messages of PyTorch: what they contain, and what a user is told instead. {text}: the message.
PLAIN_WORDS = {
    "DataLoader worker (pid": (
        "a loader worker died ({text:.100}): if nobody killed it, memory was short: lower "
        "--num-workers"
    ),
    "gloo/transport": "another rank has ended, so this one cannot go on",
    "Expected more than 1 value per channel": (
        "batch norm needs more than one value per channel: raise --batch-size to 2 or more"
    ),
    "out of memory": "{text:.200}; lower --batch-size, --work-size or --random-crop",
}


def one_line(error: BaseException) -> str:
    """The text of an error in one line, in words that say what to do.

    An error that nobody raised on purpose is a fault of the tool's: its place stands behind it.
    """
    text = first_words(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory for this ({text}): choose smaller sizes"
    for sign, words in PLAIN_WORDS.items():
        if sign in text:
            return words.format(text=text)
    return text + place(error)


def place(error: BaseException) -> str:
    """Where in our code an error came up that is no mistake of the user's; else nothing.

    What the system says (OSError) and what a `raise` of ours says is meant for the user.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    if isinstance(error, OSError) or not ours or "DataLoader worker" in str(error):
        return ""
    last = frames[-1]
    if last is ours[-1] and (last.line or "").startswith("raise"):
        return ""
    where = Path(ours[-1].filename).relative_to(ROOT)
    return f" (unexpected, at {where}:{ours[-1].lineno}; STREAMSEG_DEBUG=1 shows more)"


def first_words(error: BaseException) -> str:
    """The message in one line; of an error that a loader worker raised, the original's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = re.sub(r"^\[Errno \d+\] ", "", lines[0])
    if "in DataLoader worker process" in text:
        # The last line of the worker's traceback: "ValueError: what was wrong".
        return lines[-1].partition(": ")[2] or lines[-1]
    if len(lines) > 1:
        return " ".join([text, *lines[1:]])[:LONGEST]
    return text


def say(text: str) -> None:
    """Print the line.

    A rank other than 0 waits first: rank 0 meets most mistakes too, and its end ends all ranks.
    """
    if rank():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)
        text = f"[rank {rank()}] {text}"
    print(f"main.py: error: {text}", file=sys.stderr, flush=True)
