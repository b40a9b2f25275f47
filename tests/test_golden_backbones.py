"""Backbones compute what the originals compute, from files as the originals save them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden import assert_close, case, filling, weights, without_normalization
from models.backbones.backbone import Features
from models.backbones.erfnet import ERFNet
from models.backbones.fcn import ResNet50V1c
from models.backbones.pspnet import PSPNet18, PSPNet50, PSPNet101
from models.single import SingleFrame
from utils.checkpoint import load_weights


@pytest.fixture
def load(tmp_path):
    """Save a published state dict as its trainer would, then load it into a single-frame net."""

    def load(backbone, state, *, wrapped: bool = True, complete: bool = True):
        model = SingleFrame(backbone).eval()
        path = tmp_path / "published.pth"
        if wrapped:
            entries = {f"module.{key}": value for key, value in state.items()}
            state = {"epoch": 200, "state_dict": entries}
        torch.save(state, path)
        report = load_weights(model, path, complete=complete)
        path.unlink()
        return without_normalization(model), report

    return load


@torch.no_grad()
def test_erfnet(load):
    golden = case("lma/erfnet_64x128")
    frame = filling().image("erfnet_1x3x64x128", (1, 3, 64, 128))
    model, report = load(ERFNet(19), weights(golden.info), wrapped=False)
    assert report.unused == ("encoder.output_conv.weight", "encoder.output_conv.bias")
    assert report.new == ()
    assert_close(model.backbone.encode(frame).last, golden.arrays["features"])
    assert_close(model(frame[:, None]), golden.arrays["logits"])


@torch.no_grad()
def test_erfnet_with_the_classifier_of_its_encoder_as_shallow_decoder(load):
    golden = case("lma/erfnet_64x128")
    frame = filling().image("erfnet_1x3x64x128", (1, 3, 64, 128))
    model, report = load(ERFNet(19, shallow_decoder=True), weights(golden.info))
    assert all(key.startswith("decoder.") for key in report.unused) and report.new == ()
    assert_close(model(frame[:, None]), golden.arrays["logits_encoder"])


@pytest.mark.parametrize(
    "name",
    [
        "pspnet50_65x129",
        "pspnet50_65x129_soft",
        "pspnet50_97x193",
        "pspnet50_97x193_soft",
        "pspnet101_97x193",
    ],
)
@torch.no_grad()
def test_pspnet(load, name):
    golden = case(f"lma/{name}")
    ((image, shape),) = golden.info["inputs"].items()
    cls = {50: PSPNet50, 101: PSPNet101}[golden.info["config"]["layers"]]
    model, report = load(cls(19), weights(golden.info))
    assert report.loaded == len(golden.info["state_dict"]) and report.new == report.unused == ()
    frame = filling().image(image, shape)
    assert_close(model.backbone.encode(frame).last[:, ::32], golden.arrays["features"])
    logits = model.upsample(model(frame[:, None]), shape[-2:])
    # Of the larger ones every second row and column is stored
    if "97x193" in name:
        logits = logits[..., ::2, ::2]
    assert_close(logits, golden.arrays["logits"])


@torch.no_grad()
def test_pspnet18(load):
    golden = case("etc/psp18_eval_97x193")
    frame = filling().image("etc_97x193", (1, 3, 97, 193))
    state = {f"student.{key}": value for key, value in weights(golden.info).items()}
    # ETC's trainer saves its flow network and its losses in the same file
    state["flownet.conv1.0.weight"] = torch.ones(2)
    state["criterion.ce.criterion.weight"] = torch.ones(19)
    model, _ = load(PSPNet18(19), state)
    logits = model.upsample(model(frame[:, None]), (97, 193))
    assert_close(logits, golden.arrays["logits"])
    assert (logits.argmax(1).numpy() == golden.arrays["pred"]).mean() > 0.999


@torch.no_grad()
def test_pspnet18_layer_by_layer(load):
    golden = case("etc/psp18_heads_97x193")
    model, _ = load(PSPNet18(19), weights(golden.info), wrapped=False)
    backbone = model.backbone
    frame = filling().image("etc_97x193", (1, 3, 97, 193))
    features = backbone.encode(frame)
    assert_close(backbone.decode(features), golden.arrays["logits"])
    assert_close(backbone.auxiliary(features), golden.arrays["dsn"])
    assert_close(backbone.embed(features)[:, ::8], golden.arrays["fea_every8"])
    layers = [backbone.layer0(frame), *features.stages]
    # Every so many channels are stored, and every so many rows and columns
    stored = [(8, 4), (8, 4), (8, 1), (32, 1), (32, 1)]
    for n, (layer, (channel, side)) in enumerate(zip(layers, stored, strict=True)):
        assert_close(layer[:, ::channel, ::side, ::side], golden.arrays[f"layer{n}"])


@torch.no_grad()
def test_resnet50_v1c(load):
    golden = case("tma/backbone_65x97_soft")
    published = {
        key.removeprefix("backbone."): value
        for key, value in weights(golden.info).items()
        if key.startswith("backbone.")
    }
    # The classifier of ImageNet, which published files hold
    published |= {"fc.weight": torch.ones(1), "fc.bias": torch.ones(1)}
    model, report = load(ResNet50V1c(19), published, complete=False)
    assert report.loaded == 330 and report.unused == ("fc.weight", "fc.bias")
    assert all(key.startswith(("backbone.head.", "backbone.auxiliary_head.")) for key in report.new)
    features = model.backbone.encode(filling().image("backbone_65x97_soft/img", (1, 3, 65, 97)))
    for index, stage in enumerate(features.stages):
        assert list(stage.shape) == golden.info["full_shapes"][index]
        assert_close(stage[:, ::8], golden.arrays[f"out{index}"])
    assert features.last is features.stages[3]


@torch.no_grad()
def test_the_auxiliary_head_of_resnet50_v1c():
    golden = case("tma/aux_c19_9x17")
    backbone = ResNet50V1c(19).eval()
    backbone.auxiliary_head.load_state_dict(weights(golden.info, golden.info["seed_prefix"]))
    scale = golden.info.get("input_scale", 1)
    stage3 = filling().image("aux_c19_9x17/feat", (1, 1024, 9, 17)) * scale
    features = Features(last=torch.empty(0), stages=(None, None, stage3, None))
    logits = backbone.auxiliary(features)
    assert_close(logits, golden.arrays["logits"])


def test_the_teacher_has_exactly_the_published_keys():
    published = case("etc/psp101_teacher_keys").info["state_dict"]
    ours = {key: list(value.shape) for key, value in PSPNet101(19).state_dict().items()}
    assert ours == published


@pytest.mark.parametrize(
    "name, backbone", [("PSPNet50", PSPNet50), ("PSPNet101", PSPNet101), ("ERFNet", ERFNet)]
)
def test_published_key_lists_are_read_without_a_remainder(name, backbone):
    published = case("lma/state_dicts").info[name]
    model = SingleFrame(backbone(19))
    renamed = model.key_maps()[0].rename(published)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert renamed.unexpected == ()
    assert {key: published[source] for key, source in renamed.ours.items()} == shapes


@torch.no_grad()
def test_upsampling_aligns_corners_as_published():
    logits = torch.randn(1, 4, 3, 5)
    aligned = F.interpolate(logits, (17, 33), mode="bilinear", align_corners=True)
    for cls in (PSPNet18, PSPNet50):
        torch.testing.assert_close(SingleFrame(cls(4)).upsample(logits, (17, 33)), aligned)
    assert not np.allclose(SingleFrame(ResNet50V1c(4)).upsample(logits, (17, 33)), aligned)
