"""--flow-cache: optical flow is kept on disk, whatever computes it in a run.

labelling, validation, TC   frames as they are: the provider looks for each pair
training                    random crops never come twice, so flow is that of whole frames: the
                            loader reads or computes it, and it is augmented with the frames
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch

from models.ops.warp import resize_flow
from models.optical_flow import FlowCache, FlowProvider
from models.parts.frozen import Frozen
from utils.predictions import frame_tensor
from utils.run.dist import rank

CPU = torch.device("cpu")  # where loader workers compute


def require_flow_cache(args) -> None:
    """Make the folder. OSError / ValueError where that cannot be."""
    folder = args.flow_cache
    if not folder:
        return
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"--flow-cache {folder} is a file: give a folder")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make --flow-cache {folder}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"cannot write into --flow-cache {folder}: give a folder of your own")


def keep_flow(args, provider: FlowProvider | None) -> None:
    """From now on the provider looks into the folder, if there are both."""
    if args.flow_cache and provider is not None:
        provider.cache = FlowCache(args.flow_cache, f".{args.flow_cache_format}")


def provider_of(model) -> FlowProvider | None:
    """What computes the flow of a method; None where nothing does."""
    provider = getattr(model, "optical_flow", None)
    return provider.frozen if isinstance(provider, Frozen) else provider


def whole_frames(args, model) -> WholeFrames | None:
    """The flow that clips of a training bring; None where it is computed on crops, or not at
    all."""
    if not args.flow_cache or provider_of(model) is None:
        return None
    if model.takes_flows is not None:
        model.takes_flows = True
        return WholeFrames(exact=False)
    return WholeFrames(exact=True) if model.wants_flows else None


class WholeFrames:
    """Flow between two frames of a data set, of any distance (datasets.clip.FlowSource)."""

    def __init__(self, *, exact: bool):
        """exact: what the data set knows goes first."""
        self.exact = exact
        self.provider: FlowProvider | None = None

    def settle(self, model) -> None:
        """Compute by the model's provider. Its weights must be complete."""
        # Loader workers cannot use a GPU that their parent has used.
        self.provider = deepcopy(provider_of(model)).to(CPU)

    @torch.no_grad()
    def __call__(
        self, video, index: int, before: int, frames: Mapping[int, np.ndarray]
    ) -> np.ndarray:
        known = video.flow(index, before) if self.exact else None
        if known is not None:
            return known
        size = frames[index].shape[:2]
        if frames[before].shape[:2] != size:
            raise ValueError(
                f"{video.name}: optical flow needs frames of one size, "
                f"{video.frame_name(index)} is {size} and {video.frame_name(before)} "
                f"{frames[before].shape[:2]}"
            )
        flow = self.provider(*(frame_tensor(frames[place], CPU) for place in (index, before)))
        return resize_flow(flow, size, cells_of=size)[0].numpy()


def tell_flow_cache(args, console) -> None:
    """How large the folder is."""
    if not args.flow_cache or rank():
        return
    sizes = [entry.stat().st_size for entry in files_below(args.flow_cache)]
    console.note(
        f"--flow-cache {args.flow_cache} holds {len(sizes)} flows, {sum(sizes) / 1e6:.1f} MB; what "
        "is not needed any more may be removed at any time"
    )


def files_below(folder):
    """The files of flow in a folder and its folders."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path)
        elif not entry.name.startswith("."):
            yield entry
