"""ESPNetv2 for segmentation (Mehta et al., CVPR 2019; EdgeNets): small, for real streets.

    image --------+--- 1/4 ----+--- 1/8 ----+--- 1/16         (means of the frame)
      |           v            v            v
      +- level1 - level2_0 --- level3 ----- level4 --> last 1/16
           |        |            |            |
           |        |            |          pool
           |        |          merge <------- +
           |        |            +-- pool
           |      merge <------------ +
           |        +-- pool
         merge <--------- +
           +-- pool --> logits 1/2

A merge adds a gated map of the encoder to the decoder's map at twice the size. Gates and pools see
the whole map, so every pixel depends on the whole frame: padding, tiles and crops change all of
it. Module names are the published ones, without the wrappers `cbr` and `br`, and with one name for
a convolution, batch norm or activation where the files have a number.
"""

from __future__ import annotations

from argparse import Namespace

from torch import Tensor, nn

from ..keymaps import BACKBONE, BN, KeyMap
from ..ops.resize import resize_aligned
from .backbone import Backbone, Features, SizeRule, imagenet_normalize
from .espnetv2_parts import GatedMerge, PyramidPool, StridedUnit, Unit, bn_act, conv_bn_act, halve
from .resnet import initialize

STAGE_STRIDES = (2, 4, 8, 16)
DECODER = (64, 48, 32)  # channels at 1/8, 1/4, 1/2
WIDEST = 16  # channels inside a pool of the decoder, at most

# Units keep to a receptive field, so dilations get smaller towards the end
DILATIONS = (1, 2, 3, 4)
LAST_DILATIONS = (1, 1, 2, 3)  # of level4, but for its strided unit

# Parts of published keys. The strided units hold slopes that the original never applies.
LAYER = rf"(?:conv\.weight|bn\.{BN}|act\.weight)"
UNIT = r"level[2-4](?:_0\.eesp|\.\d)"
ENCODER = "|".join(
    (
        rf"level1\.{LAYER}",
        rf"{UNIT}\.(?:proj_1x1|br_after_cat|conv_1x1_exp)\.{LAYER}",
        r"level[34]\.\d\.module_act\.weight",
        rf"level[2-4]_0\.(?:inp_reinf\.[01]\.{LAYER}|act\.weight)",
    )
)
DEPTHWISE = rf"({UNIT}\.spp_dw\.[0-3])\.conv\.weight"
NEVER_APPLIED = r"level[2-4]_0\.eesp\.module_act\.weight"
# Blocks of the decoder whose layers are wrapped and numbered
NUMBERED = (
    r"(bu_dec_l[1-4]\.(?:projection_layer|merge_layer\.[02])|bu_dec_l[1-3]\.br"
    r"|merge_enc_dec_l[2-4]\.expansion_layer)"
)
ESPNETV2 = KeyMap(
    "ESPNetv2",
    (
        (rf"base_net\.{NEVER_APPLIED}", None),
        (rf"base_net\.{DEPTHWISE}", r"base_net.\1.weight"),
        (rf"base_net\.(?:{ENCODER})", r"\g<0>"),
        (rf"{NUMBERED}\.cbr\.0\.weight", r"\1.conv.weight"),
        (rf"{NUMBERED}\.cbr\.1\.({BN})", r"\1.bn.\2"),
        (rf"{NUMBERED}\.cbr\.2\.weight", r"\1.act.weight"),
        (rf"{NUMBERED}\.br\.0\.({BN})", r"\1.bn.\2"),
        (rf"{NUMBERED}\.br\.1\.weight", r"\1.act.weight"),
        (rf"(bu_br_l[2-4])\.0\.({BN})", r"\1.bn.\2"),
        (r"(bu_br_l[2-4])\.1\.weight", r"\1.act.weight"),
        (r"(merge_enc_dec_l[2-4]\.wt_layer)\.1\.weight", r"\1.weight"),
        (r"bu_dec_l[1-4]\.(?:stages\.[0-4]|merge_layer\.3)\.weight", r"\g<0>"),
        (r"bu_dec_l4\.merge_layer\.3\.bias", r"\g<0>"),
    ),
    covers=r".+",
)
# The ImageNet classifier, as a start
CLASSIFIER = "|".join(
    (
        rf"level5\.\d\.{LAYER}",
        rf"level5(?:_0\.eesp|\.\d)\.(?:proj_1x1|br_after_cat|conv_1x1_exp|spp_dw\.[0-3])\.{LAYER}",
        r"level5(?:_0\.eesp|\.\d)\.module_act\.weight",
        rf"level5_0\.(?:inp_reinf\.[01]\.{LAYER}|act\.weight)",
        r"classifier\.(?:weight|bias)",
    )
)
ESPNETV2_IMAGENET = KeyMap(
    "ESPNetv2's ImageNet classifier",
    (
        (NEVER_APPLIED, None),
        (DEPTHWISE, r"base_net.\1.weight"),
        (ENCODER, r"base_net.\g<0>"),
        (CLASSIFIER, None),
    ),
    covers=r"base_net\..+",
)


class Encoder(nn.Module):
    """frame (B, 3, H, W), normalised -> maps at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self, widths: tuple[int, int, int, int]):
        """widths: channels of these maps."""
        super().__init__()
        first, second, third, fourth = widths
        self.level1 = conv_bn_act(3, first, 3, stride=2)
        self.level2_0 = StridedUnit(first, second, DILATIONS)
        self.level3_0 = StridedUnit(second, third, DILATIONS)
        self.level3 = nn.Sequential(*(Unit(third, DILATIONS) for _ in range(3)))
        self.level4_0 = StridedUnit(third, fourth, DILATIONS)
        self.level4 = nn.Sequential(*(Unit(fourth, LAST_DILATIONS) for _ in range(7)))

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        quarter = halve(halve(frame))
        eighth = halve(quarter)
        e1 = self.level1(frame)
        e2 = self.level2_0(e1, quarter)
        e3 = self.level3(self.level3_0(e2, eighth))
        e4 = self.level4(self.level4_0(e3, halve(eighth)))
        return e1, e2, e3, e4


class ESPNetv2(Backbone):
    """`stages` are the encoder's four maps, `last` is the coarsest of them, not merged yet.

    `embed` reads the other three too. A subclass says how wide the encoder is.
    """

    widths: tuple[int, int, int, int]  # channels of the stages
    learned_ignore = True  # published as "background"
    stride = 16
    # Published sides are 16 n; 16 n - 1 works too
    size_rule = SizeRule(16)
    align_corners = True
    stage_strides = STAGE_STRIDES

    def __init__(self, num_classes: int, *, pyramid_width: int | None = None):
        """pyramid_width: channels inside the decoder's pools.

        By default as published: half the outputs, at most 16. It is part of the decoder's shapes:
        a network for other classes takes a published decoder only with the width of the latter.
        """
        super().__init__()
        self.normalize = imagenet_normalize()
        self.num_outputs = num_classes + 1  # the last one is "ignore"
        self.channels = self.widths[-1]
        self.pyramid_width = pyramid_width or min(self.num_outputs // 2, WIDEST)
        self.base_net = Encoder(self.widths)
        self.build_decoder()
        initialize(self)
        nn.init.zeros_(self.bu_dec_l4.merge_layer[-1].bias)

    def build_decoder(self) -> None:
        """Published names count from the coarsest map: l1 is at 1/16, l4 at 1/2."""
        c1, c2, c3, c4 = self.widths
        d2, d3, d4 = DECODER
        self.bu_dec_l1 = PyramidPool(c4, d2, self.pyramid_width)
        self.merge_enc_dec_l2 = GatedMerge(c3, d2)
        self.bu_br_l2 = bn_act(d2)
        self.bu_dec_l2 = PyramidPool(d2, d3, self.pyramid_width)
        self.merge_enc_dec_l3 = GatedMerge(c2, d3)
        self.bu_br_l3 = bn_act(d3)
        self.bu_dec_l3 = PyramidPool(d3, d4, self.pyramid_width)
        self.merge_enc_dec_l4 = GatedMerge(c1, d4)
        self.bu_br_l4 = bn_act(d4)
        self.bu_dec_l4 = self.second_decoder(d4)

    @classmethod
    def from_args(cls, num_classes: int, args: Namespace) -> ESPNetv2:
        return cls(num_classes, pyramid_width=args.pyramid_width)

    def encode(self, frame: Tensor) -> Features:
        stages = self.base_net(self.normalize(frame))
        return Features(stages[-1], stages)

    def embed(self, features: Features) -> Tensor:
        """-> (B, pyramid_width, H/2, W/2)."""
        e1, e2, e3 = features.stages[:3]
        m2 = self.bu_br_l2(double(self.bu_dec_l1(features.last)) + self.merge_enc_dec_l2(e3))
        m3 = self.bu_br_l3(double(self.bu_dec_l2(m2)) + self.merge_enc_dec_l3(e2))
        m4 = self.bu_br_l4(double(self.bu_dec_l3(m3)) + self.merge_enc_dec_l4(e1))
        return self.bu_dec_l4.embed(m4)

    def classify(self, embedding: Tensor) -> Tensor:
        return self.bu_dec_l4.classify(embedding)

    def second_decoder(self, channels: int) -> nn.Module:
        """Logits at the map's own size, without skips: the decoder's last pool."""
        return PyramidPool(channels, self.num_outputs, self.pyramid_width, last=True)

    def encoder_parts(self) -> list[nn.Module]:
        return [self.base_net]

    def key_maps(self) -> list[KeyMap]:
        return [key_map.prefixed(BACKBONE) for key_map in (ESPNETV2, ESPNETV2_IMAGENET)]


def double(x: Tensor) -> Tensor:
    """x (B, C, h, w) -> (B, C, 2h, 2w)."""
    height, width = x.shape[-2:]
    return resize_aligned(x, (2 * height, 2 * width))


class ESPNetv2S05(ESPNetv2):
    """s = 0.5: 0.08 million parameters."""

    widths = (16, 32, 64, 128)


class ESPNetv2S10(ESPNetv2):
    """s = 1.0: 0.23 million parameters."""

    widths = (32, 64, 128, 256)


class ESPNetv2S15(ESPNetv2):
    """s = 1.5: 0.47 million parameters."""

    widths = (32, 96, 192, 384)


class ESPNetv2S20(ESPNetv2):
    """s = 2.0: 0.79 million parameters."""

    widths = (32, 128, 256, 512)
