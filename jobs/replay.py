"""--replay: the record of a finished run, to a visdom server."""

from __future__ import annotations

from pathlib import Path

from utils.console import Console
from utils.dashboard.replay import replay


def run(args) -> None:
    shown = replay(Path(args.replay), args.server, args.port)
    Console().note(f"{args.server}:{args.port} shows {', '.join(shown)}")
