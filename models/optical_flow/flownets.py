"""FlowNetS (Dosovitskiy et al., ICCV 2015) in the form of Deep Feature Flow, as SwNet-seq has it.

    previous, small frame -> conv1 ... conv6_1 -> flow at a 64th -> refined four times -> an 8th

It differs from NVIDIA's: up-convolutions have no padding and are cropped, flow is not scaled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import KeyMap
from .small import SmallFlow

LEAK = 0.1  # slope of negative values

CONVOLUTIONS = r"(?:conv[1-6](?:_1)?|deconv[2-5])\.0\.(?:weight|bias)"
FLOWS = r"predict_flow[2-6]\.(?:weight|bias)|upsampled_flow\d_to_\d\.weight"
UP_BIASES = r"upsampled_flow\d_to_\d\.bias"
# NVIDIA's files have the same names without these biases; they stay 0.
FLOWNETS = KeyMap(
    "FlowNetS",
    ((rf"{CONVOLUTIONS}|{FLOWS}|{UP_BIASES}", r"\g<0>"),),
    covers=rf"{CONVOLUTIONS}|{FLOWS}",
)


class FlowNetS(SmallFlow):
    """38,676,514 parameters; trainable with the method that uses it."""

    smallest = 8

    def __init__(self):
        super().__init__()
        self.conv1 = down(6, 64, 7, 2)
        self.conv2 = down(64, 128, 5, 2)
        self.conv3 = down(128, 256, 5, 2)
        self.conv3_1 = down(256, 256, 3, 1)
        self.conv4 = down(256, 512, 3, 2)
        self.conv4_1 = down(512, 512, 3, 1)
        self.conv5 = down(512, 512, 3, 2)
        self.conv5_1 = down(512, 512, 3, 1)
        self.conv6 = down(512, 1024, 3, 2)
        self.conv6_1 = down(1024, 1024, 3, 1)

        self.deconv5 = up(1024, 512)
        self.deconv4 = up(1026, 256)
        self.deconv3 = up(770, 128)
        self.deconv2 = up(386, 64)
        for level, channels in zip((6, 5, 4, 3, 2), (1024, 1026, 770, 386, 194), strict=True):
            self.add_module(f"predict_flow{level}", nn.Conv2d(channels, 2, 3, padding=1))
        for level in (6, 5, 4, 3):
            name = f"upsampled_flow{level}_to_{level - 1}"
            self.add_module(name, nn.ConvTranspose2d(2, 2, 4, 2))
        initialize(self)

    def estimate(self, small: Tensor, previous: Tensor) -> Tensor:
        """-> (B, 2, h / 8, w / 8): a quarter rounded up, then half of it rounded down."""
        conv2 = self.conv2(self.conv1(torch.cat([previous, small], 1)))
        conv3 = self.conv3_1(self.conv3(conv2))
        conv4 = self.conv4_1(self.conv4(conv3))
        conv5 = self.conv5_1(self.conv5(conv4))
        conv6 = self.conv6_1(self.conv6(conv5))

        concat5 = self.refine(6, conv6, conv5)
        concat4 = self.refine(5, concat5, conv4)
        concat3 = self.refine(4, concat4, conv3)
        concat2 = self.refine(3, concat3, conv2)
        return self.predict_flow2(F.avg_pool2d(concat2, 2))

    def refine(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """x, the map of this level, and the skip of the next finer one -> the latter's map."""
        flow = self.get_submodule(f"predict_flow{level}")(x)
        flow = self.get_submodule(f"upsampled_flow{level}_to_{level - 1}")(flow)
        features = self.get_submodule(f"deconv{level - 1}")(x)
        height, width = skip.shape[-2:]
        parts = [skip, features[..., :height, :width], flow[..., :height, :width]]
        return torch.cat(parts, 1)

    def key_maps(self) -> list:
        return [FLOWNETS]


def down(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, nn.LeakyReLU(LEAK, inplace=True))


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the size and two cells more, to be cropped."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2), nn.LeakyReLU(LEAK))


def initialize(network: nn.Module) -> None:
    """As published: He's normal distribution for this slope, biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, LEAK)
            nn.init.zeros_(module.bias)
