"""Weights are loaded whole or not at all, under our own names or those of a published file (matching.py).

load_weights(model, paths)      weights that fit
network_of(paths)               the options of the network that weights are for, where files say so
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import read
from .matching import AUXILIARY, UNCOUNTED, best_fit, some


def network_of(paths: list[str]) -> dict[str, Any]:
    """What files say about the network their weights are for ("network", by option); the last counts.

    Files that say nothing, or cannot be read, add nothing: `load_weights` tells what is wrong with them.
    """
    found = {}
    for path in paths:
        with suppress(OSError, ValueError):
            content = read(path)
            found |= (
                content["network"]
                if isinstance(content, dict) and _is_options(content.get("network"))
                else {}
            )
    return found


def _is_options(network: Any) -> bool:
    """Whether this is a table of options: values by name."""
    return isinstance(network, dict) and all(
        type(key) is str and type(value) in (bool, int, str) for key, value in network.items()
    )


@dataclass(frozen=True)
class Report:
    """What `load_weights` did."""

    files: tuple[str, ...]
    maps: tuple[str, ...]  # per file: how its names were read
    loaded: int  # entries of the model that came from a file
    new: tuple[str, ...]  # entries of the model that are in no file
    unused: tuple[str, ...]  # entries of the files that are known and not used
    classes: tuple[str, ...] = ()  # that the network was trained for, where a file says so

    def __str__(self) -> str:
        sources = ", ".join(
            f"{file} ({name})" for file, name in zip(self.files, self.maps, strict=True)
        )
        new = f"; new: {some(self.new)}" if self.new else ""
        unused = f"; not used: {some(self.unused)}" if self.unused else ""
        return f"loaded {self.loaded} of {self.loaded + len(self.new)} entries from {sources}{new}{unused}"


def load_weights(
    model: nn.Module,
    paths: str | Path | list[str | Path],
    *,
    complete: bool = False,
    new_classes: bool = False,
) -> Report:
    """Load the model from one or more files; of an entry that several hold, the last counts.

    A file is read under our own names if they fit, else by that of `model.key_maps()` which fits it best. An
    entry the table does not know, another shape, a file that lacks part of what it should hold: ValueError,
    and the model is as before. complete: entries that are in no file are an error too (but for heads that
    only training uses); otherwise they are reported as new. new_classes: outputs for another number of classes than
    the model's are left out, and the model's are new.
    """
    paths = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    targets, contents = model.state_dict(), [read(path) for path in paths]
    outputs = (
        model.backbone.num_outputs if new_classes else None
    )  # of layers: a constant output has none
    fits = [
        best_fit(model, targets, weights_of(content, path), path, outputs)
        for content, path in zip(contents, paths, strict=True)
    ]
    classes = next(
        (
            tuple(content["classes"])
            for content in contents
            if isinstance(content, dict) and isinstance(content.get("classes"), list)
        ),
        (),
    )
    loaded = {name: tensor for fit in fits for name, tensor in fit.tensors.items()}
    new = tuple(name for name in targets if name not in loaded)
    needed = [
        name for name in new if not name.endswith(UNCOUNTED) and not AUXILIARY.fullmatch(name)
    ]
    if complete and needed:
        raise ValueError(
            f"{', '.join(map(str, paths)) or 'no file'}: the model is not complete without "
            f"{some(needed)}; give the weights of the whole network, not of a part of it or of another "
            "--method"
        )
    with torch.no_grad():
        for name, tensor in loaded.items():
            targets[name].copy_(tensor)  # casts: published files may be in half precision
    return Report(
        tuple(map(str, paths)),
        tuple(fit.name for fit in fits),
        len(loaded),
        new,
        tuple(key for fit in fits for key in fit.unused),
        classes,
    )


def weights_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in what a file holds: bare, or below `state_dict` or `model`; leading `module.` removed.

    Further ones beside it keep their name: the entries of `state_dict_of` become `state_dict_of.<key>`.
    """
    parts = {"": content}
    wrapper = next(
        (
            name
            for name in ("state_dict", "model")
            if isinstance(content, dict) and isinstance(content.get(name), dict)
        ),
        None,
    )
    if wrapper:
        parts = {
            f"{name}." if name != wrapper else "": part
            for name, part in content.items()
            if name == wrapper or str(name).startswith("state_dict_")
        }
    weights: dict[str, Tensor] = {}
    for prefix, part in parts.items():
        if not (
            isinstance(part, dict)
            and part
            and all(isinstance(value, Tensor) for value in part.values())
        ):
            held = (
                ", ".join(map(str, list(part)[:5]))
                if isinstance(part, dict)
                else f"a {type(part).__name__}"
            )
            raise ValueError(
                f"{path} holds no weights: found {held or 'nothing'}, expected tensors by name"
            )
        for key, tensor in part.items():
            name = prefix + re.sub(r"^(?:module\.)+", "", str(key))
            if name in weights:
                raise ValueError(
                    f"{path} holds {name} twice, with and without `module.`: save one network alone"
                )
            weights[name] = tensor
    return weights
