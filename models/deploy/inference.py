"""What is done to a network that from now on only predicts: the same numbers (float32: up to rounding), sooner.

    for_inference(model)                                batch norm folded into the convolutions before it
    for_inference(model, dtype=torch.bfloat16)          and convolutions rounded, where rounding does not show
    for_inference(model, compiled=True)                 and encoder and decoder compiled
    on a GPU                                            and steps of a stream replayed as CUDA graphs (cuda_graphs.py)

The model is changed in place, for good: it cannot be trained any more, nor read checkpoints.

Which batch norm follows which convolution is not declared anywhere, it is watched: a few small frames go through the
network, and a convolution whose output went into one batch norm and nowhere else is folded with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..method import Method
from .cuda_graphs import GraphedStep

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
PROBE = 32  # side of the frames that are watched
NARROW = 16  # convolutions from or to so few channels gain nothing from rounding, and show it most


def for_inference(
    model: Method, *, dtype: torch.dtype = torch.float32, compiled: bool = False
) -> Method:
    """Prepare a network with its weights, on its device, for labelling frames; returns the same model.

    dtype: of convolutions and linear layers, see `lower`. compiled: torch.compile for encoder and decoder; the first
    frame of each size then takes a minute. Frames go in as float32 all the same, and no autocast is needed.
    """
    model.eval().requires_grad_(False)
    fold_batch_norm(model)
    model.to(memory_format=torch.channels_last)
    if dtype != torch.float32:
        lower(model, dtype)
    device = next(model.parameters()).device
    if compiled:
        compile_backbone(model)
    if device.type == "cuda":
        model.step = GraphedStep(model.step)
    return model


# Batch norm


class Watch(TorchFunctionMode):
    """Notes where the output of each convolution of a model goes, and where the input of each batch norm comes from."""

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
        self.readers, self.sources = defaultdict(set), defaultdict(set)

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
        return next((table[id(leaf)] for leaf in leaves if id(leaf) in table), None)

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Convolutions and the batch norms that alone read them, and read nothing else."""
        for convolution, readers in self.readers.items():
            norm = next(iter(readers)) if len(readers) == 1 else None
            if norm is not None and self.sources[norm] == {convolution}:
                yield convolution, norm


@torch.no_grad()
def fold_batch_norm(model: Method) -> int:
    """Fold every batch norm that follows a convolution into it; returns how many were. The model is in eval mode."""
    with Watch(model) as watch:
        state = model.start()
        for frame in probe(model, 2 - min(model.offsets, default=0)):
            _, state = model.step(frame, state)
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
    side = model.size_rule.fit(PROBE)
    for _ in range(frames):
        yield torch.rand(1, 3, side, side, generator=generator).to(parameter.device)


def fold(convolution: nn.Module, norm: nn.Module) -> bool:
    """norm(convolution(x)) as the convolution alone, computed in float64; False where that cannot be."""
    transposed = isinstance(
        convolution, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    )
    if transposed and convolution.groups > 1:
        return False
    weight, mean = convolution.weight, norm.running_mean.double()
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -mean if convolution.bias is None else convolution.bias.double() - mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias.double()
    shape = [1] * weight.ndim
    shape[1 if transposed else 0] = -1
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    weight.data = (
        (weight.double() * scale.view(shape)).to(weight.dtype).contiguous(memory_format=layout)
    )
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    return True


# Half precision


def lower(model: Method, dtype: torch.dtype) -> None:
    """Convolutions and linear layers in bfloat16 or float16, once and for all, instead of at every frame by autocast.

    In float32 stay: what the method names (`exact_parts`: LMANet's keys, whose products are not scaled down), the
    narrow and those that give logits, normalisations and whatever else has weights. On ERFNet these are the first
    and the last layers: they make two thirds of the pixels that change class, and none of the gain.
    """
    exact = {id(part) for part in getattr(model, "exact_parts", list)()}
    outputs = model.backbone.num_outputs
    for module in model.modules():
        if rounded(module, exact, outputs):
            module.to(dtype)
    cast_inputs(model)


def rounded(module: nn.Module, exact: set[int], outputs: int) -> bool:
    """Whether a module computes in half precision."""
    if id(module) in exact or not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        return False
    if isinstance(module, nn.Linear):
        return module.out_features != outputs
    return min(module.in_channels, module.out_channels) > NARROW and module.out_channels != outputs


def cast_inputs(module: nn.Module) -> set[torch.dtype]:
    """Make modules with weights, and parts that are rounded as a whole, cast what they are given to their type.

    Returns the types within. Such parts are blocks whose shortcut is to be of that type as well.
    """
    own = (
        ()
        if isinstance(module, NORMS)
        else (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )
    own = {x.dtype for x in own if x.is_floating_point()}
    found = own.union(*(cast_inputs(child) for child in module.children()))
    if len(found) == 1 and (own or torch.float32 not in found):
        module.register_forward_pre_hook(partial(cast, *found))
    return found


def cast(dtype: torch.dtype, module: nn.Module, inputs: tuple) -> tuple:
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
    )


# Compilation


def compile_backbone(model: Method) -> None:
    """torch.compile for encoder and decoder, the bulk of the work; frames and state move between them as before.

    On a CPU it needs a C++ compiler. A new frame size compiles anew.
    """
    backbone = model.backbone
    for name in ("encode", "decode"):
        setattr(
            backbone,
            name,
            torch.compile(getattr(backbone, name), dynamic=False, options={"freezing": True}),
        )
