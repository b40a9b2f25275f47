"""Batch norm folded into the convolutions before it.

Which batch norm follows which convolution is not declared anywhere, it is watched: a few small
frames go through the network, and a convolution whose output went into one batch norm and nowhere
else is folded with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..method import Method

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Watch(TorchFunctionMode):
    """Notes which modules read what each convolution of a model gives.

    Modules are recognised by their weights and statistics, which are among the arguments of the
    function that computes them.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        modules = list(model.modules())
        self.convolutions = {id(m.weight): m for m in modules if isinstance(m, CONVOLUTIONS)}
        self.norms = {
            id(m.running_mean): m
            for m in modules
            if isinstance(m, NORMS) and m.running_mean is not None
        }
        self.made: dict[int, nn.Module] = {}  # id of an output -> the convolution
        self.kept: list[Tensor] = []  # those outputs, so that no id comes twice
        # convolution -> the batch norms (None: anything else) that its output goes into
        self.readers = defaultdict(set)
        # batch norm -> the convolutions (None: anything else) that its input comes from
        self.sources = defaultdict(set)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            return out  # a shape, a type: not what the network computes
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        norm = self.first(self.norms, leaves)
        convolution = self.first(self.convolutions, leaves)
        for leaf in leaves:
            if id(leaf) in self.made:
                self.readers[self.made[id(leaf)]].add(norm)
        if norm is not None:
            self.sources[norm].add(self.made.get(id(leaves[0])))
        if convolution is not None:
            self.made[id(out)] = convolution
            self.kept.append(out)
        return out

    @staticmethod
    def first(table: dict[int, nn.Module], leaves: list[Tensor]) -> nn.Module | None:
        """The module that one of the tensors belongs to, if one does."""
        return next((table[id(leaf)] for leaf in leaves if id(leaf) in table), None)

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Convolutions and the batch norms that alone read them, and read nothing else."""
        for convolution, readers in self.readers.items():
            if len(readers) != 1:
                continue
            (norm,) = readers
            if norm is not None and self.sources[norm] == {convolution}:
                yield convolution, norm


@torch.no_grad()
def fold_batch_norm(model: Method) -> int:
    """Fold every batch norm that follows a convolution into it -> how many were.

    The model is in eval mode.
    """
    with Watch(model) as watch:
        state = model.start()
        flow = None  # there is no frame before the first
        # One frame more than fill the memory: every path of a step is taken.
        for frame in probe(model, 2 - min(model.offsets, default=0)):
            _, state = model.step(frame, state, flow)
            flow = flow_from_outside(model, frame)
    folded = [norm for convolution, norm in watch.pairs() if fold(convolution, norm)]
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if any(child is norm for norm in folded):
                setattr(parent, name, nn.Identity())
    return len(folded)


def probe(model: Method, frames: int) -> Iterator[Tensor]:
    """Small random frames (1, 3, h, w) of a size the network takes."""
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    side = model.size_rule.fit(model.probe_side)
    for _ in range(frames):
        yield torch.rand(1, 3, side, side, generator=generator).to(parameter.device)


def flow_from_outside(model: Method, frame: Tensor) -> Tensor | None:
    """No motion (1, 2, h, w), for a method that has no provider of its own to ask."""
    if not model.needs_flow(False) or getattr(model, "optical_flow", None) is not None:
        return None
    return torch.zeros_like(frame[:, :2])


def fold(convolution: nn.Module, norm: nn.Module) -> bool:
    """norm(convolution(x)) as the convolution alone; False where that cannot be.

    Computed in float64: weight * scale, (bias - mean) * scale + the norm's bias.
    """
    transposed = isinstance(convolution, TRANSPOSED)
    if transposed and convolution.groups > 1:
        return False
    weight = convolution.weight
    scale = (norm.running_var.double() + norm.eps).rsqrt()  # (out,)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double()
    if convolution.bias is not None:
        bias = convolution.bias.double() - norm.running_mean.double()
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    # Weights are (out, in, ...), those of transposed convolutions (in, out, ...).
    shape = [1] * weight.ndim
    shape[1 if transposed else 0] = -1
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    folded = (weight.double() * scale.view(shape)).to(weight.dtype)
    weight.data = folded.contiguous(memory_format=layout)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    return True
