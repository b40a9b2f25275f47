"""Steps of a stream as CUDA graphs: hundreds of kernel launches become one, behind the same call.

A graph computes on fixed memory. State stays a value all the same: what a step gets is copied into
the graph's memory before a replay, what it computes is copied out after it, and what it only passes
on (the older entries of a memory) is handed back as it came. Two videos may so be stepped in turns.
The copies are a few microseconds for ERFNet's maps.

Not measured: written without a GPU. The bookkeeping is tested with a replay that computes anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .state import Structure, flatten, unflatten

WARM_UP = 3  # runs before a capture: libraries choose their kernels and workspaces
GRAPHS = 8  # kept; further kinds of inputs are run as they are
KINDS = 256  # remembered; a state that counts frames makes a new kind at every step

Replay = Callable[[], None]


class GraphedStep:
    """A Method's `step` for any exportable state: (frame, state, flow, key) -> logits, state.

    Frames of one size with states of one structure share a graph. It is captured when they come
    for the second time, so the beginning of a video, where memory grows frame by frame, is not
    captured at all.
    """

    def __init__(
        self, step: Callable, capture: Callable[[Callable], tuple[Replay, Any]] | None = None
    ):
        """capture(compute) -> replay, outputs: by default a CUDA graph."""
        self.step = step
        self.capture = capture_graph if capture is None else capture
        self.met: set = set()  # kinds of inputs that came once
        self.graphs: dict[Any, Graph] = {}

    @torch.inference_mode()
    def __call__(
        self, frame: Tensor, state: Any, flow: Tensor | None = None, key: bool | None = None
    ):
        inputs, structure = flatten((frame, state, flow, key))
        layouts = tuple((x.shape, x.dtype, x.device) for x in inputs)
        kind = (structure, layouts)
        if kind not in self.graphs:
            if kind not in self.met or len(self.graphs) == GRAPHS:
                if len(self.met) < KINDS:
                    self.met.add(kind)
                return self.step(frame, state, flow, key)
            self.graphs[kind] = Graph(self.step, inputs, structure, self.capture)
        return self.graphs[kind](inputs)


class Graph:
    """One kind of inputs: a captured step and the memory it works on."""

    def __init__(
        self, step: Callable, inputs: list[Tensor], structure: Structure, capture: Callable
    ):
        self.inputs = [x.clone() for x in inputs]  # clones keep the memory format
        arguments = unflatten(self.inputs, structure)
        self.replay, result = capture(lambda: step(*arguments))
        self.outputs, self.structure = flatten(result)
        # Which input an output is, if it is one: it is handed back as it came.
        numbers = {id(x): i for i, x in enumerate(self.inputs)}
        self.passed = [numbers.get(id(x)) for x in self.outputs]

    def __call__(self, inputs: list[Tensor]) -> Any:
        """Logits and the new state."""
        for fixed, x in zip(self.inputs, inputs, strict=True):
            fixed.copy_(x, non_blocking=True)
        self.replay()
        outputs = []
        for x, number in zip(self.outputs, self.passed, strict=True):
            # The graph's own memory is overwritten by the next replay.
            outputs.append(x.clone() if number is None else inputs[number])
        return unflatten(outputs, self.structure)


def capture_graph(compute: Callable) -> tuple[Replay, Any]:
    """Run on a side stream until everything is warm, then record.

    What is recorded is not computed until a replay.
    """
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
