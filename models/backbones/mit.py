"""Mix Transformer, the encoder of SegFormer (Xie et al., NeurIPS 2021, section 3.1).

    frame -- patch_embed1 -- block1 ... -- norm1 --> 1/4 -- patch_embed2 -- ... --> 1/8, 1/16, 1/32

Tokens stay on their grid, (B, h, w, C): linear layers work on the last axis, and convolutions see
the same memory as a map in the layout channels last. Module names are the published ones.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of layer norms, as published: inside the blocks and after each stage; else torch's default.
BLOCK_EPS = 1e-6
EMBEDDING_EPS = 1e-5  # after a patch embedding, and after attention's spatial reduction
MLP_RATIO = 4


def on_map(convolution: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a convolution to tokens (B, h, w, C) -> (B, h', w', C')."""
    return convolution(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchEmbedding(nn.Module):
    """x (B, C, H, W) -> tokens (B, h, w, C') of patches that overlap, h = H / stride rounded up."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(channels, eps=EMBEDDING_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Attention(nn.Module):
    """tokens (B, h, w, C) -> (B, h, w, C): each attends to a grid `reduction` times coarser.

    What does not fill a whole cell of that grid is not seen, as published.
    """

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.reduces = reduction > 1
        if self.reduces:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps=EMBEDDING_EPS)

    def forward(self, x: Tensor) -> Tensor:
        source = self.norm(on_map(self.sr, x)) if self.reduces else x
        key, value = self.kv(source).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(
            self.by_head(self.q(x)), self.by_head(key), self.by_head(value)
        )
        return self.proj(read.transpose(1, 2).reshape(x.shape))

    def by_head(self, x: Tensor) -> Tensor:
        """x (B, h, w, C) -> (B, heads, h w, C / heads)."""
        return x.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DepthwiseConv(nn.Module):
    """Holds a 3x3 convolution of each channel alone, below its published name."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return on_map(self.dwconv, x)


class MixFFN(nn.Module):
    """tokens (B, h, w, C) -> (B, h, w, C): a convolution in the middle tells where they are."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = MLP_RATIO * channels
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class DropPath(nn.Module):
    """In training, leaves a residual out of some samples and enlarges it in the others."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = 1 - self.rate
        mask = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) < kept
        return x * (mask / kept).to(x.dtype)


class Block(nn.Module):
    """tokens (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = MixFFN(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def initialize(*parts: nn.Module) -> None:
    """Draw the weights of an encoder as published."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                # Published as truncated at 2, which is a hundred standard deviations
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                area = math.prod(module.kernel_size)
                fan_out = area * module.out_channels / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(module.bias)
