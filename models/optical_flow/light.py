"""The light flow network of SwNet-seq (GSVNet): dilated convolutions at a quarter of its input.

small frame, previous -> conv1 -> conv2 -> x -+-> four dilations, summed one by one -> merge
                                              +----------------------------------------> + -> flow
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..keymaps import BN, KeyMap
from .small import SmallFlow

LEAK = 0.1  # slope of negative values

LAYERS = rf"(?:(?:conv[12]|conv_dilate_[1-4]|conv_merge)\.[01]\.{BN}|toflow\.(?:weight|bias))"
# The propagation checkpoint holds the flow network beside the filter, which others read.
SWNET_LIGHT_FLOW = KeyMap(
    "SwNet-seq's light flow",
    ((rf"state_dict_of\.({LAYERS})", r"\1"), (r"grm\..+", None)),
    covers=LAYERS,
)


class LightFlow(SmallFlow):
    """186,402 parameters; trainable with the method that uses it."""

    def __init__(self):
        super().__init__()
        self.conv1 = layer(6, 32, 3, stride=2)
        self.conv2 = layer(32, 64, 3, stride=2)
        self.conv_dilate_1 = layer(64, 64, 3)
        self.conv_dilate_2 = layer(64, 64, 3, dilation=2)
        self.conv_dilate_3 = layer(64, 64, 3, dilation=4)
        self.conv_dilate_4 = layer(64, 64, 3, dilation=8)
        self.conv_merge = layer(4 * 64, 64, 1)
        self.toflow = nn.Conv2d(64, 2, 3, padding=1)

    def estimate(self, small: Tensor, previous: Tensor) -> Tensor:
        """-> (B, 2, h / 4, w / 4), rounded up."""
        x = self.conv2(self.conv1(torch.cat([small, previous], 1)))
        # All four read x; each adds what the smaller ones saw.
        sums = [self.conv_dilate_1(x)]
        for dilated in (self.conv_dilate_2, self.conv_dilate_3, self.conv_dilate_4):
            sums.append(dilated(x) + sums[-1])
        return self.toflow(self.conv_merge(torch.cat(sums, 1)) + x)

    def key_maps(self) -> list:
        return [SWNET_LIGHT_FLOW]


def layer(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1):
    """Convolution, batch norm, leaky ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(LEAK, inplace=True),
    )
