"""Steps of a stream as CUDA graphs: hundreds of kernel launches become one, behind the same call.

A graph computes on fixed memory. State stays a value all the same: what a step gets is copied into the graph's memory
before a replay, what it computes is copied out after it, and what it only passes on (the older entries of a memory) is
handed back as it came. Two videos may so be stepped in turns. The copies are a few microseconds for ERFNet's maps.

Not measured: written without a GPU. The bookkeeping is tested with a replay that computes anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..method import History

WARM_UP = 3  # runs before a capture: libraries choose their kernels and workspaces
GRAPHS = 8  # kept; further structures are run as they are

Replay = Callable[[], None]


class GraphedStep:
    """A Method's `step` for states that are None or a History: (frame, state, flow, key) -> logits, state.

    Frames of one size with equally many remembered ones share a graph. It is captured when they come for the second
    time, so the beginning of a video, where memory grows frame by frame, is not captured at all.
    """

    def __init__(
        self, step: Callable, capture: Callable[[Callable], tuple[Replay, Any]] | None = None
    ):
        """capture(compute) -> replay, outputs: by default a CUDA graph."""
        self.step, self.capture = step, capture or capture_graph
        self.seen: set = set()
        self.graphs: dict[Any, Graph] = {}

    @torch.inference_mode()
    def __call__(
        self, frame: Tensor, state: Any, flow: Tensor | None = None, key: bool | None = None
    ):
        if not (state is None or type(state) is History):
            return self.step(frame, state, flow, key)
        given = {"frame": frame, "flow": flow, "entries": None if state is None else state.entries}
        inputs, structure = tree_flatten({name: x for name, x in given.items() if x is not None})
        kind = (key, str(structure), *((x.shape, x.dtype, x.device) for x in inputs))
        if kind not in self.graphs:
            if kind not in self.seen or len(self.graphs) == GRAPHS:
                self.seen.add(kind)
                return self.step(frame, state, flow, key)
            self.graphs[kind] = Graph(self.step, inputs, structure, key, self.capture)
        logits, entries = self.graphs[kind](inputs)
        return logits, None if state is None else History(entries, state.seen + 1)


class Graph:
    """One structure of inputs: a captured step and the memory it works on."""

    def __init__(
        self, step: Callable, inputs: list[Tensor], structure, key: bool | None, capture: Callable
    ):
        self.inputs = [x.clone() for x in inputs]  # clones keep the memory format
        given = tree_unflatten(self.inputs, structure)
        state = History(given["entries"]) if "entries" in given else None
        self.replay, (logits, new) = capture(
            lambda: step(given["frame"], state, given.get("flow"), key)
        )
        self.outputs, self.structure = tree_flatten((logits, () if new is None else new.entries))
        places = {id(x): i for i, x in enumerate(self.inputs)}
        self.passed = [
            places.get(id(x)) for x in self.outputs
        ]  # which input an output is, if it is one

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, tuple]:
        """Logits, and the entries of the new state."""
        for fixed, x in zip(self.inputs, inputs, strict=True):
            fixed.copy_(x, non_blocking=True)
        self.replay()
        outputs = [
            x.clone() if i is None else inputs[i]
            for x, i in zip(self.outputs, self.passed, strict=True)
        ]
        return tree_unflatten(outputs, self.structure)


def capture_graph(compute: Callable) -> tuple[Replay, Any]:
    """Run on a side stream until everything is warm, then record. What is recorded is not computed until a replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = compute()
    return graph.replay, outputs
