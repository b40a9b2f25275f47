"""The contract of optical flow: where the content of a frame was in the frame before it.

    provider(frame, previous) -> flow        previous(p + flow(p)) shows what frame(p) shows

Flow is in pixels of the frame, channel 0 to the right, channel 1 down. Its grid lies over the whole
frame and may be coarser: models.ops.warp.resize_flow brings it to another grid.
"""

from __future__ import annotations

from torch import Tensor, nn


class FlowProvider(nn.Module):
    """Base class of flow networks and of what computes flow without one."""

    # whether its weights come from a file: without one, nothing it computes means anything
    needs_weights = True

    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        """Frames (B, 3, H, W), RGB in [0, 1] -> flow (B, 2, h, w) in pixels of the frame."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def key_maps(self) -> list:
        """Published checkpoints that this network reads (models.keymaps.KeyMap)."""
        return []
