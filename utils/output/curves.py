"""curves.png: loss, mIoU and learning rate over the epochs, drawn from automated_log.txt."""

from __future__ import annotations

import io
import math
from pathlib import Path

from .. import log
from ..console import warn_once
from ..files import write_bytes

TRAIN = "#1f77b4"
VAL = "#d62728"
RATE = "#4d4d4d"
RATE_TITLE = "learning rate"


def draw_curves(folder: Path) -> Path | None:
    """Draw `folder`/automated_log.txt into `folder`/curves.png and return its path.

    None, and no picture, where matplotlib is missing (said once) or no epoch is over yet.
    ValueError as log.read.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        warn_once("no curves.png is drawn: matplotlib is not installed (pip install matplotlib)")
        return None
    folder = Path(folder)
    rows = log.read(folder / log.LOG_NAME)
    if not rows:
        return None
    panels = _panels(rows)
    # Without pyplot: it would choose a window system and keep every figure alive.
    figure = Figure(figsize=(8, 2.8 * len(panels)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    columns = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(columns, panels, strict=True):
        _draw(axes, title, [row.epoch for row in rows], curves)
    columns[-1].set_xlabel("epoch")
    figure.align_ylabels()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes(folder / "curves.png", picture.getvalue())
    return folder / "curves.png"


def _panels(rows: list[log.Row]) -> list[tuple[str, list[tuple[str, str, list[float]]]]]:
    """(title, [(name, colour, values)]) per panel, without curves that nobody measured: mIoU is 0
    there, or nan."""
    percent = [
        ("train", TRAIN, [100 * row.train_miou for row in rows]),
        ("val", VAL, [100 * row.val_miou for row in rows]),
    ]
    losses = [
        ("train", TRAIN, [row.train_loss for row in rows]),
        ("val", VAL, [row.val_loss for row in rows]),
    ]
    panels = [
        ("loss", [curve for curve in losses if not all(math.isnan(value) for value in curve[2])]),
        ("mIoU (%)", [curve for curve in percent if any(value > 0 for value in curve[2])]),
        (RATE_TITLE, [(RATE_TITLE, RATE, [row.lr for row in rows])]),
    ]
    return [(title, curves) for title, curves in panels if curves]


def _draw(axes, title: str, epochs: list[int], curves: list[tuple[str, str, list[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    marker = (
        "o" if len(epochs) <= 60 else None
    )  # a single epoch is a point, which no line would show
    for name, colour, values in curves:
        axes.plot(
            epochs, values, color=colour, label=name, marker=marker, markersize=3, linewidth=1.5
        )
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if title == RATE_TITLE:
        _scale(axes, curves[0][2])
    else:
        axes.legend(frameon=False)


def _scale(axes, rates: list[float]) -> None:
    """A rate that falls by powers is read on a logarithmic scale."""
    if min(rates) > 0 and max(rates) > 10 * min(rates):
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", style="scientific", scilimits=(-3, 3))
