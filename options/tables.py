"""The tables of methods, backbones and data sets, by name."""

from __future__ import annotations

from .backbones import ROWS as BACKBONE_ROWS
from .datasets import ROWS as DATASET_ROWS
from .methods import method_rows
from .rows import Backbone, Dataset, Method

METHODS: dict[str, Method] = {row.name: row for row in method_rows()}
BACKBONES: dict[str, Backbone] = {row.name: row for row in BACKBONE_ROWS}
DATASETS: dict[str, Dataset] = {row.name: row for row in DATASET_ROWS}
