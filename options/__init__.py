"""Every option of the tool. Imports no torch, so `python main.py --help` is instant.

An option is declared once (option.py), in the file of its subject; a method, a backbone or a data
set declares its own beside its row. Everything else is derived in acting.py.
"""

from .acting import (
    all_options,
    network,
    parse,
    recipe,
    same_on_all_ranks,
    values,
    weights_to_run,
    without_effect,
)
from .help import HELP_WORDS
from .tables import BACKBONES, DATASETS, METHODS

__all__ = [
    "BACKBONES",
    "DATASETS",
    "HELP_WORDS",
    "METHODS",
    "all_options",
    "network",
    "parse",
    "recipe",
    "same_on_all_ranks",
    "values",
    "weights_to_run",
    "without_effect",
]
