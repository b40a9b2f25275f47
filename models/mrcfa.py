"""VSS-MRCFA: cross-frame affinities (Sun, Liu, Tang, Probst, Van Gool, ECCV 2022).

    earlier frames -- encode --> stages --> keys on a coarse grid --+
                        |                                           |
                        +--> fused map --> values (sr1_feat)        |
                                                      |             |
    frame ---------- encode --> stages -- queries -- read <-- affinities (parts/affinity.py)
                        |                             |
                        +--> fused map --- + --- mean of the reads
                                           |
                                         deco4 --> logits

Each earlier frame (a reference) is read under a softmax of its own. What a frame leaves behind,
keys and values, depends on it alone: a stream encodes each frame once. A frame without references
is labelled by the backbone's own classifier. The fused map is the one that this classifier reads,
at 1/4; the stages lie at 1/4 to 1/32. Modules bear published names, but for those of the parts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .backbones.backbone import Features, SizeRule
from .keymaps import KeyMap
from .method import WindowMethod, split_rates
from .ops.resize import resize_bilinear
from .parts.affinity import REDUCTIONS, CrossFrameAffinity, gather
from .single import SINGLE_FRAME

DROPOUT = 0.1
FRAMES_WEIGHT = 0.5  # of the loss of all frames' own logits

WB = r"(?:weight|bias)"
# MRCFA's files hold the whole network, and a classifier (conv_seg) that it never uses.
MRCFA = KeyMap(
    "VSS-MRCFA",
    (
        (rf"backbone\.(?:patch_embed|block|norm)[1-4]\.(?:.+\.)?{WB}", r"\g<0>"),
        (r"decode_head\.(linear_(?:c[1-4]|fuse|pred)\..+)", r"backbone.\1"),
        (rf"decode_head\.(deco\d+)\.smalldecoder\.1\.({WB})", r"\1.1.\2"),
        (rf"decode_head\.(sr1_feat\.{WB})", r"\1"),
        (rf"decode_head\.(sr[23]\.{WB})", r"affinity.\1"),
        (rf"decode_head\.hypercorre_module\.([qk][1-3]\.{WB})", r"affinity.\1"),
        (
            rf"decode_head\.hypercorre_module\.hpn\.(\w+)\.([03])\.conv2\.({WB})",
            r"affinity.decoder.\1.\2.\3",
        ),
        (
            rf"decode_head\.hypercorre_module\.hpn\.(\w+)\.([14])\.({WB})",
            r"affinity.decoder.\1.\2.\3",
        ),
        (rf"decode_head\.conv_seg\.{WB}", None),
    ),
    covers=r".+",
    back=(
        (r"backbone\.(linear_.+)", r"decode_head.\1"),
        (r"backbone\..+", r"\g<0>"),
        (r"(deco\d+)\.1\.(.+)", r"decode_head.\1.smalldecoder.1.\2"),
        (r"sr1_feat\..+", r"decode_head.\g<0>"),
        (r"affinity\.(sr[23]\..+)", r"decode_head.\1"),
        (r"affinity\.([qk][1-3]\..+)", r"decode_head.hypercorre_module.\1"),
        (r"affinity\.decoder\.(\w+\.[03])\.(.+)", r"decode_head.hypercorre_module.hpn.\1.conv2.\2"),
        (r"affinity\.decoder\.(\w+\.[14]\..+)", r"decode_head.hypercorre_module.hpn.\1"),
    ),
)


class Encoded(NamedTuple):
    """What one frame is read for."""

    features: Features
    fused: Tensor  # (B, E, h, w) at 1/4
    halved: Tensor  # the same at 1/8


class Reference(NamedTuple):
    """What a frame leaves behind for later ones, on its coarse grid."""

    keys: tuple[Tensor, ...]  # (B, gh, gw, C) of the maps at 1/8, 1/16, 1/32
    values: Tensor  # (B, E, gh, gw)


class MRCFANet(WindowMethod):
    """State: keys and values of the last frames (models.method.History of References)."""

    # 32 x 32 has one cell only, and five are needed
    probe_side = 96

    def __init__(
        self,
        backbone,
        offsets: tuple[int, ...] = (-9, -6, -3),
        *,
        keep_ratio: float = 0.5,
        topk: int = 5,
        grid: str = "1_32",
        convolutions: int = 1,
        time_reversal: float = 0.0,
        head_lr: float = 1.0,
    ):
        """keep_ratio, topk, grid, convolutions: see CrossFrameAffinity. ValueError without offsets.

        time_reversal: probability that a training clip runs backwards. head_lr: learning rate of
        all that is not the encoder, relative to the encoder's.
        """
        if not offsets:
            raise ValueError("MRCFA reads at least one earlier frame, got no offsets")
        super().__init__(backbone, offsets)
        self.time_reversal = time_reversal
        self.head_lr = head_lr
        self.affinity = CrossFrameAffinity(
            backbone.stage_channels[1:],
            keep_ratio=keep_ratio,
            topk=topk,
            grid=grid,
            convolutions=convolutions,
        )
        channels = backbone.embedding_channels
        *_, side = REDUCTIONS[grid]
        self.sr1_feat = nn.Conv2d(channels, channels, side, side)
        # One for each reference's read, in training alone, then the one for all of them.
        self.last_decoder = f"deco{len(offsets) + 1}"
        for number in range(1, len(offsets) + 2):
            layers = nn.Dropout2d(DROPOUT), nn.Conv2d(channels, backbone.num_outputs, 1)
            self.add_module(f"deco{number}", nn.Sequential(*layers))

    @classmethod
    def from_args(cls, backbone, args):
        return cls(
            backbone,
            args.offsets,
            keep_ratio=args.keep_ratio,
            topk=args.stm_topk,
            grid=args.ref_size,
            convolutions=args.affinity_convs,
            time_reversal=args.time_reversal,
            head_lr=args.head_lr,
        )

    @property
    def size_rule(self):
        """The grids of all scales then fit, as in the published test pipeline."""
        return SizeRule(32)

    def training_offsets(self, rng: random.Random):
        if rng.random() < self.time_reversal:
            return tuple(-offset for offset in self.offsets)
        return self.offsets

    def startup(self, past):
        """As many references as ever, closer together; none where they would coincide.

        For -9, -6, -3 this is the published table.
        """
        reach = min(past, self.reach)
        shrunk = tuple(-(-offset * reach // self.reach) for offset in self.offsets)
        distinct = len(set(shrunk)) == len(shrunk) and 0 not in shrunk
        return shrunk if distinct else ()

    # The drawing

    def encode(self, frame):
        features = self.backbone.encode(frame)
        fused = self.backbone.embed(features)
        return Encoded(features, fused, resize_bilinear(fused, features.stages[1].shape[-2:]))

    def memory_entry(self, encoded):
        stages = exact(encoded.features.stages[1:])
        with without_autocast(encoded.fused):
            keys = self.affinity.keys(self.affinity.reduce(stages))
        return Reference(keys, self.sr1_feat(encoded.halved))

    def predict(self, encoded, entries):
        if not entries:
            return self.backbone.classify(encoded.fused)
        reads = self.read(encoded, entries)
        return self.decode_reads(encoded, reads)

    def read(self, encoded: Encoded, references: Sequence[Reference]) -> Tensor:
        """What a frame finds in R references -> (B, R, E, h, w) at 1/8."""
        values = torch.stack([reference.values for reference in references], 1)
        weights, tokens = self.attend(encoded, references)
        with without_autocast(values):
            (wide,) = exact([values])
            kept = gather(wide.flatten(3).transpose(2, 3), tokens)  # (B, R, S, E)
            read = kept.transpose(2, 3) @ weights.flatten(3)  # (B, R, E, h w)
        return read.unflatten(3, weights.shape[-2:]).to(values.dtype)

    def attend(self, encoded: Encoded, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
        """Weights (B, R, S, h, w) of the S tokens that are kept, and which (B, R, S) these are.

        The weights of a reference's tokens add up to 1 at each place.
        """
        keys = [exact(reference.keys) for reference in references]
        with without_autocast(encoded.fused):
            affinity = self.affinity(exact(encoded.features.stages[1:]), keys)
            return affinity.maps.softmax(2), affinity.kept

    def decode_reads(self, encoded: Encoded, reads: Tensor) -> Tensor:
        """reads (B, R, E, h, w) -> logits (B, K, H/4, W/4)."""
        decoder = self.get_submodule(self.last_decoder)
        logits = decoder(reads.mean(1) + encoded.halved)
        return resize_bilinear(logits, encoded.fused.shape[-2:])

    # Training

    def losses(self, clip, labels, flows=None):
        """Cross entropy of the last frame, and of all frames' own logits.

        The last frame's is the mean over its logits made of each reference alone and of all. Frames
        without a label do not count (published for Cityscapes). All are encoded at once: batch
        norm's statistics depend on it.
        """
        batch, length = clip.shape[:2]
        encoded = self.encode(clip.flatten(0, 1))
        labelled = [t for t in range(length) if (labels[:, t] != 255).any()] or [length - 1]
        own = self.backbone.classify(encoded.fused).unflatten(0, (batch, length))
        loss_of_frames = self.cross_entropy(
            own[:, labelled].flatten(0, 1), labels[:, labelled].flatten(0, 1)
        )
        logits = torch.cat(self.training_logits(encoded, batch, length))
        loss = self.cross_entropy(logits, labels[:, -1].repeat(length, 1, 1))
        return {"ce": loss, "frames": FRAMES_WEIGHT * loss_of_frames}

    def training_logits(self, encoded: Encoded, batch: int, length: int) -> list[Tensor]:
        """What the last frame's logits are by each reference, then by all: R + 1 of (B, K, h, w).

        encoded: of all frames of the clips, a clip's frames one after the other.
        """
        *past, last = split_clips(encoded, batch, length)
        reads = self.read(last, [self.memory_entry(frame) for frame in past])
        size = last.fused.shape[-2:]
        logits = []
        for number, read in enumerate(reads.unbind(1), 1):
            decoder = self.get_submodule(f"deco{number}")
            logits.append(resize_bilinear(decoder(read), size))
        return [*logits, self.decode_reads(last, reads)]

    def parameter_groups(self, lr, weight_decay):
        encoder = (p for part in self.backbone.encoder_parts() for p in part.parameters())
        return split_rates(self, [(encoder, 1.0)], lr, self.head_lr, weight_decay)

    def training_parts(self):
        others = range(1, len(self.offsets) + 1)
        own = [self.get_submodule(f"deco{number}") for number in others]
        return [*super().training_parts(), *own]

    # For others

    def key_maps(self):
        return [MRCFA, SINGLE_FRAME, *self.backbone.key_maps()]

    @torch.no_grad()
    def attention(self, frame: Tensor, state, yx: tuple[int, int]) -> Tensor:
        """Where pixel yx of frame (1, 3, H, W) attends in the frames that `step(frame, state)`
        reads -> (T, gh, gw); all of it adds up to 1."""
        references = self.select_entries(state)
        if not references:
            return frame.new_zeros(0, 1, 1)
        weights, kept = self.attend(self.encode(frame), references)
        stride = self.backbone.stage_strides[1]
        of_pixel = weights[0, :, :, yx[0] // stride, yx[1] // stride]  # (T, S)
        grid = references[0].values.shape[-2:]
        cells = of_pixel.new_zeros(len(references), grid.numel())
        return cells.scatter(1, kept[0], of_pixel / len(references)).unflatten(1, grid)

    def fp32_modules(self) -> list[nn.Module]:
        """What half precision leaves in float32: all that products are made of, or made into."""
        return list(self.affinity.modules())


# Products of keys are unscaled, so rounding them shows.
def exact(maps: Sequence[Tensor]) -> list[Tensor]:
    """The same in float32 at least."""
    return [x.to(torch.promote_types(x.dtype, torch.float32)) for x in maps]


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Where what is computed on x's device is not rounded."""
    return torch.autocast(x.device.type, enabled=False)


def split_clips(encoded: Encoded, batch: int, length: int) -> list[Encoded]:
    """What was encoded of B clips of T frames at once -> T times that of B frames."""

    def frames(x: Tensor) -> tuple[Tensor, ...]:
        return x.unflatten(0, (batch, length)).unbind(1)

    lasts = frames(encoded.features.last)
    stages = zip(*map(frames, encoded.features.stages), strict=True)
    features = [Features(last, own) for last, own in zip(lasts, stages, strict=True)]
    maps = zip(features, frames(encoded.fused), frames(encoded.halved), strict=True)
    return [Encoded(*of_frame) for of_frame in maps]
