"""What a checkpoint holds: weights (bare or wrapped), the network's options, its classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from .reading import read

# Names below which a file may hold its state dict; the first one found counts.
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
# The same for averages of the weights over training, which count where there is nothing else.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")

# What wrappers of a module put before its keys: DataParallel and DistributedDataParallel (module),
# torch.compile, FSDP, activation checkpoints. The latter ones may wrap a part of a network.
OUTER = re.compile(r"^(?:module\.)+")
ANYWHERE = re.compile(r"(?<![^.])_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")

# What a program may call its network; keys that all begin so may be read without it.
SHARED = ("module.", "model.", "net.", "network.")

COUNTER = "n_averaged"  # of torch's AveragedModel, beside module.*

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
        classes = _classes(content)
        if classes:
            return classes
    return ()


def palette_of(contents: Iterable[Any]) -> tuple[tuple[int, int, int], ...]:
    """The colours (R, G, B, 0 to 255) of `classes_of`; none where they do not fit the classes."""
    for content in contents:
        classes = _classes(content)
        if classes:
            return _colours(_entry(content, "palette"), len(classes))
    return ()


def work_size_of(contents: Iterable[Any]) -> tuple[int, int] | None:
    """(H, W) that the network was trained to label at, of the first file that says so."""
    for content in contents:
        size = _entry(content, "work_size")
        if _are_ints(size, 2, range(1, 1 << 20)):
            return tuple(size)
    return None


def weights_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in the content of the file at `path`, without what wrappers put into its keys.

    It is bare, or below one of WRAPPERS or AVERAGES, or below two of them. Others beside it keep
    their name: the entries of `state_dict_of` become `state_dict_of.<key>`. Raises ValueError where
    the file holds no weights.
    """
    weights: dict[str, Tensor] = {}
    for prefix, state_dict in _state_dicts(content).items():
        _require_tensors(state_dict, path)
        for key, tensor in _without_counter(state_dict).items():
            name = prefix + _unwrapped(key)
            if name in weights:
                raise ValueError(
                    f"{path} holds {name} twice, with and without `module.`: save one network alone"
                )
            weights[name] = tensor
    return weights


def namings_of(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The same weights under each name they may be meant by: as they are, then without `model.`...

    A beginning is left out where all keys have it.
    """
    namings = [weights]
    while True:
        last = namings[-1]
        shared = [prefix for prefix in SHARED if all(key.startswith(prefix) for key in last)]
        if not shared or not last:
            return namings
        (prefix,) = shared
        namings.append({key.removeprefix(prefix): tensor for key, tensor in last.items()})


def choice_of(content: Any) -> str:
    """Which weights were taken, in words, of a file with averages; "" for any other."""
    averages = [name for name in AVERAGES if isinstance(_entry(content, name), dict)]
    taken = _wrapper(content)
    if not averages or taken is None:
        return ""
    if taken in averages:
        return f"its {taken}"
    return f"its {taken}, not its {averages[0]}"


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


def _classes(content: Any) -> tuple[str, ...]:
    """The names of the classes in a file; none where they are anything else."""
    classes = _entry(content, "classes")
    if type(classes) in (list, tuple) and all(type(name) is str for name in classes):
        return tuple(classes)
    return ()


def _colours(palette: Any, classes: int) -> tuple[tuple[int, int, int], ...]:
    if type(palette) not in (list, tuple) or len(palette) != classes:
        return ()
    if not all(_are_ints(colour, 3, range(256)) for colour in palette):
        return ()
    return tuple(map(tuple, palette))


def _are_ints(values: Any, count: int, allowed: range) -> bool:
    """Whether `values` is a list or tuple of `count` ints that are allowed."""
    if type(values) not in (list, tuple) or len(values) != count:
        return False
    return all(type(value) is int and value in allowed for value in values)


def _unwrapped(key: Any) -> str:
    """A key without what wrappers of the module put into it."""
    return OUTER.sub("", ANYWHERE.sub("", str(key)))


def _without_counter(state_dict: dict) -> dict:
    """Without the counter of torch's AveragedModel."""
    others = {key: value for key, value in state_dict.items() if _unwrapped(key) != COUNTER}
    wrapped = all(OUTER.match(ANYWHERE.sub("", str(key))) for key in others)
    return others if others and wrapped else state_dict


def _state_dicts(content: Any, depth: int = 2) -> dict[str, Any]:
    """What should be a state dict in `content`, by the prefix that its keys get.

    depth: how many wrappers may lie around each other.
    """
    wrapper = _wrapper(content)
    if wrapper is None:
        return {"": content}
    if depth > 1 and not _is_state_dict(content[wrapper]) and _wrapper(content[wrapper]):
        return _state_dicts(content[wrapper], depth - 1)
    found = {}
    for name, part in content.items():
        # Optimizers, epochs and the like lie beside the state dicts.
        if name == wrapper:
            found[""] = part
        elif str(name).startswith("state_dict_") and name not in AVERAGES:
            found[f"{name}."] = part
    return found


def _wrapper(content: Any) -> str | None:
    """The name below which the weights lie; None where they are bare."""
    found = [name for name in WRAPPERS + AVERAGES if isinstance(_entry(content, name), dict)]
    for name in found:
        # Options and the like may have such a name, too.
        if _is_state_dict(content[name]) or _wrapper(content[name]):
            return name
    return found[0] if found else None


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
