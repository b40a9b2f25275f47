"""RAFT (Teed and Deng, ECCV 2020): torchvision's networks, with its or the authors' weights.

The authors' files (princeton-vl) hold the same tensors under other names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..keymaps import BN, KeyMap
from ..ops.warp import resize_flow
from .provider import FlowProvider, crop, extend, require_pair

MULTIPLE = 8
SMALLEST = 128  # pixels: below, the coarsest correlation map has a side of one cell

WB = r"\.(weight|bias)"
PART = r"(feature_encoder|context_encoder|update_block|mask_predictor)"
TORCHVISION = KeyMap(
    "torchvision's RAFT", ((rf"{PART}\..+", r"network.\g<0>"),), covers=r"network\..+"
)


def encoder_rules(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Rules of one of the two encoders."""
    block = r"\.(layer[123]\.[01])"
    ours = f"network.{ours}"
    return (
        (rf"{theirs}\.conv1{WB}", rf"{ours}.convnormrelu.0.\1"),
        (rf"{theirs}\.norm1\.({BN})", rf"{ours}.convnormrelu.1.\1"),
        (rf"{theirs}{block}\.conv([123]){WB}", rf"{ours}.\1.convnormrelu\2.0.\3"),
        (rf"{theirs}{block}\.norm([12])\.({BN})", rf"{ours}.\1.convnormrelu\2.1.\3"),
        (rf"{theirs}{block}\.downsample\.0{WB}", rf"{ours}.\1.downsample.0.\2"),
        (rf"{theirs}{block}\.downsample\.1\.({BN})", rf"{ours}.\1.downsample.1.\2"),
        # The authors' module has this batch norm twice, under two names.
        (rf"{theirs}{block}\.norm3\.({BN})", rf"{ours}.\1.downsample.1.\2"),
        (rf"{theirs}\.conv2{WB}", rf"{ours}.conv.\1"),
    )


UPDATE = "network.update_block"
PRINCETON = KeyMap(
    "princeton-vl's RAFT",
    (
        *encoder_rules("fnet", "feature_encoder"),
        *encoder_rules("cnet", "context_encoder"),
        (rf"update_block\.encoder\.convc([12]){WB}", rf"{UPDATE}.motion_encoder.convcorr\1.0.\2"),
        (rf"update_block\.encoder\.convf([12]){WB}", rf"{UPDATE}.motion_encoder.convflow\1.0.\2"),
        (rf"update_block\.encoder\.conv{WB}", rf"{UPDATE}.motion_encoder.conv.0.\1"),
        # The small network has one unit, without a number; the large one a row and a column.
        (rf"update_block\.gru\.(conv[zrq]){WB}", rf"{UPDATE}.recurrent_block.convgru1.\1.\2"),
        (
            rf"update_block\.gru\.(conv[zrq])([12]){WB}",
            rf"{UPDATE}.recurrent_block.convgru\2.\1.\3",
        ),
        (rf"update_block\.flow_head\.(conv[12]){WB}", rf"{UPDATE}.flow_head.\1.\2"),
        (rf"update_block\.mask\.0{WB}", r"network.mask_predictor.convrelu.0.\1"),
        (rf"update_block\.mask\.2{WB}", r"network.mask_predictor.conv.\1"),
    ),
    covers=r"network\..+",
)


class RAFT(FlowProvider):
    """Flow on the frame's own grid. It is never trained: always in eval mode, without gradients.

    One call at a time: torchvision's network keeps the correlations of a call on itself.
    """

    def __init__(self, size: str = "small", iterations: int = 12):
        """size: "small" (990,162 parameters) or "large" (5,257,536).

        iterations: updates of the flow; fewer are faster and coarser.
        """
        super().__init__()
        from torchvision.models import optical_flow

        self.iterations = iterations
        build = getattr(optical_flow, f"raft_{size}")
        self.network = build(weights=None).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> RAFT:
        """Stays in eval mode, whatever the model around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        require_pair(frame, previous)
        size = tuple(frame.shape[-2:])
        # Enlarged, small frames are seen better than within a repeated border.
        large = tuple(max(side, SMALLEST) for side in size)
        taken = tuple(-(-side // MULTIPLE) * MULTIPLE for side in large)
        image1, start = extend(enlarge(frame.float(), large), taken)
        image2, _ = extend(enlarge(previous.float(), large), taken)
        # Correlations of half precision move the flow by whole pixels.
        with torch.autocast(frame.device.type, enabled=False):
            # From [0, 1] to torchvision's range
            *_, flow = self.network(image1 * 2 - 1, image2 * 2 - 1, self.iterations)
        # Gigabytes on large frames, and of no use any more
        self.network.corr_block.corr_pyramid = []
        return resize_flow(crop(flow, start, large), size, cells_of=large)

    def identity(self) -> str:
        return f"RAFT-{self.iterations}-{self.weights_fingerprint()}"

    def key_maps(self) -> list:
        return [TORCHVISION, PRINCETON]


def enlarge(frame: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(frame.shape[-2:]) == size:
        return frame
    return F.interpolate(frame, size, mode="bilinear", align_corners=False)
