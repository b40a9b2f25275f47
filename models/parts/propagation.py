"""How a prediction gets from one frame to the next: three answers to one question.

A propagation carries a tuple of maps whose first is the prediction (B, K, h, w):

    begin(logits, size) -> carried              at a key frame of `size` (H, W)
    forward(carried, cells, frame) -> carried   at the next frame (B, 3, H, W)

cells (B, 2, h, w) is the flow into the frame before, in cells of the maps.
"""

from __future__ import annotations

from argparse import Namespace

from torch import Tensor, nn

from ..ops.resize import resize_aligned
from ..ops.warp import warp
from ..optical_flow.small import SmallPicture
from .guided_filter import GuidedFilter


class Hold(nn.Module):
    """The key frame's logits, as they were."""

    moves = False  # whether flow is used
    aligned = None  # how its logits are enlarged; None: as the backbone's

    @classmethod
    def from_args(cls, num_outputs: int, args: Namespace) -> Hold:
        return cls()

    def begin(self, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return (logits,)


class Warp(nn.Module):
    """The key frame's logits, moved by all flow since then.

    The flow is summed along its way and the logits are read once, where it leads: they stay as
    sharp as they were. What comes into the frame from outside shows the nearest cell.
    """

    moves = True
    aligned = None

    def __init__(self, *, align_corners: bool = True):
        super().__init__()
        self.align_corners = align_corners

    @classmethod
    def from_args(cls, num_outputs: int, args: Namespace) -> Warp:
        return cls(align_corners=args.warp_align_corners)

    def begin(self, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        flow = logits.new_zeros(len(logits), 2, *logits.shape[-2:])
        return logits, logits, flow

    def forward(self, carried: tuple[Tensor, ...], cells: Tensor, frame: Tensor) -> tuple:
        _, logits, flow = carried
        cells = cells.to(flow.dtype)
        flow = cells + warp(flow, cells, self.align_corners, padding="border")
        return warp(logits, flow, self.align_corners, padding="border"), logits, flow


class Guided(nn.Module):
    """The last prediction at 1/8 of the frame, warped and mended by the guided filter."""

    moves = True
    aligned = True

    def __init__(self, num_outputs: int, *, align_corners: bool = True, **options):
        """options: of GuidedFilter."""
        super().__init__()
        self.align_corners = align_corners
        self.small = SmallPicture()
        self.filter = GuidedFilter(num_outputs, **options)

    @classmethod
    def from_args(cls, num_outputs: int, args: Namespace) -> Guided:
        return cls(
            num_outputs,
            align_corners=args.warp_align_corners,
            edge=args.edge,
            train_kernels=args.train_filter,
        )

    def begin(self, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return (resize_aligned(logits, self.small.size(size)),)

    def forward(self, carried: tuple[Tensor, ...], cells: Tensor, frame: Tensor) -> tuple:
        warped = warp(carried[0], cells, self.align_corners)
        return (self.filter(warped, self.small(frame)),)


PROPAGATIONS: dict[str, type[nn.Module]] = {"gsv": Guided, "warp": Warp, "hold": Hold}
