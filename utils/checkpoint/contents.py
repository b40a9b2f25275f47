"""What a checkpoint holds: weights (bare or wrapped), the network's options and class names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from .reading import read

# Names below which a file may hold its state dict; the first one found counts.
WRAPPERS = ("state_dict", "model")

# Types that the value of an option can have; a list or tuple of them is one, too.
OPTION_VALUES = (bool, int, float, str)


def network_of(paths: list[str]) -> dict[str, Any]:
    """The options of the network that the weights in `paths` are for, by name.

    They are the entries of a checkpoint's table "network"; of an option that several files name,
    the last counts. Entries that no option can have are left out, the others stay: a name must be a
    str, a value a bool, int, float, str, or a list or tuple of these. A file without such a table,
    or one that cannot be read, adds nothing.
    """
    found: dict[str, Any] = {}
    for path in paths:
        # load_weights reads the same files and reports what is wrong with them.
        with suppress(OSError, ValueError):
            found |= _network_options(read(path))
    return found


def classes_of(contents: Iterable[Any]) -> tuple[str, ...]:
    """The names of the classes that weights were trained for, of the first file that has them."""
    for content in contents:
        classes = _entry(content, "classes")
        if isinstance(classes, list):
            return tuple(classes)
    return ()


def weights_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in the content of the file at `path`, without a leading `module.` in its keys.

    It is bare, or below `state_dict` or `model`. Others beside it keep their name: the entries of
    `state_dict_of` become `state_dict_of.<key>`. Raises ValueError where the file holds no weights.
    """
    weights: dict[str, Tensor] = {}
    for prefix, state_dict in _state_dicts(content).items():
        _require_tensors(state_dict, path)
        for key, tensor in state_dict.items():
            # DataParallel and DistributedDataParallel put "module." before every key.
            name = prefix + re.sub(r"^(?:module\.)+", "", str(key))
            if name in weights:
                raise ValueError(
                    f"{path} holds {name} twice, with and without `module.`: save one network alone"
                )
            weights[name] = tensor
    return weights


def _entry(content: Any, name: str) -> Any:
    """content[name]; None where `content` is no dict or does not have it."""
    if isinstance(content, dict):
        return content.get(name)
    return None


def _network_options(content: Any) -> dict[str, Any]:
    network = _entry(content, "network")
    if not isinstance(network, dict):
        return {}
    return {
        key: value for key, value in network.items() if type(key) is str and _is_option_value(value)
    }


def _is_option_value(value: Any) -> bool:
    # A list of lists is none: an option takes one row of values.
    if type(value) in (list, tuple):
        return all(type(item) in OPTION_VALUES for item in value)
    return type(value) in OPTION_VALUES


def _state_dicts(content: Any) -> dict[str, Any]:
    """What should be a state dict in `content`, by the prefix that its keys get."""
    wrapper = _wrapper(content)
    if wrapper is None:
        return {"": content}
    found = {}
    for name, part in content.items():
        # Optimizers, epochs and the like lie beside the state dicts.
        if name == wrapper:
            found[""] = part
        elif str(name).startswith("state_dict_"):
            found[f"{name}."] = part
    return found


def _wrapper(content: Any) -> str | None:
    for name in WRAPPERS:
        if isinstance(_entry(content, name), dict):
            return name
    return None


def _require_tensors(state_dict: Any, path: str | Path) -> None:
    """Raise ValueError unless `state_dict` is a dict of tensors, and not empty."""
    if _is_state_dict(state_dict):
        return
    if isinstance(state_dict, dict):
        # The first few names are enough to recognize a file by.
        found = ", ".join(map(str, list(state_dict)[:5])) or "nothing"
    else:
        found = f"a {type(state_dict).__name__}"
    raise ValueError(f"{path} holds no weights: found {found}, expected tensors by name")


def _is_state_dict(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(value, Tensor) for value in content.values())
