"""--flow given: optical flow comes with the frames, of the data set's own or from --flow-root.

    DIR/VIDEO/FRAME.flo or .npy, else DIR/FRAME.flo or .npy       from FRAME into the one before it

VIDEO and FRAME are the names under which results are written: of a data set those of the video and
of the frame's file (without its ending), of a source its name and that of the image's file, or the
number of the frame in a video (000042). A first frame needs no file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

import options
from models.optical_flow.given import ENDINGS, FlowFolder

LOOK_AT_FLOW = ("motion", "error")  # policies of key frames


def uses_given_flow(args, model) -> bool:
    """Whether frames have to bring their flow in this run."""
    if args.flow != "given" or "flow" in options.without_effect(args):
        return False
    return model.needs_flow(False) or args.key_policy in LOOK_AT_FLOW


def flow_files(args) -> FlowFiles | None:
    """The files of --flow-root; None without it. FileNotFoundError where there is no such
    folder."""
    return FlowFiles(FlowFolder(args.flow_root)) if args.flow_root else None


def require_flows(args, data) -> None:
    """ValueError where neither files nor the data set tell the flow of its frames."""
    video = max(data.videos, key=len)
    if args.flow_root or len(video) == 1 or video.flow(1, 0) is not None:
        return
    raise ValueError(
        f"--flow given: --dataset {args.dataset} has no optical flow of its own: --flow-root DIR "
        "names a folder of flow files"
    )


def require_flow_root(args, model) -> None:
    """ValueError where flow should come with the frames of a source, which have none."""
    if uses_given_flow(args, model) and not args.flow_root:
        raise ValueError(
            "--flow given: a source has no optical flow of its own: --flow-root DIR names a folder "
            "of flow files"
        )


class FlowFiles:
    """Flow by the names of video and frame."""

    def __init__(self, folder: FlowFolder):
        self.folder = folder

    def __call__(
        self, video, index: int, before: int, frames: Mapping[int, np.ndarray]
    ) -> np.ndarray:
        """The flow of a frame of a data set (datasets.clip.FlowSource) -> (2, H, W) float32."""
        if before != index - 1:
            raise ValueError(
                f"files hold the flow into the frame before, but a clip of {video.name} goes from "
                f"frame {video.frame_name(index)} to {video.frame_name(before)}: give no offsets "
                "beyond one frame"
            )
        size = frames[index].shape[:2]
        return self.named(video.name, video.frame_name(index), size).numpy()

    def named(self, video: str, frame: str, size: tuple[int, int]) -> Tensor:
        """(2, *size) in pixels of a frame of that size. FileNotFoundError where no file has it."""
        names = (f"{video}/{frame}", frame)
        for name in names:
            if self.folder.find(name):
                return self.folder(name, size)
        expected = " or ".join(f"{name}{ending}" for name in names for ending in ENDINGS)
        raise FileNotFoundError(
            f"{self.folder.root} holds no flow of the frame {frame}: expected {expected}"
        )


class SourceFlow:
    """Flow of the frames of one source, asked for in order."""

    def __init__(self, files: FlowFiles, source: str, device: torch.device):
        self.files = files
        self.source = source
        self.device = device
        self.is_first = True

    def __call__(self, frame, size: tuple[int, int]) -> Tensor | None:
        """A datasets.source Frame -> (1, 2, *size); None for the first, which has none before."""
        if self.is_first:
            self.is_first = False
            return None
        return self.files.named(self.source, frame.name, size)[None].to(self.device)
