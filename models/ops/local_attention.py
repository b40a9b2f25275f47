"""Local attention over several remembered frames: the read of LMANet (Paul et al., IROS 2021, section III-C).

Every pixel of the query looks at the P x P window around itself in each of T frames:

    logit(t, dy, dx) = <query(y, x), key_t(y + dy, x + dx)>             raw: not divided by anything
    weights          = softmax over all T P^2 logits together           and over the constant, if there is one
    read(y, x)       = sum of weights * value_t(y + dy, x + dx)

A tap outside the map has a key and a value of zero, and takes part: its logit is 0, its value adds nothing, so
reads near borders shrink, as published. The constant is one more logit whose value is zero.

Backends answer the same question: "reference" is the definition, shift by shift; "tiled" (local_attention_tiled.py)
keeps nothing of the size of the weights and needs PyTorch alone; "cpp" (local_attention_cpp.py) runs kernels made for
it on CPUs, and "cupy" (local_attention_cupy.py) on NVIDIA GPUs. "auto" takes the fastest that can.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import local_attention_cpp, local_attention_cupy
from .local_attention_tiled import local_attention_tiled
from .read_memory import read_by_kernels

Maps = Sequence[Tensor]  # T of (B, C, H, W)


def local_attention(
    query: Tensor,
    keys: Tensor | Maps,
    values: Tensor | Maps,
    size: int,
    constant: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Read the memory: query (B, C, H, W), keys (B, C, T, H, W), values (B, V, T, H, W) -> (B, V, H, W).

    keys, values: or T maps (B, C, H, W) each, which saves stacking them. size: P, odd. constant: a scalar tensor, an
    extra logit at every pixel. Logits and softmax are in float32 at least. Values of a half type are returned in it,
    and where it is faster (tiled: bfloat16; cupy: more than 128 channels) multiplied in it by weights rounded to it,
    summed in float32; cupy multiplies such values of float32 as tf32 if PyTorch is told that it may. Only the reference
    has a second derivative. ValueError for shapes that do not fit and unknown backends, RuntimeError where the backend
    asked for cannot run.
    """
    keys, values = as_maps(keys), as_maps(values)
    check(query, keys, values, size, constant)
    backend = choose(backend, query, keys, values)
    with torch.autocast(
        query.device.type, enabled=False
    ):  # logits are unscaled: rounding them shows
        if backend in KERNELS:
            return read_by_kernels(KERNELS[backend], query, keys, values, size, constant)
        dtype, wide = values[0].dtype, torch.promote_types(values[0].dtype, torch.float32)
        if backend != "tiled" or dtype != torch.bfloat16:
            values = [x.to(wide) for x in values]
        read = PLAIN[backend](
            query.to(wide),
            [x.to(wide) for x in keys],
            values,
            size,
            None if constant is None else constant.to(wide),
        )
    return read.to(dtype)


def choose(backend: str, query: Tensor, keys: Maps, values: Maps) -> str:
    """The backend that answers; "auto" takes the kernels where they can run, and says so if they could if installed."""
    if backend not in (*BACKENDS, *KERNELS):
        raise ValueError(
            f"unknown backend {backend!r} of local attention: choose from "
            f"{', '.join((*BACKENDS, *KERNELS))}"
        )
    if backend in PLAIN:
        return backend
    name = backend if backend in KERNELS else "cupy" if query.is_cuda else "cpp"
    unfit = KERNELS[name].unfit(query, keys, values)
    problem = unfit or KERNELS[name].missing()
    if backend in KERNELS and problem:
        raise RuntimeError(f"backend {backend} of local attention cannot be used: {problem}")
    if problem and not unfit:
        warn_of(query.device.type, problem)
    return "tiled" if problem else name


@torch.compiler.assume_constant_result
def warn_of(device: str, problem: str) -> None:
    warnings.warn(
        f"local attention takes its slower way on {device}: {problem}", RuntimeWarning, stacklevel=4
    )


def as_maps(frames: Tensor | Maps) -> list[Tensor]:
    """(B, C, T, H, W) or T maps (B, C, H, W) -> T maps."""
    return list(frames.unbind(2)) if isinstance(frames, Tensor) else list(frames)


def check(
    query: Tensor, keys: list[Tensor], values: list[Tensor], size: int, constant: Tensor | None
) -> None:
    """ValueError unless the shapes belong together."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the window of local attention must be odd, got {size}")
    if not keys or len(keys) != len(values):
        raise ValueError(
            f"local attention needs as many values as keys, at least one: got {len(keys)} keys and "
            f"{len(values)} values"
        )
    batch, channels, *area = query.shape
    for what, maps, width in (("key", keys, channels), ("value", values, values[0].shape[1])):
        for x in maps:
            if x.shape != (batch, width, *area):
                raise ValueError(
                    f"a {what} is {tuple(x.shape)}, expected {(batch, width, *area)} beside the query "
                    f"{tuple(query.shape)}"
                )
    if constant is not None and constant.numel() != 1:
        raise ValueError(
            f"the constant of local attention is one number, got {tuple(constant.shape)}"
        )


def local_attention_reference(
    query: Tensor, keys: Maps, values: Maps, size: int, constant: Tensor | None
) -> Tensor:
    """The definition: arguments as in `local_attention`, T maps each. Keeps all weights: for checks and small maps."""
    weights = local_weights(query, keys, size, constant)  # (B, T, P^2, H, W)
    taps = zip(
        weights.flatten(1, 2).unbind(1),
        (tap for value in values for tap in shifted(value, size)),
        strict=True,
    )
    return sum(weight[:, None] * tap for weight, tap in taps)


def local_weights(
    query: Tensor, keys: Tensor | Maps, size: int, constant: Tensor | None = None
) -> Tensor:
    """The weights of `local_attention`: (B, T, P^2, H, W), tap (dy + r) P + (dx + r). Sum: 1, less with a constant."""
    keys = as_maps(keys)
    logits = torch.stack([(query * tap).sum(1) for key in keys for tap in shifted(key, size)], 1)
    if constant is not None:
        logits = torch.cat([logits, constant.reshape(1, 1, 1, 1).expand_as(logits[:, :1])], 1)
    weights = logits.softmax(1)
    return weights[:, : len(keys) * size**2].unflatten(1, (len(keys), size**2))


def shifted(x: Tensor, size: int):
    """x (B, C, H, W) -> P^2 maps of the same shape: what lies at (y + dy, x + dx), zero outside, dy before dx."""
    radius, (height, width) = size // 2, x.shape[-2:]
    padded = F.pad(x, (radius,) * 4)
    for top in range(size):
        for left in range(size):
            yield padded[..., top : top + height, left : left + width]


PLAIN = {"reference": local_attention_reference, "tiled": local_attention_tiled}
BACKENDS = ("auto", *PLAIN)  # that run on any device
KERNELS = {"cpp": local_attention_cpp, "cupy": local_attention_cupy}
