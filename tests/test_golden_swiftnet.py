"""SwiftNet computes what the originals compute, from files as the originals save them."""

import numpy as np
import pytest
import torch

from golden import assert_close, case, filling, weights, without_normalization
from models.backbones.swiftnet import SwiftNet18
from models.backbones.swiftnet_pyramid import SwiftNet18Pyramid, pyramid
from models.single import SingleFrame
from utils.checkpoint import load_weights


def bytes_scaled(name: str, info: dict) -> torch.Tensor:
    """The case's input 128 + 50 * image, "pretend RGB 0..255", as frames in [0, 1]."""
    assert info["config"]["input"].startswith("128 + 50*image(name)")
    return (128 + 50 * filling().image(name, info["inputs"][name])) / 255


@pytest.fixture
def load(tmp_path):
    """Save a bare state dict, as published, then load it whole into a single-frame network."""

    def load(backbone, state):
        model = SingleFrame(backbone).eval()
        path = tmp_path / "published.pt"
        torch.save(state, path)
        report = load_weights(model, path, complete=True)
        return model, report

    return load


@pytest.mark.parametrize("name", ["swiftnet_ss_96x160", "swiftnet_ss_128x256"])
@torch.no_grad()
def test_single_scale_map_by_map(load, name):
    golden = case(f"flow/{name}")
    model, report = load(SwiftNet18(19), weights(golden.info))
    assert report.loaded == 193 and report.new == ()
    assert report.unused == ("backbone.img_mean", "backbone.img_std")
    backbone = without_normalization(model).backbone
    features = backbone.encode(filling().image(name, golden.info["inputs"][name]))
    for stage, stored in zip(features.stages, ("skip4", "skip8", "skip16"), strict=False):
        assert_close(stage[:, ::8], golden.arrays[stored])
    assert_close(backbone.spp(features.last)[:, ::8], golden.arrays["spp"])
    embedding = backbone.embed(features)
    assert_close(embedding[:, ::8], golden.arrays["features"])
    assert_close(backbone.classify(embedding), golden.arrays["logits"])


@torch.no_grad()
def test_single_scale_on_a_batch_of_two(load):
    golden = case("flow/swiftnet_ss_64x64_b2")
    images = [filling().image(name, shape) for name, shape in golden.info["inputs"].items()]
    model, _ = load(SwiftNet18(19), weights(golden.info))
    logits = without_normalization(model)(torch.stack(images)[:, None])
    assert_close(logits, golden.arrays["logits"])


def assert_published_results(model, golden, name: str) -> None:
    """Frames go in as they come, so the network's own normalisation is part of what is compared."""
    frame = bytes_scaled(name, golden.info)
    logits = model(frame[:, None])
    assert_close(logits, golden.arrays["logits_low"])
    logits = model.upsample(logits, frame.shape[-2:])
    assert_close(logits[..., :32, :32], golden.arrays["logits_up_crop"])
    agree = logits.argmax(1).numpy() == golden.arrays["logits_up_argmax"]
    assert np.mean(agree) > 0.999


@torch.no_grad()
def test_single_scale_with_its_own_normalisation(load):
    name = "orsic_ss_128x256"
    golden = case(f"flow/{name}")
    model, _ = load(SwiftNet18(19), weights(golden.info))
    assert_published_results(model, golden, name)


@pytest.mark.parametrize("name", ["swiftnet_pyr_96x160", "swiftnet_pyr_128x256"])
@torch.no_grad()
def test_pyramid(load, name):
    golden = case(f"flow/{name}")
    model, report = load(SwiftNet18Pyramid(19), weights(golden.info))
    assert report.loaded == 331 and report.new == ()
    levels = pyramid(model.backbone.normalize(bytes_scaled(name, golden.info)))
    assert_close(levels[1], golden.arrays["pyr1"])
    assert_close(levels[2], golden.arrays["pyr2"])
    assert_published_results(model, golden, name)


@pytest.mark.parametrize(
    "listed, backbone",
    [("swiftnet_r18_single_scale", SwiftNet18), ("swiftnet_r18_single_scale_orsic", SwiftNet18)],
)
def test_published_key_lists_are_read_without_a_remainder(listed, backbone):
    published = case("flow/state_dicts").info[listed]
    model = SingleFrame(backbone(19))
    renamed = model.key_maps()[0].rename(published)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert renamed.unexpected == ()
    assert renamed.unused == ("backbone.img_mean", "backbone.img_std")
    assert {key: published[source] for key, source in renamed.ours.items()} == shapes
