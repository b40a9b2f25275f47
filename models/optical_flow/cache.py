"""Optical flow on disk: computed once for two frames, and read from then on.

    DIR/METHOD/HxW/FRAME_PREVIOUS.npy       (2, h, w) in half precision; or .flo, in float32

METHOD is what decides the result beside the frames (FlowProvider.identity): DIS with its preset,
RAFT with its iterations and a fingerprint of its weights. FRAME and PREVIOUS are fingerprints of
what the two frames show: no name of a file can lie, and each direction has a file of its own.

What is returned is what was written, rounded: a run that finds a flow goes on as the one that
computed it. Several processes may share a folder, for files appear whole.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .given import ENDINGS, read_flow, rounded, write_flow
from .provider import FlowProvider

DIGITS = 24  # hexadecimal ones of a fingerprint

Compute = Callable[[Tensor, Tensor], Tensor]


class FlowCache:
    """The flow of one provider: `provider.cache = FlowCache(DIR)` is all that is needed."""

    def __init__(self, folder: str | Path, ending: str = ".npy"):
        """ending: ".npy" (half precision, 4 bytes a pixel) or ".flo" (exact, 8 bytes)."""
        if ending not in ENDINGS:
            raise ValueError(f"flow is kept as {' or '.join(ENDINGS)}, not {ending}")
        self.folder = Path(folder)
        self.ending = ending
        self.method: str | None = None  # the provider's identity: its weights are read once
        self.told: set[str] = set()  # kinds of faults that were warned of

    def __call__(
        self, provider: FlowProvider, compute: Compute, frame: Tensor, previous: Tensor
    ) -> Tensor:
        """The flow that `compute` gives, frames (B, 3, H, W) -> (B, 2, h, w)."""
        if learns(provider):
            return compute(frame, previous)
        size = tuple(frame.shape[-2:])
        paths = self.paths(provider, frame, previous)
        grid = provider.grid(size)
        flows = [self.read(path, grid) for path in paths]
        missing = [i for i, flow in enumerate(flows) if flow is None]
        if missing:
            # All of a batch in one call, as without a cache.
            computed = compute(frame[missing], previous[missing])
            for i, flow in zip(missing, computed, strict=True):
                flows[i] = self.keep(paths[i], flow)
        return torch.stack([flow.to(frame.device) for flow in flows])

    def paths(self, provider: FlowProvider, frame: Tensor, previous: Tensor) -> list[Path]:
        """The file of each pair."""
        if self.method is None:
            self.method = provider.identity()
        height, width = frame.shape[-2:]
        folder = self.folder / self.method / f"{height}x{width}"
        names = [f"{fingerprint(a)}_{fingerprint(b)}" for a, b in zip(frame, previous, strict=True)]
        return [folder / f"{name}{self.ending}" for name in names]

    def read(self, path: Path, grid: tuple[int, int]) -> Tensor | None:
        """Flow (2, *grid); None where there is none, or none that can be used."""
        try:
            flow = read_flow(path)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            self.tell("unread", f"{error}: it is computed anew, as others like it")
            return None
        if flow.shape[1:] != tuple(grid):
            found, expected = ("x".join(map(str, sides)) for sides in (flow.shape[1:], grid))
            self.tell(
                "size",
                f"{path} is {found} (HxW), expected {expected}: it is computed anew, as others "
                "like it",
            )
            return None
        return torch.from_numpy(flow)

    def keep(self, path: Path, flow: Tensor) -> Tensor:
        """Write flow (2, h, w) -> what will be read of it."""
        values = rounded(flow.detach().cpu().numpy(), self.ending)
        kept = torch.from_numpy(values)
        # What cannot be written stays as it was computed, and is computed again next time.
        if not kept.isfinite().all():
            return flow
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_flow(path, values)
        except OSError as error:
            self.tell(
                "unwritten",
                f"--flow-cache: {path} cannot be written ({error.strerror or error}): the run "
                "goes on without",
            )
        return kept

    def tell(self, kind: str, message: str) -> None:
        """Warn of the first fault of a kind."""
        if kind not in self.told:
            self.told.add(kind)
            logging.getLogger("streamseg").warning(message)


def learns(provider: FlowProvider) -> bool:
    """Whether this call may change the provider: such flow is never kept."""
    return torch.is_grad_enabled() and any(p.requires_grad for p in provider.parameters())


def fingerprint(values: Tensor) -> str:
    """Of the values of a tensor, whatever its layout in memory."""
    data = values.detach().contiguous().cpu().view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()[:DIGITS]
