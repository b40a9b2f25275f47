"""An evaluation in one call, as the jobs put it together."""

from __future__ import annotations

import torch

from engine import evaluate
from utils.metrics.scoring import standard_metrics
from utils.run.loading import evaluation_loader
from utils.views import Views


def evaluated(model, data, *, loader=None, original_size=False, degraded=None, **options) -> dict:
    """What `engine.evaluate` gives on the CPU, over time too where the data set steps."""
    metrics = standard_metrics(
        data.num_classes,
        consistency=data.step,
        cross_entropy=model.cross_entropy,
        original_size=original_size,
        degraded=degraded,
    )
    settings = {
        "device": torch.device("cpu"),
        "views": Views(model.size_rule),
        "autocast": torch.autocast("cpu", enabled=False),
        "stepping": data.step,
        "score_at_work_size": original_size,
    }
    if loader is None:
        loader = evaluation_loader(data, 0)
    return evaluate(model, loader, metrics, **settings | options)
