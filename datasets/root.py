"""Where a data set's files are."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(args) -> Path:
    """--data-root or the data set's environment variable.

    FileNotFoundError if neither is a folder.
    """
    # The option counts more than the environment.
    root = args.data_root or os.environ.get(args.root_variable)
    if not root:
        raise FileNotFoundError(
            f"--dataset {args.dataset} needs --data-root (or {args.root_variable}): the folder of "
            "the data"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"--data-root {root} is not a folder: give the folder of the {args.dataset} data"
        )
    return Path(root)
