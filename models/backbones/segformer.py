"""SegFormer (Xie et al., NeurIPS 2021): a Mix Transformer and a head of linear layers.

    frame -- block1 --> block2 --> block3 --> block4: last, 1/32
               |          |          |          |
           linear_c1  linear_c2  linear_c3  linear_c4
               |          |          |          |
               +---------- all at 1/4 ----------+-- linear_fuse --> 1/4 -- linear_pred --> logits

Every map is resized to the size of the finest, so any frame of at least 29 pixels a side works.
Module names are the published ones (segformer_keys.py).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

from ..keymaps import BACKBONE, KeyMap
from ..ops.resize import resize_bilinear
from .backbone import Backbone, Features, SizeRule, imagenet_normalize
from .blocks import ConvBNReLU
from .mit import BLOCK_EPS, Block, PatchEmbedding, initialize
from .segformer_keys import KEY_MAPS, norm_of

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # of the grid of keys, by stage
STRIDES = (4, 8, 16, 32)
DROP_PATH = 0.1  # of the last block; rises from 0
DROPOUT = 0.1  # of the map that is classified
STAGES = range(1, 5)
NORMS = {"bn": nn.BatchNorm2d, "gn": partial(nn.GroupNorm, 1)}  # of the head, by name


class Projection(nn.Module):
    """Holds a linear layer below its published name."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Linear(channels, width)


class Fusion(nn.Module):
    """Maps of four sizes -> one of the finest size: (B, E, h, w), normalised and activated.

    Published are a 1x1 convolution of all four maps, once projected to E channels, enlarged and
    put side by side; it has a batch norm (`bn`) or, in MRCFA's single-frame network, a group norm
    of one group (`gn`). A linear layer may as well come before the enlarging, and two of them are
    one: so each map is enlarged with its share of the sum, which takes a tenth of the time.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(len(STAGES) * width, width, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = nn.BatchNorm2d(width)
        self.others: dict[str, nn.Module] = {}  # norms that are not in use
        self.register_load_state_dict_pre_hook(follow_state_dict)

    @property
    def norm_name(self) -> str:
        """bn or gn."""
        return "bn" if hasattr(self, "bn") else "gn"

    def use_norm(self, name: str) -> None:
        """Exchange the norm. Scale and shift stay the same parameters: optimizers hold them."""
        if hasattr(self, name):
            return
        old = self.norm_name
        replaced = self._modules.pop(old)
        self.others[old] = replaced
        norm = self.others.pop(name, None) or NORMS[name](len(replaced.weight))
        norm.weight = replaced.weight
        norm.bias = replaced.bias
        self.add_module(name, norm.to(replaced.weight.device).train(self.training))

    def forward(self, maps: Sequence[Tensor], projections: Sequence[nn.Linear]) -> Tensor:
        """maps (B, C, h, w), finest first, and the layer that projects each."""
        size = maps[0].shape[-2:]
        # The published order is from the coarsest to the finest.
        shares = reversed(self.conv.weight.flatten(1).chunk(len(maps), 1))
        total: Tensor | int = 0
        for x, projection, share in zip(maps, projections, shares, strict=True):
            weight = (share @ projection.weight).to(x.dtype)
            bias = (share @ projection.bias).to(x.dtype)
            projected = F.linear(x.permute(0, 2, 3, 1), weight, bias)  # (B, h, w, E)
            total = total + resize_bilinear(projected.permute(0, 3, 1, 2), size)
        return F.relu(self._modules[self.norm_name](total))


def follow_state_dict(fusion: Fusion, state_dict: dict, prefix: str, *_) -> None:
    """The norm that a state dict of ours holds, say when a training is resumed."""
    for name in ("bn", "gn"):
        if f"{prefix}{name}.weight" in state_dict:
            fusion.use_norm(name)


class SegFormer(Backbone):
    """`stages` are the normalised maps of the four stages, `last` is the one at 1/32.

    `embed` reads `last` and the finer stages, and gives (B, E, H/4, W/4), rounded up.
    """

    stride = STRIDES[-1]
    stage_strides = STRIDES
    # attention's coarsest grid takes 8 x 8 cells of 1/4 together
    size_rule = SizeRule(1, 28)
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_channels: int  # E as SegFormer was published

    def __init__(self, num_classes: int, *, head_channels: int | None = None):
        super().__init__()
        self.num_outputs = num_classes
        self.channels = self.widths[-1]
        self.stage_channels = self.widths
        self.embedding_channels = head_channels or self.head_channels
        self.normalize = imagenet_normalize()
        self.add_stages()
        initialize(*self.encoder_parts())
        for stage, width in zip(STAGES, self.widths, strict=True):
            self.add_module(f"linear_c{stage}", Projection(width, self.embedding_channels))
        self.linear_fuse = Fusion(self.embedding_channels)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.linear_pred = nn.Conv2d(self.embedding_channels, num_classes, 1)

    def add_stages(self) -> None:
        last = sum(self.depths) - 1
        rates = (DROP_PATH * number / last for number in range(last + 1))
        in_channels = 3
        stages = zip(STAGES, self.widths, self.depths, HEADS, REDUCTIONS, strict=True)
        for stage, width, depth, heads, reduction in stages:
            kernel_size, stride = (7, 4) if stage == 1 else (3, 2)
            embedding = PatchEmbedding(in_channels, width, kernel_size, stride)
            blocks = [Block(width, heads, reduction, rate) for rate in islice(rates, depth)]
            self.add_module(f"patch_embed{stage}", embedding)
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=BLOCK_EPS))
            in_channels = width

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> SegFormer:
        return cls(num_classes, head_channels=args.head_channels)

    def by_stage(self, name: str) -> list[nn.Module]:
        """The modules that each stage has under one name: name1 to name4."""
        return [self.get_submodule(f"{name}{stage}") for stage in STAGES]

    def encode(self, frame: Tensor) -> Features:
        x = self.normalize(frame)
        maps = []
        parts = (self.by_stage(name) for name in ("patch_embed", "block", "norm"))
        for embedding, blocks, norm in zip(*parts, strict=True):
            tokens = embedding(x)
            for block in blocks:
                tokens = block(tokens)
            x = norm(tokens).permute(0, 3, 1, 2)  # (B, C, h, w)
            maps.append(x)
        return Features(x, tuple(maps))

    def embed(self, features: Features) -> Tensor:
        projections = [part.proj for part in self.by_stage("linear_c")]
        return self.linear_fuse((*features.stages[:-1], features.last), projections)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.linear_pred(self.dropout(embedding))

    def second_decoder(self, channels: int) -> nn.Module:
        width = self.embedding_channels
        return nn.Sequential(
            ConvBNReLU(channels, width, 1),
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(width, self.num_outputs, 1),
        )

    def encoder_parts(self) -> list[nn.Module]:
        return [part for name in ("patch_embed", "block", "norm") for part in self.by_stage(name)]

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Scales and shifts of the encoder's norms, as published; those of the head do decay."""
        for part in self.encoder_parts():
            for module in part.modules():
                if isinstance(module, nn.LayerNorm):
                    yield from module.parameters()

    def follow_keys(self, keys: Collection[str]) -> None:
        self.linear_fuse.use_norm(norm_of(keys) or self.linear_fuse.norm_name)

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in KEY_MAPS]


class MiTB0(SegFormer):
    """3.3 million parameters in the encoder."""

    widths = (32, 64, 160, 256)
    depths = (2, 2, 2, 2)
    head_channels = 256


class MiTB1(SegFormer):
    """13.2 million parameters in the encoder."""

    widths = (64, 128, 320, 512)
    depths = (2, 2, 2, 2)
    head_channels = 256


class MiTB2(MiTB1):
    """24.2 million parameters in the encoder."""

    depths = (3, 4, 6, 3)
    head_channels = 768


class MiTB3(MiTB2):
    """44.1 million parameters in the encoder."""

    depths = (3, 4, 18, 3)


class MiTB4(MiTB2):
    """60.8 million parameters in the encoder."""

    depths = (3, 8, 27, 3)


class MiTB5(MiTB2):
    """81.4 million parameters in the encoder."""

    depths = (3, 6, 40, 3)
