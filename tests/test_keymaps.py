"""Tables of published names are one-to-one and ignore only what they name (models/keymaps.py)."""

import re
from collections import Counter

import pytest
from torch import nn

from golden import case
from models import lma, mrcfa, single, tma
from models.backbones import (
    erfnet,
    espnetv2,
    fcn,
    pspnet,
    segformer_keys,
    swiftnet,
    swiftnet_pyramid,
)
from models.backbones.erfnet import ERFNet
from models.backbones.espnetv2 import ESPNetv2S05
from models.backbones.fcn import ResNet50V1c
from models.backbones.pspnet import PSPNet18, PSPNet50, PSPNet101
from models.backbones.segformer import MiTB0
from models.backbones.swiftnet import SwiftNet18
from models.backbones.swiftnet_pyramid import SwiftNet18Pyramid
from models.keymaps import BACKBONE, KeyMap
from models.single import SingleFrame
from segformer_names import mmcv_names, smp_names, transformers_names

# Each table stands beside its network.
BACKBONES = (erfnet, espnetv2, fcn, pspnet, segformer_keys, swiftnet, swiftnet_pyramid)
DEFINED = {
    name: value
    for module in (*BACKBONES, lma, mrcfa, tma, single)
    for name, value in vars(module).items()
    if isinstance(value, KeyMap)
}


def v1c_keys() -> list[str]:
    keys = case("tma/backbone_65x97_soft").info["state_dict"]
    return [key.removeprefix("backbone.") for key in keys if key.startswith("backbone.")]


def v2_keys() -> list[str]:
    """resnet101_v2.pth: the trunk of PSPNet101 under torchvision's names, its stem spread over
    conv1 to bn3."""
    stem = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    keys = [
        key for key in case("etc/psp101_teacher_keys").info["state_dict"] if key.startswith("layer")
    ]
    return [re.sub(r"^layer0\.(\d)", lambda match: stem[match[1]], key) for key in keys]


def torchvision_keys(depth: int) -> list[str]:
    import torchvision

    return [
        key
        for key in getattr(torchvision.models, f"resnet{depth}")().state_dict()
        if not key.startswith("fc.")
    ]


def golden_keys(name: str) -> list[str]:
    return list(case(name).info["state_dict"])


def swiftnet_keys(name: str) -> list[str]:
    return [key for key in case("flow/state_dicts").info[name] if key not in BUFFERS]


def espnetv2_classifier() -> list[str]:
    keys = golden_keys("esp/s0.5_32x48")
    return [key.removeprefix("base_net.") for key in keys if key.startswith("base_net.")]


def joined_names(backbone: MiTB0) -> list[str]:
    """The names of transformers, keys and values put together."""
    keys = transformers_names(backbone, recent=False)
    return list(segformer_keys.SEGFORMER_TRANSFORMERS.joined(keys))


FC = ["fc.weight", "fc.bias"]
CONV_SEG = ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
NEVER_APPLIED = [f"level{level}_0.eesp.module_act.weight" for level in (2, 3, 4)]
BUFFERS = ["backbone.img_mean", "backbone.img_std"]
ENCODER_CLASSIFIER = ["encoder.output_conv.weight", "encoder.output_conv.bias"]
BN_ENTRIES = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
ETC_OTHERS = [
    "flownet.flownetc.conv1.0.weight",
    "criterion.ce.criterion.weight",
    "teacher.layer0.0.weight",
    "student.criterion.weight",
]


def lmanet(classes: int) -> nn.Module:
    """LMANet-PSPNet101, whose file has parts of all names."""
    from models.lma import LMANet

    return LMANet(PSPNet101(classes), fusion="sigmoid-down1")


def tmanet(classes: int) -> nn.Module:
    from models.tma import TMANet

    return TMANet(ResNet50V1c(classes))


def mrcfanet(classes: int) -> nn.Module:
    from models.mrcfa import MRCFANet

    return MRCFANet(MiTB0(classes))


def mrcfa_keys() -> list[str]:
    keys = case("mrcfa/state_dict_b0").info["state_dict"]
    return [key for key in keys if "conv_seg" not in key]


TABLES = {  # table: the network, the keys of such a file that are used, those that are not
    "ERFNET": (
        ERFNet,
        lambda: [k for k in golden_keys("lma/erfnet_64x128") if "encoder.output" not in k],
        ENCODER_CLASSIFIER,
    ),
    "ERFNET_ENCODER": (
        ERFNet,
        lambda: [
            k
            for k in golden_keys("lma/erfnet_64x128")
            if k.startswith("encoder.") and "output" not in k
        ],
        ENCODER_CLASSIFIER,
    ),
    "ERFNET_SHALLOW": (
        lambda classes: ERFNet(classes, shallow_decoder=True),
        lambda: [k for k in golden_keys("lma/erfnet_64x128") if k.startswith("encoder.")],
        lambda: [k for k in golden_keys("lma/erfnet_64x128") if k.startswith("decoder.")],
    ),
    "SEMSEG_PSPNET": (PSPNet50, lambda: golden_keys("lma/pspnet50_65x129"), []),
    "ETC_PSPNET18": (
        PSPNet18,
        lambda: [f"student.{k}" for k in golden_keys("etc/psp18_eval_97x193")],
        ETC_OTHERS,
    ),
    "LMANET": (lmanet, lambda: list(case("lma/state_dicts").info["psp101"]), []),
    "TMANET": (tmanet, lambda: list(case("tma/state_dict_cityscapes").info), []),
    "SINGLE_FRAME": (
        lambda classes: SingleFrame(ERFNet(classes)),
        lambda: list(SingleFrame(ERFNet(19)).state_dict()),
        [],
    ),
    "RESNET18_PSPNET": (PSPNet18, lambda: torchvision_keys(18), FC),
    "RESNET_V2_PSPNET": (PSPNet101, v2_keys, FC),
    "RESNET_V1C": (ResNet50V1c, v1c_keys, FC),
    "RESNET_V1C_STEM": (ResNet50V1c, lambda: [k for k in v1c_keys() if k.startswith("stem.")], []),
    "RESNET_BODY": (
        ResNet50V1c,
        lambda: [k for k in torchvision_keys(50) if k.startswith("layer")],
        [*FC, "conv1.weight", *(f"bn1.{entry}" for entry in BN_ENTRIES)],
    ),
    "SWIFTNET18": (SwiftNet18, lambda: swiftnet_keys("swiftnet_r18_single_scale"), BUFFERS),
    "RESNET18_SWIFTNET": (SwiftNet18, lambda: torchvision_keys(18), FC),
    "SWIFTNET18_PYRAMID": (
        SwiftNet18Pyramid,
        lambda: swiftnet_keys("swiftnet_r18_pyramid"),
        BUFFERS,
    ),
    "RESNET18_PYRAMID": (SwiftNet18Pyramid, lambda: torchvision_keys(18), FC),
    "ESPNETV2": (
        ESPNetv2S05,
        lambda: [k for k in golden_keys("esp/s0.5_32x48") if k[9:] not in NEVER_APPLIED],
        [f"base_net.{key}" for key in NEVER_APPLIED],
    ),
    "ESPNETV2_IMAGENET": (
        ESPNetv2S05,
        lambda: [key for key in espnetv2_classifier() if key not in NEVER_APPLIED],
        [*NEVER_APPLIED, "level5_0.act.weight", "level5.3.bn.bias", "classifier.bias"],
    ),
    "MRCFA": (mrcfanet, mrcfa_keys, CONV_SEG),
    "SEGFORMER": (MiTB0, lambda: list(mmcv_names(MiTB0(19))), CONV_SEG),
    "MIX_TRANSFORMER": (
        MiTB0,
        lambda: [key for key in MiTB0(19).state_dict() if not key.startswith("linear_")],
        ["head.weight", "head.bias"],
    ),
    "SEGFORMER_SMP": (MiTB0, lambda: list(smp_names(MiTB0(19))), []),
    "SEGFORMER_TRANSFORMERS": (MiTB0, lambda: joined_names(MiTB0(19)), []),
    "MIX_TRANSFORMER_TRANSFORMERS": (
        MiTB0,
        lambda: [key for key in joined_names(MiTB0(19)) if key.startswith("segformer.")],
        ["classifier.weight", "classifier.bias"],
    ),
}


def table(name: str) -> tuple[KeyMap, nn.Module, list[str], list[str]]:
    network, used, unused = TABLES[name]
    return (DEFINED[name], network(19), used(), unused() if callable(unused) else list(unused))


def test_every_table_is_tested():
    assert set(TABLES) == set(DEFINED)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_one_to_one_and_ignores_exactly_what_it_should(name):
    key_map, network, used, unused = table(name)
    renamed = key_map.rename([*unused, *used])
    assert sorted(renamed.unused) == sorted(unused)
    assert renamed.unexpected == ()
    places = Counter(renamed.ours.values())
    assert sorted(places) == sorted(used)  # each key has a place of its own
    assert set(places.values()) <= {1, len(key_map.copies) or 1}  # or one in each copy
    assert set(renamed.ours) <= set(network.state_dict())  # and the place exists
    covered = {key for key in network.state_dict() if key_map.must_hold(key)}
    assert covered and covered <= set(renamed.ours)


@pytest.mark.parametrize("name", TABLES)
def test_a_key_that_only_resembles_an_ignored_one_is_unexpected(name):
    key_map, _, used, unused = table(name)
    whole_families = ETC_OTHERS  # other networks, whatever their layers are called
    for key in unused:
        for other in (
            f"x{key}",
            f"backbone.{key}",
            *([] if key in whole_families else (f"{key}x", f"{key}.weight")),
        ):
            assert key_map.look_up(other) is None, other
    ignored = {key for key in used if key_map.look_up(key)[1] is None}
    assert not ignored


@pytest.mark.parametrize("name", TABLES)
def test_a_prefixed_table_says_the_same_below_its_prefix(name):
    key_map, network, used, unused = table(name)
    model, below = SingleFrame(network), key_map.prefixed(BACKBONE)
    ours = below.rename([*used, *unused])
    assert ours.ours == {
        f"backbone.{key}": source for key, source in key_map.rename([*used, *unused]).ours.items()
    }
    assert [key for key in model.state_dict() if below.must_hold(key)] == [
        f"backbone.{key}" for key in network.state_dict() if key_map.must_hold(key)
    ]


@pytest.mark.parametrize(
    "network, names",
    [
        (ERFNet(3), ["ERFNET", "ERFNET_ENCODER"]),
        (ERFNet(3, shallow_decoder=True), ["ERFNET_SHALLOW"]),
        (PSPNet18(3), ["ETC_PSPNET18", "RESNET18_PSPNET"]),
        (PSPNet50(3), ["SEMSEG_PSPNET", "RESNET_V2_PSPNET"]),
        (SwiftNet18(3), ["SWIFTNET18", "RESNET18_SWIFTNET"]),
        (SwiftNet18Pyramid(3), ["SWIFTNET18_PYRAMID", "RESNET18_PYRAMID"]),
        (
            MiTB0(3),
            [
                "SEGFORMER",
                "SEGFORMER_TRANSFORMERS",
                "SEGFORMER_SMP",
                "MIX_TRANSFORMER",
                "MIX_TRANSFORMER_TRANSFORMERS",
            ],
        ),
        (ResNet50V1c(3), ["RESNET_V1C", "RESNET_V1C_STEM", "RESNET_BODY"]),
    ],
)
def test_a_network_offers_the_tables_of_its_files(network, names):
    assert [key_map.name for key_map in SingleFrame(network).key_maps()] == [
        DEFINED[n].name for n in names
    ]


def test_the_students_weights_win_in_etcs_files_whatever_the_order():
    golden = case("etc/checkpoint_map").info
    stripped = {key.removeprefix("module."): value for key, value in golden["in"].items()}
    for entries in (stripped, dict(reversed(stripped.items()))):
        renamed = DEFINED["ETC_PSPNET18"].rename(entries)
        assert {f"module.{ours}": entries[key] for ours, key in renamed.ours.items()} == golden[
            "out"
        ]
        assert renamed.unexpected == ()
        assert {entries[key] for key in renamed.unused} == {0, "plain"}
    assert set(golden["pspnet18_keys"]) == set(PSPNet18(19).state_dict())


def test_two_keys_that_one_rule_makes_the_same_are_not_guessed_between():
    key_map = KeyMap("x", ((r"(?:a|b)\.(w)", r"\1"),), covers="w")
    assert key_map.rename(["a.w", "b.w"]).unexpected == ("b.w",)


def test_an_entry_may_fill_several_of_ours_also_below_a_prefix():
    key_map = KeyMap("copies", ((r"bn\.(\w+)", r"bn.*.\1"),), covers=".+", copies=("0", "1"))
    for prefix, table in (("", key_map), ("net.", key_map.prefixed("net."))):
        renamed = table.rename(["bn.weight", "fc.weight"])
        expected = {f"{prefix}bn.{copy}.weight": "bn.weight" for copy in "01"}
        assert renamed.ours == expected
        assert renamed.unexpected == ("fc.weight",)
