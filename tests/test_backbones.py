"""What every backbone promises (models/backbones/backbone.py), and what its paper says of it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.backbones.backbone import SizeRule
from models.backbones.erfnet import Decoder, ERFNet, NonBottleneck
from models.backbones.espnetv2 import ESPNetv2S05, ESPNetv2S20
from models.backbones.fcn import ResNet50V1c, ResNet101V1c
from models.backbones.pspnet import PSPNet18, PSPNet50, PSPNet101
from models.backbones.resnet import Bottleneck, dilated_layers
from models.backbones.segformer import MiTB0
from models.backbones.swiftnet import SwiftNet18
from models.backbones.swiftnet_pyramid import SwiftNet18Pyramid

SMALL = [ERFNet, PSPNet18, ResNet50V1c]  # one of each family
# Their decoders read stages too: tests/test_swiftnet.py, test_espnetv2.py, test_segformer.py
SKIPS = [SwiftNet18, SwiftNet18Pyramid, ESPNetv2S05, MiTB0]
ALL = [*SMALL, *SKIPS, ESPNetv2S20, PSPNet50, PSPNet101, ResNet101V1c]
HEADS = {
    ERFNet: "decoder",
    PSPNet18: "cls",
    PSPNet50: "cls",
    PSPNet101: "cls",
    ResNet50V1c: "head",
    ResNet101V1c: "head",
    SwiftNet18: "logits",
    SwiftNet18Pyramid: "logits",
    ESPNetv2S05: "bu_dec_l4",
    ESPNetv2S20: "bu_dec_l4",
    MiTB0: "linear_pred",
}


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def frame_for(backbone, batch: int = 2, side: int = 40) -> torch.Tensor:
    return torch.rand(batch, 3, backbone.size_rule.fit(side), backbone.size_rule.fit(side + 9))


@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_attributes_say_what_the_maps_are(cls):
    backbone = cls(7).eval()
    frame = frame_for(backbone)
    features = backbone.encode(frame)
    logits = backbone.decode(features)
    assert features.last.shape[:2] == (2, backbone.channels)
    assert logits.shape[:2] == (2, backbone.num_outputs)
    maps = [features.last, *features.stages]
    strides = [backbone.stride, *backbone.stage_strides]
    for map_, stride in zip(maps, strides, strict=True):
        assert map_.shape[-2:] == tuple(-(-side // stride) for side in frame.shape[-2:])
    auxiliary = backbone.auxiliary(features)
    assert auxiliary is None or auxiliary.shape == logits.shape


@pytest.mark.parametrize("cls", SMALL)
@torch.no_grad()
def test_decode_is_classify_of_embed_and_reads_only_last(cls):
    backbone = cls(5).eval()
    features = backbone.encode(frame_for(backbone))
    logits = backbone.decode(features)
    torch.testing.assert_close(backbone.classify(backbone.embed(features)), logits, rtol=0, atol=0)
    changed = features._replace(stages=tuple(torch.zeros_like(stage) for stage in features.stages))
    torch.testing.assert_close(backbone.decode(changed), logits, rtol=0, atol=0)
    assert not torch.allclose(backbone.decode(features._replace(last=features.last + 1)), logits)


@pytest.mark.parametrize("cls", [*SMALL, *SKIPS])
@torch.no_grad()
def test_frames_of_a_batch_do_not_see_each_other(cls):
    backbone = cls(5).eval()
    frame = frame_for(backbone)
    torch.testing.assert_close(backbone(frame)[1:], backbone(frame[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [*SMALL, *SKIPS])
def test_every_parameter_that_the_losses_reach_learns(cls):
    backbone = cls(5).train()
    features = backbone.encode(frame_for(backbone))
    auxiliary = backbone.auxiliary(features)
    loss = backbone.decode(features).square().mean()
    if auxiliary is not None:
        loss = loss + auxiliary.square().mean()
    loss.backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("cls", ALL)
def test_the_encoder_is_a_proper_part_of_the_network(cls):
    backbone = cls(5)
    head = getattr(backbone, HEADS[cls])
    encoder = [id(p) for part in backbone.encoder_parts() for p in part.parameters()]
    assert len(set(encoder)) == len(encoder) < len(list(backbone.parameters()))
    assert not set(encoder) & {id(p) for p in head.parameters()}


@pytest.mark.parametrize("cls", [PSPNet18, ResNet50V1c])
@pytest.mark.parametrize("height, width", [(33, 50), (31, 64), (47, 41)])
@torch.no_grad()
def test_any_size_works_where_the_rule_says_so(cls, height, width):
    backbone = cls(3).eval()
    assert backbone.size_rule == SizeRule()
    logits = backbone(torch.rand(1, 3, height, width))
    assert logits.shape == (1, 3, -(-height // 8), -(-width // 8))


def test_size_rules_are_the_published_ones():
    assert str(ERFNet.size_rule) == "a multiple of 8"
    assert str(PSPNet50.size_rule) == str(PSPNet101.size_rule) == "8n+1"


@torch.no_grad()
def test_pspnet_and_fcn_normalise_frames_and_erfnet_does_not():
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    frame = torch.rand(1, 3, 16, 16)
    normalised = (frame - mean) / std
    for cls, expected in ((PSPNet18, normalised), (ResNet50V1c, normalised), (ERFNet, frame)):
        backbone = cls(3)
        torch.testing.assert_close(backbone.normalize(frame), expected)
        assert not any("normalize" in key for key in backbone.state_dict())


# What the papers and the published files say


def test_erfnet_has_its_published_size_and_one_output_more_than_classes():
    backbone = ERFNet(19)
    assert backbone.num_outputs == 20
    encoder_classifier = 128 * 20 + 20  # published beside ours, for pretraining only
    assert size(backbone) + encoder_classifier == 2_066_836
    assert len(backbone.state_dict()) + 2 == 345


@pytest.mark.parametrize(
    "cls, parameters, entries",
    [(PSPNet18, 14_399_590, 160), (PSPNet50, 49_080_038, 370), (PSPNet101, 68_072_166, 676)],
)
def test_pspnets_have_their_published_sizes(cls, parameters, entries):
    backbone = cls(19)
    assert (size(backbone), len(backbone.state_dict())) == (parameters, entries)
    without_auxiliary = {PSPNet18: 13_804_371, PSPNet101: 65_707_475}
    if cls in without_auxiliary:
        assert size(backbone) - size(backbone.aux) == without_auxiliary[cls]


def test_resnet50_v1c_has_its_published_size():
    backbone = ResNet50V1c(19)
    parts = backbone.encoder_parts()
    assert sum(map(size, parts)) == 23_527_264
    assert sum(len(part.state_dict()) for part in parts) == 330
    assert size(backbone.auxiliary_head) == 2_364_691
    assert size(ResNet50V1c(12).auxiliary_head) == 2_362_892


@pytest.mark.parametrize(
    "contract, expected", [(True, [[1], [1], [1, 2], [2, 4]]), (False, [[1], [1], [2], [4]])]
)
def test_the_last_layers_are_dilated_and_only_the_first_block_contracts(contract, expected):
    layers = dilated_layers(50, 64, contract_dilation=contract)
    for layer, (first, *rest) in zip(layers, expected, strict=True):
        others = (rest or [first]) * (len(layer) - 1)
        assert [block.conv2.dilation[0] for block in layer] == [first, *others]
        assert [block.conv2.padding for block in layer] == [block.conv2.dilation for block in layer]


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="ResNet-34.*18, 50, 101"):
        dilated_layers(34, 64)


def test_blocks_of_resnet_v1c_begin_as_their_shortcut():
    backbone = ResNet50V1c(19)
    blocks = [module for module in backbone.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 16 and all((block.bn3.weight == 0).all() for block in blocks)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.endswith("bn3"):
            assert (module.weight == 1).all()


def test_align_corners_of_the_fcn_is_a_choice():
    assert not ResNet50V1c(3).align_corners and ResNet50V1c(3, align_corners=True).align_corners


@torch.no_grad()
def test_the_shallow_decoder_is_one_convolution_at_an_eighth():
    backbone = ERFNet(19, shallow_decoder=True).eval()
    features = backbone.encode(torch.rand(1, 3, 32, 48))
    assert backbone.decode(features).shape == (1, 20, 4, 6)
    assert backbone.embed(features) is features.last
    assert [key for key in backbone.state_dict() if key.startswith("decoder.")] == [
        "decoder.output_conv_stm_shallow.weight",
        "decoder.output_conv_stm_shallow.bias",
    ]


def test_without_batch_norm_the_weights_stay_and_have_no_effect():
    with_bn = ERFNet(3)
    without = ERFNet(3, use_bn=False, dropout=(0.5, 0.5))
    assert with_bn.state_dict().keys() == without.state_dict().keys()
    without.load_state_dict(with_bn.state_dict())
    frame = torch.rand(1, 3, 32, 32)
    before = without.train()(frame)
    norms = [module for module in without.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.constant_(norm.weight, 7.0)
    # In train mode: there is no dropout either
    torch.testing.assert_close(without(frame), before, rtol=0, atol=0)
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    assert not torch.allclose(with_bn.eval()(frame), before)


def test_dropout_of_erfnet_is_weak_early_strong_late_and_absent_in_the_decoder():
    backbone = ERFNet(19)
    blocks = [module for module in backbone.modules() if isinstance(module, NonBottleneck)]
    assert [block.dropout.p for block in blocks] == [0.03] * 5 + [0.3] * 8 + [0.0] * 4
    assert [block.conv3x1_2.dilation[0] for block in blocks[5:13]] == [2, 4, 8, 16] * 2


@torch.no_grad()
def test_a_decoder_for_fewer_channels_has_the_same_form():
    """LMANet's `decoder_mem` reads 64 channels."""
    decoder = Decoder(64, 20).eval()
    assert decoder(torch.rand(1, 64, 4, 6)).shape == (1, 20, 32, 48)
    assert len(decoder.state_dict()) == 88


def test_networks_are_built_from_the_options_that_they_know():
    options = {
        "shallow_dec": False,
        "backbone_nobn": False,
        "align_corners": None,
        "logits_kernel": 1,
        "pyramid_width": None,
        "head_channels": None,
    }

    def build(cls, **changed):
        return cls.from_args(3, SimpleNamespace(**options | changed))

    for cls in (*SMALL, *SKIPS):
        assert build(cls).state_dict().keys() == cls(3).state_dict().keys()
    assert build(ERFNet).use_bn and not build(ERFNet, backbone_nobn=True).use_bn
    assert not build(ERFNet).shallow_decoder and build(ERFNet, shallow_dec=True).shallow_decoder
    assert not build(ResNet50V1c).align_corners
    assert build(ResNet50V1c, align_corners=True).align_corners
    assert not build(ResNet50V1c, align_corners=False).align_corners
    # Options of other networks are not looked at
    assert PSPNet18.from_args(3, SimpleNamespace()).align_corners


def test_only_with_the_shallow_decoder_losses_are_computed_at_the_size_of_the_logits():
    assert ERFNet(3, shallow_decoder=True).loss_at_logits
    assert not any(cls(3).loss_at_logits for cls in SMALL)
