"""What every backbone promises (models/backbones/backbone.py), and what its paper says of it."""

import pytest
import torch
from torch import nn

from models.backbones.backbone import SizeRule
from models.backbones.erfnet import Decoder, ERFNet, NonBottleneck
from models.backbones.fcn import ResNet50V1c, ResNet101V1c
from models.backbones.pspnet import PSPNet18, PSPNet50, PSPNet101
from models.backbones.resnet import Bottleneck, dilated_layers

SMALL = [ERFNet, PSPNet18, ResNet50V1c]  # one of each family
ALL = [*SMALL, PSPNet50, PSPNet101, ResNet101V1c]


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
    for map_, stride in (
        (features.last, backbone.stride),
        *zip(features.stages, backbone.stage_strides, strict=True),
    ):
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


@pytest.mark.parametrize("cls", SMALL)
@torch.no_grad()
def test_frames_of_a_batch_do_not_see_each_other(cls):
    backbone = cls(5).eval()
    frame = frame_for(backbone)
    torch.testing.assert_close(backbone(frame)[1:], backbone(frame[1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", SMALL)
def test_every_parameter_that_the_losses_reach_learns(cls):
    backbone = cls(5).train()
    features = backbone.encode(frame_for(backbone))
    auxiliary = backbone.auxiliary(features)
    loss = backbone.decode(features).square().mean() + (
        0 if auxiliary is None else auxiliary.square().mean()
    )
    loss.backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("cls", ALL)
def test_the_encoder_is_a_proper_part_of_the_network(cls):
    backbone = cls(5)
    encoder = [id(p) for part in backbone.encoder_parts() for p in part.parameters()]
    assert len(set(encoder)) == len(encoder) < len(list(backbone.parameters()))
    heads = (
        backbone.decoder
        if cls is ERFNet
        else (backbone.cls if hasattr(backbone, "cls") else backbone.head)
    )
    assert not set(encoder) & {id(p) for p in heads.parameters()}


@pytest.mark.parametrize("cls", [PSPNet18, ResNet50V1c])
@pytest.mark.parametrize("height, width", [(33, 50), (31, 64), (47, 41)])
@torch.no_grad()
def test_any_size_works_where_the_rule_says_so(cls, height, width):
    backbone = cls(3).eval()
    assert backbone.size_rule == SizeRule()
    assert backbone(torch.rand(1, 3, height, width)).shape == (
        1,
        3,
        -(-height // 8),
        -(-width // 8),
    )


def test_size_rules_are_the_published_ones():
    assert [str(cls.size_rule) for cls in (ERFNet, PSPNet50, PSPNet101)] == [
        "a multiple of 8",
        "8n+1",
        "8n+1",
    ]


@torch.no_grad()
def test_pspnet_and_fcn_normalise_frames_and_erfnet_does_not():
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    frame = torch.rand(1, 3, 16, 16)
    for cls, expected in (
        (PSPNet18, (frame - mean) / std),
        (ResNet50V1c, (frame - mean) / std),
        (ERFNet, frame),
    ):
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
    if cls is not PSPNet50:
        assert (
            size(backbone) - size(backbone.aux)
            == {PSPNet18: 13_804_371, PSPNet101: 65_707_475}[cls]
        )


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
    for layer, (first, *rest) in zip(
        dilated_layers(50, 64, contract_dilation=contract), expected, strict=True
    ):
        assert [block.conv2.dilation[0] for block in layer] == [first] + (rest or [first]) * (
            len(layer) - 1
        )
        assert [block.conv2.padding for block in layer] == [block.conv2.dilation for block in layer]


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="ResNet-34.*18, 50, 101"):
        dilated_layers(34, 64)


def test_blocks_of_resnet_v1c_begin_as_their_shortcut():
    backbone = ResNet50V1c(19)
    blocks = [module for module in backbone.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 16 and all((block.bn3.weight == 0).all() for block in blocks)
    assert all(
        (module.weight == 1).all()
        for name, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not name.endswith("bn3")
    )


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
    with_bn, without = ERFNet(3), ERFNet(3, use_bn=False, dropout=(0.5, 0.5))
    assert with_bn.state_dict().keys() == without.state_dict().keys()
    without.load_state_dict(with_bn.state_dict())
    frame = torch.rand(1, 3, 32, 32)
    before = without.train()(frame)
    for module in without.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 7.0)
    torch.testing.assert_close(
        without(frame), before, rtol=0, atol=0
    )  # train mode: no dropout either
    assert all(
        module.num_batches_tracked == 0
        for module in without.modules()
        if isinstance(module, nn.BatchNorm2d)
    )
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
