"""Whether the folders of the tool are the ones that Python finds."""

from __future__ import annotations

from pathlib import Path

import datasets

ROOT = Path(__file__).resolve().parents[1]


def check_installation() -> None:
    """RuntimeError where a package of another project hides our folder `datasets`.

    That is the name of a widely installed package, and `python -P` leaves our folder off the path.
    """
    if Path(datasets.__file__).resolve().parents[1] != ROOT:
        raise RuntimeError(
            f"the folder datasets of StreamSeg is hidden by {datasets.__file__}: "
            f"run `python {ROOT / 'main.py'}` without -P and without PYTHONSAFEPATH"
        )
