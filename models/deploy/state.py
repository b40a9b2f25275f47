"""A state as tensors and a structure, and back: what CUDA graphs and exporters need of it.

A state is None, a tensor, or tuples, lists, dicts, named tuples and frozen dataclasses of those,
nested at will. Plain values in it (numbers, text, None) belong to the structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

TENSOR = object()  # stands for a tensor in a structure


@dataclass(frozen=True)
class Structure:
    """What a state is apart from its tensors; two of them are equal if states have one form."""

    kind: Any  # the type of a container; None for a leaf
    keys: tuple = ()  # of a dict, or the fields of a dataclass
    children: tuple = ()
    value: Any = None  # of a leaf: TENSOR or a plain value

    def build(self, tensors: Iterator[Tensor]) -> Any:
        """The state of this form that holds the next tensors."""
        if self.kind is None:
            return next(tensors) if self.value is TENSOR else self.value
        children = [child.build(tensors) for child in self.children]
        if self.keys:
            named = dict(zip(self.keys, children, strict=True))
            return named if self.kind is dict else self.kind(**named)
        if hasattr(self.kind, "_make"):  # a named tuple
            return self.kind._make(children)
        return self.kind(children)


def flatten(state: Any) -> tuple[list[Tensor], Structure]:
    """The tensors of a state in a fixed order, and its structure."""
    if isinstance(state, Tensor):
        return [state], Structure(None, value=TENSOR)
    if is_dataclass(state):
        named = {field.name: getattr(state, field.name) for field in fields(state)}
        return flatten_named(type(state), named)
    if isinstance(state, dict):
        return flatten_named(dict, state)
    if isinstance(state, (tuple, list)):
        tensors, children = flatten_all(state)
        return tensors, Structure(type(state), children=children)
    return [], Structure(None, value=state)


def flatten_named(kind: type, named: dict) -> tuple[list[Tensor], Structure]:
    tensors, children = flatten_all(named.values())
    return tensors, Structure(kind, keys=tuple(named), children=children)


def flatten_all(states) -> tuple[list[Tensor], tuple[Structure, ...]]:
    tensors = []
    children = []
    for state in states:
        found, structure = flatten(state)
        tensors += found
        children.append(structure)
    return tensors, tuple(children)


def unflatten(tensors: list[Tensor], structure: Structure) -> Any:
    """The reverse of `flatten`."""
    return structure.build(iter(tensors))
