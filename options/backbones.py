"""The rows of the backbones, each with its own options."""

from __future__ import annotations

from .jobs import NETWORK
from .option import Group, Option
from .rows import Backbone
from .types import positive

# SGD with a poly schedule, as PSPNet, the FCN on ResNet-v1c and TMANet were trained.
SGD = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_start": 0.01,
    "weight_decay": 1e-4,
    "lr_strategy": "poly",
}
# semseg's training of PSPNet: heads at ten times the encoder's rate.
PSP = {**SGD, "head_lr": 10.0, "aux_weight": 0.4, "batch_size": 8, "num_epochs": 200}
# mmsegmentation's schedule, on which TMANet builds.
V1C = {
    **SGD,
    "aux_weight": 0.4,
    "weight_decay": 5e-4,
    "lr_min": 1e-4,
    "batch_size": 8,
    "num_epochs": 240,
    "align_corners": False,
}
STRIDES = (4, 8, 8, 8)  # of the four stages of a ResNet that is dilated from the third on

ERF = Group(
    "backbone (erf)",
    (
        Option("--backbone-nobn", "skip every batch norm", type=bool),
        Option("--shallow-dec", "classify at 1/8, without the decoder", type=bool),
    ),
    jobs=NETWORK,
)

ALIGNMENT = Group(
    "backbone (r50v1c, r101v1c)",
    (
        Option(
            "--align-corners",
            "how logits are enlarged (TMANet: on for Cityscapes)",
            type=bool,
            negatable=True,
            default=None,
        ),
    ),
    jobs=NETWORK,
)

# Adam at a quarter of the heads' rate for the encoder, as SwiftNet was trained. Its cosine schedule
# is not offered; poly ends at the same rate.
SWIFT = {
    "optimizer": "adam",
    "lr_start": 1e-4,
    "head_lr": 4.0,
    "lr_strategy": "poly",
    "lr_min": 1e-6,
    "weight_decay": 1e-4,
    "batch_size": 14,
    "num_epochs": 250,
    # lma's window: at 1/32 as wide in pixels as 21 cells at 1/8
    "corr_size": 7,
}

LOGITS = Group(
    "backbone (swiftnet18, swiftnet18_pyramid)",
    (
        Option(
            "--logits-kernel",
            "side of the last convolution; 3: older published files (*_cs), without a bias",
            type=int,
            choices=(1, 3),
            default=1,
        ),
    ),
    jobs=NETWORK,
)

# ESPNetv2's second stage at 1024x512. Its schedule, by epochs, is not offered.
ESP = {
    **SGD,
    "head_lr": 10.0,
    "lr_start": 0.005,
    "weight_decay": 4e-5,
    "batch_size": 6,
    "num_epochs": 100,
    # lma's window: at 1/16 as wide in pixels as 21 cells at 1/8
    "corr_size": 11,
}

PYRAMID_WIDTH = Group(
    "backbone (espnetv2_*)",
    (
        Option(
            "--pyramid-width",
            "channels inside the decoder's pools (default: half the outputs, at most 16); "
            "10 takes the decoder of a Cityscapes file for any classes",
            type=positive,
            default=None,
        ),
    ),
    jobs=NETWORK,
)

# SegFormer's training, as VSS-MRCFA has it; VSS-MRCFA's own row says the rest.
MIT = {
    "optimizer": "adamw",
    "lr_start": 6e-5,
    "head_lr": 10.0,
    "lr_strategy": "poly",
    "lr_power": 1.0,
    "lr_warmup": 1500,
    "weight_decay": 0.01,
    "batch_size": 8,
    "num_epochs": 200,
    # lma's window: at 1/32 as wide in pixels as 21 cells at 1/8
    "corr_size": 7,
}

HEAD = Group(
    "backbone (mit_*)",
    (
        Option(
            "--head-channels",
            "width of SegFormer's head (default: 256 for mit_b0 and mit_b1, else 768; mrcfa: 256)",
            type=positive,
            default=None,
        ),
    ),
    jobs=NETWORK,
)


# What VSS-MRCFA was published with on some sizes.
OF_MRCFA = {0: {"keep_ratio": 0.8}, 1: {"affinity_convs": 2}}


def mit(size: int) -> Backbone:
    """The row of one size of Mix Transformer."""
    return Backbone(
        f"mit_b{size}",
        f"SegFormer-B{size} (Xie et al., NeurIPS 2021)",
        f"models.backbones.segformer:MiTB{size}",
        groups=(HEAD,),
        defaults=MIT | OF_MRCFA.get(size, {}),
        stage_strides=(4, 8, 16, 32),
    )


ROWS = (
    Backbone(
        "erf",
        "ERFNet (Romera et al., T-ITS 2018)",
        "models.backbones.erfnet:ERFNet",
        groups=(ERF,),
        defaults={"lr_start": 5e-4},
    ),
    Backbone(
        "psp18",
        "PSPNet on ResNet-18, as ETC uses it",
        "models.backbones.pspnet:PSPNet18",
        defaults=PSP,
        stage_strides=STRIDES,
        auxiliary=True,
    ),
    Backbone(
        "psp50",
        "PSPNet on ResNet-50 (Zhao et al., CVPR 2017)",
        "models.backbones.pspnet:PSPNet50",
        defaults=PSP,
        stage_strides=STRIDES,
        auxiliary=True,
    ),
    Backbone(
        "psp101",
        "PSPNet on ResNet-101",
        "models.backbones.pspnet:PSPNet101",
        defaults=PSP,
        stage_strides=STRIDES,
        auxiliary=True,
    ),
    Backbone(
        "r50v1c",
        "dilated ResNet-50-v1c with an FCN head, the trunk of TMANet",
        "models.backbones.fcn:ResNet50V1c",
        groups=(ALIGNMENT,),
        defaults=V1C,
        stage_strides=STRIDES,
        auxiliary=True,
    ),
    Backbone(
        "r101v1c",
        "the same on ResNet-101-v1c",
        "models.backbones.fcn:ResNet101V1c",
        groups=(ALIGNMENT,),
        defaults=V1C,
        stage_strides=STRIDES,
        auxiliary=True,
    ),
    Backbone(
        "swiftnet18",
        "SwiftNet on ResNet-18, single scale (Orsic et al., CVPR 2019)",
        "models.backbones.swiftnet:SwiftNet18",
        groups=(LOGITS,),
        defaults=SWIFT,
        stage_strides=(4, 8, 16, 32),
    ),
    Backbone(
        "swiftnet18_pyramid",
        "SwiftNet on ResNet-18 with a pyramid of three frame sizes",
        "models.backbones.swiftnet_pyramid:SwiftNet18Pyramid",
        groups=(LOGITS,),
        # Its memory lies at 1/16
        defaults={**SWIFT, "corr_size": 11},
        stage_strides=(4, 8, 16, 32),
    ),
    Backbone(
        "espnetv2_s05",
        "ESPNetv2, width 0.5 (Mehta et al., CVPR 2019)",
        "models.backbones.espnetv2:ESPNetv2S05",
        groups=(PYRAMID_WIDTH,),
        defaults=ESP,
        stage_strides=(2, 4, 8, 16),
    ),
    Backbone(
        "espnetv2_s10",
        "ESPNetv2, width 1.0 (Mehta et al., CVPR 2019)",
        "models.backbones.espnetv2:ESPNetv2S10",
        groups=(PYRAMID_WIDTH,),
        defaults=ESP,
        stage_strides=(2, 4, 8, 16),
    ),
    Backbone(
        "espnetv2_s15",
        "ESPNetv2, width 1.5 (Mehta et al., CVPR 2019)",
        "models.backbones.espnetv2:ESPNetv2S15",
        groups=(PYRAMID_WIDTH,),
        defaults=ESP,
        stage_strides=(2, 4, 8, 16),
    ),
    Backbone(
        "espnetv2_s20",
        "ESPNetv2, width 2.0 (Mehta et al., CVPR 2019)",
        "models.backbones.espnetv2:ESPNetv2S20",
        groups=(PYRAMID_WIDTH,),
        defaults=ESP,
        stage_strides=(2, 4, 8, 16),
    ),
    *map(mit, range(6)),
)
