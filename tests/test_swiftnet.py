"""SwiftNet: what it is made of, which sizes it takes, which files it reads, which methods it
carries."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import main
from laws import assert_stream_equals_clip, video
from models import build_model
from models.backbones.backbone import SizeRule
from models.backbones.swiftnet import BNReLUConv, SpatialPyramidPooling, SwiftNet18
from models.backbones.swiftnet_pyramid import PyramidBlock, SwiftNet18Pyramid, pyramid
from models.single import SingleFrame
from utils.checkpoint import load_weights


def randomized(model: nn.Module) -> nn.Module:
    """The same network with batch norms as after a training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def built(*words: str, classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    args = main.parse_args(["--training", "--savedir", "unused", *words])
    return randomized(build_model(args, classes))


# What it is made of


@pytest.mark.parametrize(
    "cls, parameters, entries",
    [(SwiftNet18, 11_797_071, 195), (SwiftNet18Pyramid, 12_056_275, 333)],
)
def test_swiftnets_have_their_published_sizes(cls, parameters, entries):
    backbone = cls(19)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert len(backbone.state_dict()) + 2 == entries  # and mean and standard deviation


@torch.no_grad()
def test_frames_are_normalised_by_the_published_statistics():
    frame = torch.rand(1, 3, 4, 5)
    normalize = SwiftNet18(3).normalize
    for channel, (mean, std) in enumerate([(73.15, 47.67), (82.9, 48.49), (72.3, 47.73)]):
        expected = (frame[:, channel] * 255 - mean) / std
        torch.testing.assert_close(normalize(frame)[:, channel], expected)


def test_only_the_pooling_forgets_slowly_and_convolutions_keep_the_variance_backwards():
    backbone = SwiftNet18(3)
    pooling = [m for m in backbone.spp.modules() if isinstance(m, nn.BatchNorm2d)]
    others = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) and m not in pooling]
    assert len(pooling) == 5 and {m.momentum for m in pooling} == {0.005}
    assert {m.momentum for m in others} == {0.1}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 9000:
            fan_out = module.out_channels * module.weight[0, 0].numel()
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), name


@torch.no_grad()
def test_the_skips_are_activated_and_the_maps_of_the_decoder_are_not():
    backbone = randomized(SwiftNet18(3))
    features = backbone.encode(torch.rand(1, 3, 64, 96))
    assert all((stage >= 0).all() for stage in features.stages)
    assert (features.last >= 0).all() and (backbone.embed(features) < 0).any()


@torch.no_grad()
def test_grids_of_the_pooling_have_the_proportion_of_the_map():
    pooling = SpatialPyramidPooling(16).eval()
    seen = []
    for level in range(3):
        block = pooling.get_submodule(f"spp{level}")
        block.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    assert pooling(torch.rand(1, 16, 12, 15)).shape == (1, 128, 12, 15)
    # 8 and 4 rows: 10 and 5 columns. 2 rows: 2.5 columns, rounded to even as published.
    assert seen == [(8, 10), (4, 5), (2, 2)]
    seen.clear()
    assert pooling(torch.rand(1, 16, 20, 1)).shape == (1, 128, 20, 1)
    assert seen == [(8, 1), (4, 1), (2, 1)]


@pytest.mark.parametrize("cls, skips", [(SwiftNet18, 3), (SwiftNet18Pyramid, 2)])
@torch.no_grad()
def test_the_decoder_reads_last_and_the_finer_stages_of_the_same_frame(cls, skips):
    backbone = randomized(cls(3))
    features = backbone.encode(torch.rand(2, 3, 64, 96))
    logits = backbone.decode(features)
    for stage in range(4):
        stages = list(features.stages)
        stages[stage] = stages[stage] + 1
        changed = backbone.decode(features._replace(stages=tuple(stages)))
        assert torch.equal(changed, logits) == (stage >= skips)
    assert not torch.allclose(backbone.decode(features._replace(last=features.last + 1)), logits)


@torch.no_grad()
def test_each_level_of_the_pyramid_has_its_own_batch_norms_and_shares_convolutions():
    block = randomized(PyramidBlock(4, 8, 2))
    x = torch.randn(1, 4, 8, 8)
    before = [block(x, level) for level in range(3)]
    assert not torch.allclose(before[0], before[1]) and (before[0] < 0).any()
    block.bn2[1].bias.add_(1)
    torch.testing.assert_close(block(x, 1), before[1] + 1)
    torch.testing.assert_close(block(x, 2), before[2], rtol=0, atol=0)
    block.conv2.weight.mul_(2)
    assert not any(torch.allclose(block(x, level), before[level]) for level in range(3))


@torch.no_grad()
def test_training_keeps_the_statistics_of_the_levels_apart():
    backbone = SwiftNet18Pyramid(3).train()
    backbone.encode(torch.rand(2, 3, 64, 64))
    first, second, third = backbone.layer1[0].bn1
    assert [norm.num_batches_tracked.item() for norm in (first, second, third)] == [1, 1, 1]
    assert not torch.allclose(first.running_mean, second.running_mean)
    assert not torch.allclose(second.running_mean, third.running_mean)


@torch.no_grad()
def test_the_pyramid_halves_and_quarters_the_frame():
    frame = torch.rand(1, 3, 12, 20)
    images = pyramid(frame)
    assert [tuple(image.shape[-2:]) for image in images] == [(12, 20), (6, 10), (3, 5)]
    assert images[0] is frame
    flat = pyramid(torch.full((1, 3, 12, 20), 0.25))
    for image in flat:
        torch.testing.assert_close(image, torch.full_like(image, 0.25))


# Sizes


@torch.no_grad()
def test_every_size_works_and_gives_a_quarter_rounded_up():
    backbone = SwiftNet18(2).eval()
    assert backbone.size_rule == SizeRule()
    # Both sides take every value once, in other pairs than (n, n)
    for side in range(33, 131):
        height, width = side, 33 + (side * 37) % 98
        logits = backbone(torch.rand(1, 3, height, width))
        assert logits.shape == (1, 2, -(-height // 4), -(-width // 4))


@torch.no_grad()
def test_the_pyramid_takes_every_multiple_of_four():
    backbone = SwiftNet18Pyramid(2).eval()
    assert str(backbone.size_rule) == "a multiple of 4"
    sides = sorted({backbone.size_rule.fit(side) for side in range(1, 131)})
    for n, height in enumerate(sides):
        width = sides[n * 7 % len(sides)]
        logits = backbone(torch.rand(1, 3, height, width))
        assert logits.shape == (1, 2, height // 4, width // 4)


@torch.no_grad()
def test_without_the_rule_sums_of_the_pyramid_would_not_fit():
    with pytest.raises(RuntimeError, match="size"):
        SwiftNet18Pyramid(2).eval()(torch.rand(1, 3, 66, 64))


@pytest.mark.parametrize("backbone", ["swiftnet18", "swiftnet18_pyramid"])
@torch.no_grad()
def test_the_smallest_frames_work(backbone):
    model = built("--method", "single", "--backbone", backbone)
    side = model.size_rule.fit(1)
    assert model(torch.rand(1, 1, 3, side, side)).shape == (1, 5, 1, 1)


# Files


def published(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of the network under published names, without buffers for normalisation."""
    state = {}
    for key, value in backbone.state_dict().items():
        name = key if key.startswith("logits.") else f"backbone.{key}"
        name = name.replace("backbone.spp.", "backbone.spp.spp.")
        state[name.replace("coarse_blends", "upsample_blends")] = value
    return state


@pytest.mark.parametrize("cls", [SwiftNet18, SwiftNet18Pyramid])
def test_files_are_read_with_and_without_buffers_and_with_either_last_layer(tmp_path, cls):
    path = tmp_path / "swiftnet.pt"
    for kernel in (1, 3):
        state = published(randomized(cls(19, logits_kernel=kernel)))
        assert state["logits.conv.weight"].shape == (19, 128, kernel, kernel)
        assert ("logits.conv.bias" in state) == (kernel == 1)
        buffers = {f"backbone.img_{name}": torch.ones(1, 3, 1, 1) for name in ("mean", "std")}
        for entries in (state, state | buffers):
            torch.save(entries, path)
            model = SingleFrame(cls(19, logits_kernel=kernel))
            report = load_weights(model, path, complete=True)
            assert report.loaded == len(state) and report.new == ()
            assert len(report.unused) == len(entries) - len(state)


def spoiled(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "misses an entry":
        del state["backbone.upsample.1.blend_conv.conv.weight"]
    elif how == "has an entry more":
        state["backbone.spp.spp.spp3.conv.weight"] = torch.ones(42, 128, 1, 1)
    elif how == "has no bias":
        del state["logits.conv.bias"]
    elif how == "has the other last layer":
        state["logits.conv.weight"] = torch.ones(19, 128, 3, 3)
        del state["logits.conv.bias"]
    return state


@pytest.mark.parametrize(
    "how", ["misses an entry", "has an entry more", "has no bias", "has the other last layer"]
)
def test_a_file_that_fits_half_is_refused(tmp_path, how):
    path = tmp_path / "swiftnet.pt"
    model = SingleFrame(SwiftNet18(19))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(spoiled(published(randomized(SwiftNet18(19))), how), path)
    with pytest.raises(ValueError, match="does not fit the model.*read as SwiftNet"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def resnet18() -> dict[str, torch.Tensor]:
    """Random weights under the names of torchvision's ResNet-18."""
    torchvision = pytest.importorskip("torchvision")
    return randomized(torchvision.models.resnet18()).state_dict()


def test_an_imagenet_classifier_fills_the_encoder_and_nothing_else(tmp_path):
    path = tmp_path / "resnet18.pth"
    state = resnet18()
    torch.save(state, path)
    model = SingleFrame(SwiftNet18(11))
    report = load_weights(model, path)
    assert report.unused == ("fc.weight", "fc.bias")
    assert report.loaded == len(state) - 2
    assert {key.split(".")[1] for key in report.new} == {"spp", "upsample", "logits"}
    ours = model.state_dict()
    assert all(torch.equal(ours[f"backbone.{k}"], state[k]) for k in state if "fc." not in k)


def test_an_imagenet_classifier_fills_all_levels_of_the_pyramid(tmp_path):
    path = tmp_path / "resnet18.pth"
    state = resnet18()
    torch.save(state, path)
    model = SingleFrame(SwiftNet18Pyramid(11))
    report = load_weights(model, path)
    assert report.unused == ("fc.weight", "fc.bias")
    decoder = {"upsample_bottlenecks", "coarse_blends", "upsample_blends", "logits"}
    assert {key.split(".")[1] for key in report.new} == decoder
    ours = model.state_dict()
    for key in ("bn1", "layer1.0.bn1", "layer4.1.bn2"):
        for level in range(3):
            mean = ours[f"backbone.{key}.{level}.running_mean"]
            assert torch.equal(mean, state[f"{key}.running_mean"])
    shared = "layer2.0.downsample.1.running_var"
    assert torch.equal(ours[f"backbone.{shared}"], state[shared])


def test_half_of_an_imagenet_classifier_is_refused(tmp_path):
    path = tmp_path / "resnet18.pth"
    state = resnet18()
    del state["layer3.1.bn2.running_var"]
    torch.save(state, path)
    for cls in (SwiftNet18, SwiftNet18Pyramid):
        with pytest.raises(ValueError, match=r"layer3\.1\.bn2.*incomplete"):
            load_weights(SingleFrame(cls(11)), path)


# Methods


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
@pytest.mark.parametrize("backbone", ["swiftnet18", "swiftnet18_pyramid"])
def test_stream_equals_clip(method, backbone):
    assert_stream_equals_clip(built("--method", method, "--backbone", backbone))


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
@pytest.mark.parametrize("backbone", ["swiftnet18", "swiftnet18_pyramid"])
def test_what_is_trained_gets_gradients(method, backbone):
    model = built("--method", method, "--backbone", backbone).train()
    clip = video(model, 1 - min(model.offsets, default=0), seed=3, size=(64, 96))
    labels = torch.randint(0, 5, (*clip.shape[:2], *clip.shape[-2:]))
    sum(model.losses(clip, labels).values()).backward()
    learnt = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learnt
    assert [name for name in learnt if model.get_parameter(name).grad is None] == []


@pytest.mark.parametrize(
    "backbone, window, shape",
    [("swiftnet18", 7, (512, 2, 3)), ("swiftnet18_pyramid", 11, (128, 4, 6))],
)
def test_memory_changes_last_and_leaves_the_skips(backbone, window, shape):
    model = built("--method", "lma", "--backbone", backbone)
    assert model.memory.size == window, "about as wide as 21 cells at 1/8"
    clip = video(model, 4, seed=4, size=(64, 96))
    with torch.no_grad():
        output = model.frame_outputs(clip)[-1]
    assert output.fused.last.shape == output.features.last.shape == (2, *shape)
    pairs = zip(output.fused.stages, output.features.stages, strict=True)
    assert all(fused is own for fused, own in pairs)


def test_the_second_decoder_does_without_skips():
    for kernel in (1, 3):
        decoder = SwiftNet18(4, logits_kernel=kernel).second_decoder(64)
        assert decoder(torch.rand(2, 64, 3, 5)).shape == (2, 4, 3, 5)
        assert decoder.logits.conv.kernel_size == (kernel, kernel)


def test_options_choose_the_last_layer_and_the_rates():
    model = built("--method", "single", "--backbone", "swiftnet18", "--logits-kernel", "3")
    assert isinstance(model.backbone.logits, BNReLUConv)
    assert model.backbone.logits.conv.kernel_size == (3, 3)
    rates = {group["lr"] for group in model.parameter_groups(1e-4, 0.0)}
    assert rates == {1e-4, 4e-4}
