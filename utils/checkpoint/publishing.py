"""Writes weights of ours in the form of a published file, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .saving import save


def save_published(
    model: nn.Module,
    path: str | Path,
    *,
    classes: Sequence[str] = (),
    palette: Sequence[tuple[int, int, int]] = (),
) -> str:
    """Write the weights of `model` under published names -> the name of the form.

    A dict with `meta` and `state_dict`, as mmcv's programs read it; classes and palette go into
    `meta`. ValueError where the network, on this backbone, has no published form.
    """
    for table in model.key_maps():
        if table.back:
            state = {table.published(key): value for key, value in model.state_dict().items()}
            if not table.rename(state).unexpected:
                colours = [list(map(int, colour)) for colour in palette]
                meta = {"CLASSES": list(classes), "PALETTE": colours}
                save(path, {"meta": meta, "state_dict": state})
                return table.name
    raise ValueError(f"{type(model).__name__} on this backbone has no published form to write")
