"""Local attention over remembered frames, the read of LMANet (Paul et al., IROS 2021, III-C).

Every pixel of the query attends to the P x P window around itself in each of T frames:

    logit(t, dy, dx) = <query(y, x), key_t(y + dy, x + dx)>          raw: not divided by anything
    weights          = softmax over all T P^2 logits together, and over the constant if there is one
    read(y, x)       = sum of weights * value_t(y + dy, x + dx)

A tap outside the map has a key and a value of zero, and takes part: its logit is 0 and its value
adds nothing, so reads near borders shrink, as published. The constant is an extra logit whose value
is zero.

Several backends compute the same:

    reference   the definition, shift by shift
    tiled       keeps nothing of the size of the weights (local_attention_tiled.py)
    cpp         kernels for CPUs (local_attention_cpp.py)
    cupy        kernels for NVIDIA GPUs (local_attention_cupy.py)
    auto        the fastest of them that can run
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

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
    """query (B, C, H, W), keys (B, C, T, H, W), values (B, V, T, H, W) -> read (B, V, H, W).

    keys, values: or T maps each, (B, C, H, W) and (B, V, H, W), which saves stacking them. size: P,
    odd. constant: a scalar tensor, an extra logit at every pixel.

    Logits and softmax are in float32 at least. Values of a half type are returned in it. Where that
    is faster (tiled: bfloat16; cupy: more than 128 channels), they are also multiplied in it, by
    weights rounded to it, and summed in float32. cupy multiplies such values of float32 as tf32 if
    PyTorch is told that it may. Only the reference has a second derivative.

    ValueError for shapes that do not fit and unknown backends, RuntimeError where the backend asked
    for cannot run.
    """
    keys = as_maps(keys)
    values = as_maps(values)
    check(query, keys, values, size, constant)
    backend = choose(backend, query, keys, values)
    # No autocast: logits are not scaled, so rounding them would show
    with torch.autocast(query.device.type, enabled=False):
        if backend in KERNELS:
            kernels = KERNELS[backend]
            return read_by_kernels(kernels, query, keys, values, size=size, constant=constant)
        return read_plain(backend, query, keys, values, size=size, constant=constant)


def read_plain(
    backend: str, query: Tensor, keys: Maps, values: Maps, *, size: int, constant: Tensor | None
) -> Tensor:
    """`local_attention` by one of PLAIN. The result has the type of the values."""
    dtype = values[0].dtype
    wide = torch.promote_types(dtype, torch.float32)
    if dtype not in KEPT_TYPES.get(backend, ()):
        values = [x.to(wide) for x in values]
    # Logits are never computed in a half type
    keys = [x.to(wide) for x in keys]
    if constant is not None:
        constant = constant.to(wide)
    read = PLAIN[backend](query.to(wide), keys, values, size, constant)
    return read.to(dtype)


def choose(backend: str, query: Tensor, keys: Maps, values: Maps) -> str:
    """The backend that computes these maps.

    "auto" takes the kernels of the device where they can run. It warns where they could run but are
    not installed. ValueError and RuntimeError as in `local_attention`.
    """
    names = (*BACKENDS, *KERNELS)
    if backend not in names:
        raise ValueError(
            f"unknown backend {backend!r} of local attention: choose from {', '.join(names)}"
        )
    if backend in PLAIN:
        return backend
    if backend in KERNELS:
        kernels = KERNELS[backend]
        problem = kernels.unfit(query, keys, values) or kernels.missing()
        if problem:
            raise RuntimeError(f"backend {backend} of local attention cannot be used: {problem}")
        return backend

    name = "cpp"
    if query.is_cuda:
        name = "cupy"
    # Nothing to warn of: these kernels are not made for such maps
    if KERNELS[name].unfit(query, keys, values):
        return "tiled"
    problem = KERNELS[name].missing()
    if problem:
        warn_of_slow_read(query.device.type, problem)
        return "tiled"
    return name


# Under torch.compile it runs once, while the call is traced
@torch.compiler.assume_constant_result
def warn_of_slow_read(device: str, problem: str) -> None:
    # stacklevel 4: the line that calls local_attention
    warnings.warn(
        f"local attention takes its slower way on {device}: {problem}", RuntimeWarning, stacklevel=4
    )


def as_maps(frames: Tensor | Maps) -> list[Tensor]:
    """(B, C, T, H, W) or T maps (B, C, H, W) -> T maps."""
    if isinstance(frames, Tensor):
        return list(frames.unbind(2))
    return list(frames)


def check(
    query: Tensor, keys: list[Tensor], values: list[Tensor], size: int, constant: Tensor | None
) -> None:
    """ValueError unless the shapes belong together."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the window of local attention must be odd, got {size}")
    if not keys or len(keys) != len(values):
        raise ValueError(
            "local attention needs as many values as keys, at least one: "
            f"got {len(keys)} keys and {len(values)} values"
        )
    # Values have a number of channels of their own
    check_maps("key", keys, query, query.shape[1])
    check_maps("value", values, query, values[0].shape[1])
    if constant is not None and constant.numel() != 1:
        raise ValueError(
            f"the constant of local attention is one number, got {tuple(constant.shape)}"
        )


def check_maps(what: str, maps: list[Tensor], query: Tensor, channels: int) -> None:
    """ValueError unless all maps have so many channels, and else the shape of the query."""
    batch, _, height, width = query.shape
    expected = (batch, channels, height, width)
    for x in maps:
        if x.shape != expected:
            raise ValueError(
                f"a {what} is {tuple(x.shape)}, expected {expected} "
                f"beside the query {tuple(query.shape)}"
            )


def local_attention_reference(
    query: Tensor, keys: Maps, values: Maps, size: int, constant: Tensor | None
) -> Tensor:
    """The definition: arguments as in `local_attention`, T maps each.

    It keeps all weights: for checks and small maps.
    """
    weights = local_weights(query, keys, size, constant).flatten(1, 2)  # (B, T P^2, H, W)
    taps = (tap for value in values for tap in shifted(value, size))
    pairs = zip(weights.unbind(1), taps, strict=True)
    return sum(weight[:, None] * tap for weight, tap in pairs)


def local_weights(
    query: Tensor, keys: Tensor | Maps, size: int, constant: Tensor | None = None
) -> Tensor:
    """The weights of `local_attention`: (B, T, P^2, H, W), tap number (dy + r) P + (dx + r).

    They sum to 1, or to less with a constant.
    """
    keys = as_maps(keys)
    logits = [(query * tap).sum(1) for key in keys for tap in shifted(key, size)]
    if constant is not None:
        logits.append(constant.reshape(1, 1, 1).expand_as(logits[0]))
    weights = torch.stack(logits, 1).softmax(1)
    taps = size**2
    # Without the constant's weight, which is the last
    return weights[:, : len(keys) * taps].unflatten(1, (len(keys), taps))


def shifted(x: Tensor, size: int) -> Iterator[Tensor]:
    """x (B, C, H, W) -> P^2 maps of the same shape: what lies at (y + dy, x + dx), zero outside.

    dy is the outer loop, dx the inner one.
    """
    height, width = x.shape[-2:]
    radius = size // 2
    padded = F.pad(x, (radius,) * 4)
    for top in range(size):
        for left in range(size):
            yield padded[..., top : top + height, left : left + width]


PLAIN = {"reference": local_attention_reference, "tiled": local_attention_tiled}
BACKENDS = ("auto", *PLAIN)  # that run on any device
KERNELS = {"cpp": local_attention_cpp, "cupy": local_attention_cupy}
KEPT_TYPES = {"tiled": (torch.bfloat16,)}  # of values that a backend multiplies as they are
