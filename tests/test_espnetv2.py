"""ESPNetv2: what it is made of, which sizes it takes, which files it reads, which methods it
carries."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import main
from laws import assert_stream_equals_clip, video
from models import build_model
from models.backbones.backbone import SizeRule
from models.backbones.espnetv2 import ESPNetv2S05, ESPNetv2S10, ESPNetv2S15, ESPNetv2S20
from models.backbones.espnetv2_parts import (
    AcrossScales,
    PyramidPool,
    StridedUnit,
    Unit,
    at_scale,
    halve,
)
from models.single import SingleFrame
from utils.checkpoint import load_weights

SMALL = (64, 96)
WIDTHS = [ESPNetv2S05, ESPNetv2S10, ESPNetv2S15, ESPNetv2S20]


def randomized(model: nn.Module) -> nn.Module:
    """The same network with batch norms and slopes as after a training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -1, 1)
    return model.eval()


def built(*words: str, classes: int = 5, job: str = "--training") -> nn.Module:
    torch.manual_seed(0)
    args = main.parse_args([job, "--backbone", "espnetv2_s05", "--savedir", "unused", *words])
    return randomized(build_model(args, classes))


# What it is made of


@pytest.mark.parametrize(
    ("cls", "parameters", "never_applied"),
    [
        (ESPNetv2S05, 80_342, 112),
        (ESPNetv2S10, 234_010, 224),
        (ESPNetv2S15, 468_362, 352),
        (ESPNetv2S20, 789_242, 480),
    ],
)
def test_each_width_has_its_published_size(cls, parameters, never_applied):
    backbone = cls(19)
    assert sum(p.numel() for p in backbone.parameters()) == parameters - never_applied
    assert len(backbone.state_dict()) == 526 - 3
    assert len([m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]) == 67
    slopes = [m for m in backbone.modules() if isinstance(m, nn.PReLU)]
    assert len(slopes) == 67 - 3
    assert {slope.weight[0].item() for slope in slopes} == {0.25}


def test_convolutions_begin_normal_with_the_variance_of_all_their_outputs():
    torch.manual_seed(0)
    backbone = ESPNetv2S20(19)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            # Groups are not counted
            variance = 2 / (module.out_channels * module.kernel_size[0] ** 2)
            assert module.weight.var().item() == pytest.approx(variance, rel=0.1), name
    assert backbone.bu_dec_l4.merge_layer[-1].bias.eq(0).all()


def test_the_decoder_is_as_narrow_as_the_outputs_ask_for_unless_it_is_told():
    widths = {1: 1, 2: 1, 5: 3, 11: 6, 19: 10, 31: 16, 99: 16}
    for classes, width in widths.items():
        assert ESPNetv2S05(classes).bu_dec_l1.projection_layer.conv.out_channels == width
    wide = ESPNetv2S05(11, pyramid_width=10).eval()
    features = wide.encode(torch.rand(1, 3, *SMALL))
    embedding = wide.embed(features)
    assert embedding.shape == (1, 10, 32, 48)
    assert wide.classify(embedding).shape == (1, 12, 32, 48)


@torch.no_grad()
def test_the_decoder_reads_last_and_the_finer_stages_of_the_same_frame():
    backbone = randomized(ESPNetv2S05(3))
    features = backbone.encode(torch.rand(2, 3, *SMALL))
    assert [stage.shape[1] for stage in features.stages] == [16, 32, 64, 128]
    assert features.last is features.stages[3]
    logits = backbone.decode(features)
    for stage in range(4):
        stages = list(features.stages)
        stages[stage] = stages[stage] + 1
        changed = backbone.decode(features._replace(stages=tuple(stages)))
        # The coarsest map is read as `last` alone: a method may have changed that
        assert torch.equal(changed, logits) == (stage == 3)
    assert not torch.allclose(backbone.decode(features._replace(last=features.last + 1)), logits)


@torch.no_grad()
def test_a_distant_change_reaches_every_pixel():
    backbone = randomized(ESPNetv2S05(3)).double()
    frame = torch.rand(1, 3, 128, 256).double()
    other = frame.clone()
    other[..., -16:, -16:] = 0
    difference = (backbone(frame) - backbone(other)).abs().amax(1)
    assert (difference > 0).all()


def test_halving_counts_the_zeros_outside():
    x = torch.ones(1, 1, 4, 5)
    # Means over 9 cells, of which 4, 6 or all lie inside
    assert torch.allclose(halve(x), torch.tensor([[4, 6, 4], [6, 9, 6]]) / 9)


@torch.no_grad()
def test_the_image_is_added_before_the_strided_units_slopes_and_nothing_in_between():
    unit = randomized(StridedUnit(16, 32, (1, 2, 3, 4)))
    x = torch.randn(1, 16, 8, 12)
    image = torch.randn(1, 3, 4, 6)
    spatial = unit.eesp(x)
    expected = torch.cat([halve(x), spatial], 1) + unit.inp_reinf(image)
    torch.testing.assert_close(
        unit(x, image),
        torch.where(expected < 0, expected * unit.act.weight.view(-1, 1, 1), expected),
    )
    assert (spatial < 0).any(), "the pyramid ends in a batch norm"


@torch.no_grad()
def test_each_group_of_a_units_expansion_reads_the_sum_up_to_its_branch():
    unit = randomized(Unit(16, (1, 1, 2, 3)))
    assert [branch.dilation[0] for branch in unit.spp_dw] == [1, 1, 2, 3]
    x = torch.randn(1, 16, 8, 8)
    before = unit(x)
    unit.spp_dw[2].weight.mul_(2)
    changed = (unit(x) != before).any(-1).any(-1)[0]
    assert changed.tolist() == [False] * 8 + [True] * 8


@torch.no_grad()
def test_a_pool_convolves_at_five_sizes_and_never_below_five_cells():
    pool = PyramidPool(4, 6, 2).eval()
    seen = []
    for stage in pool.stages:
        stage.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    assert pool(torch.rand(1, 4, 9, 31)).shape == (1, 6, 9, 31)
    assert seen == [(18, 62), (14, 47), (9, 31), (5, 16), (5, 5)]
    seen.clear()
    assert pool(torch.rand(1, 4, 1, 2)).shape == (1, 6, 1, 2)
    assert seen == [(5, 5), (5, 5), (1, 2), (5, 5), (5, 5)]


@torch.no_grad()
def test_large_maps_come_back_as_means_and_small_ones_enlarged():
    x = torch.arange(10.0).view(1, 1, 1, 10).expand(1, 1, 10, 10).contiguous()
    same = nn.Identity()
    assert at_scale(x, 1.0, same) is x
    # Half of the columns: means of pairs, then corners aligned
    halves = torch.linspace(0.5, 8.5, 10).expand(1, 1, 10, 10)
    torch.testing.assert_close(at_scale(x, 0.5, same), halves)
    # Twice the columns, corners aligned, then means of pairs
    doubles = torch.linspace(0, 9, 20).view(10, 2).mean(1).expand(1, 1, 10, 10)
    torch.testing.assert_close(at_scale(x, 2.0, same), doubles)


@torch.no_grad()
def test_each_channel_of_a_pool_is_made_of_its_own_five_scales():
    mix = AcrossScales(3)
    x = torch.randn(2, 15, 4, 6)
    # As published: shuffled to the order of channels, then a grouped convolution
    shuffled = x[:, [0, 3, 6, 9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14]]
    expected = nn.functional.conv2d(shuffled, mix.weight, padding=1, groups=3)
    torch.testing.assert_close(mix(x), expected)


@torch.no_grad()
def test_gates_weigh_channels_alike_at_every_pixel():
    merge = randomized(ESPNetv2S05(3)).merge_enc_dec_l2
    x = torch.randn(2, 64, 6, 8)
    gate = merge.gate(x)
    assert gate.shape == (2, 64, 1, 1) and (gate > 0).all() and (gate < 1).all()
    torch.testing.assert_close(merge.gate(x.mean((2, 3), keepdim=True)), gate)
    torch.testing.assert_close(merge(x), merge.expansion_layer(x) * gate)


# Sizes


@torch.no_grad()
def test_multiples_of_16_and_one_less_work_and_give_half():
    backbone = ESPNetv2S05(2).eval()
    assert backbone.size_rule == SizeRule(16)
    sides = sorted([16 * n for n in range(1, 8)] + [16 * n - 1 for n in range(1, 8)])
    for n, height in enumerate(sides):
        width = sides[(n * 5 + 3) % len(sides)]
        logits = backbone(torch.rand(1, 3, height, width))
        assert logits.shape == (1, 3, -(-height // 2), -(-width // 2))


@pytest.mark.parametrize("side", [17, 30, 40, 46])
@torch.no_grad()
def test_without_the_rule_sums_of_the_decoder_would_not_fit(side):
    with pytest.raises(RuntimeError, match="size"):
        ESPNetv2S05(2).eval()(torch.rand(1, 3, 48, side))


# Files


def published(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of the network under published names."""
    state = {}
    for level in (2, 3, 4):
        added = backbone.widths[level - 1] - backbone.widths[level - 2]
        key = f"base_net.level{level}_0.eesp.module_act.weight"
        state[key] = torch.full((added,), 4e-13)
    numbers = {"conv": "0", "bn": "1", "act": "2"}
    for key, value in backbone.state_dict().items():
        if key.startswith("base_net."):
            name = re.sub(r"(spp_dw\.\d)\.", r"\1.conv.", key)
        else:
            name = re.sub(
                r"(projection_layer|merge_layer\.2|expansion_layer)\.(conv|bn|act)",
                lambda match: f"{match[1]}.cbr.{numbers[match[2]]}",
                key,
            )
            name = re.sub(r"(merge_layer\.0|\.br)\.bn", r"\1.br.0", name)
            name = re.sub(r"(merge_layer\.0|\.br)\.act", r"\1.br.1", name)
            name = re.sub(r"^(bu_br_l\d)\.bn", r"\1.0", name)
            name = re.sub(r"^(bu_br_l\d)\.act", r"\1.1", name)
            name = name.replace("wt_layer.", "wt_layer.1.")
        state[name] = value
    return state


@pytest.mark.parametrize("cls", WIDTHS)
def test_files_are_read_whole_but_for_the_slopes_that_are_never_applied(tmp_path, cls):
    path = tmp_path / "espnetv2.pth"
    source = randomized(cls(19))
    torch.save(published(source), path)
    model = SingleFrame(cls(19))
    report = load_weights(model, path, complete=True)
    assert report.maps == ("ESPNetv2",) and report.loaded == 523 and report.new == ()
    assert [key.split(".")[1] for key in report.unused] == ["level2_0", "level3_0", "level4_0"]
    ours = model.backbone.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in source.state_dict().items())


def test_the_checkpoint_of_a_training_is_read_too(tmp_path):
    path = tmp_path / "espnetv2_0.5_512_checkpoint.pth.tar"
    state = {f"module.{key}": value for key, value in published(ESPNetv2S05(19)).items()}
    torch.save({"epoch": 3, "arch": "espnetv2", "state_dict": state, "best_miou": 0.5}, path)
    assert load_weights(SingleFrame(ESPNetv2S05(19)), path, complete=True).loaded == 523


def spoiled(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "misses an entry":
        del state["bu_dec_l2.merge_layer.0.br.1.weight"]
    elif how == "misses a statistic":
        del state["base_net.level4.6.br_after_cat.bn.running_var"]
    elif how == "has an entry more":
        state["bu_dec_l1.stages.5.weight"] = torch.ones(10, 1, 3, 3)
    elif how == "has no bias":
        del state["bu_dec_l4.merge_layer.3.bias"]
    elif how == "has a unit more":
        state["base_net.level3.3.module_act.weight"] = torch.ones(64)
    return state


@pytest.mark.parametrize(
    "how",
    [
        "misses an entry",
        "misses a statistic",
        "has an entry more",
        "has no bias",
        "has a unit more",
    ],
)
def test_a_file_that_fits_half_is_refused(tmp_path, how):
    path = tmp_path / "espnetv2.pth"
    model = SingleFrame(ESPNetv2S05(19))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(spoiled(published(randomized(ESPNetv2S05(19))), how), path)
    with pytest.raises(ValueError, match="does not fit the model.*read as ESPNetv2"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_file_of_another_width_is_refused_in_one_line(tmp_path):
    path = tmp_path / "espnetv2.pth"
    torch.save(published(ESPNetv2S10(19)), path)
    with pytest.raises(ValueError, match="another shape.*another --backbone") as refused:
        load_weights(SingleFrame(ESPNetv2S20(19)), path)
    assert "\n" not in str(refused.value)


def test_a_published_decoder_starts_other_classes_at_its_own_width(tmp_path):
    path = tmp_path / "espnetv2.pth"
    torch.save(published(ESPNetv2S05(19)), path)
    model = SingleFrame(ESPNetv2S05(11, pyramid_width=10))
    report = load_weights(model, path, new_classes=True)
    last = "backbone.bu_dec_l4.merge_layer.3"
    assert report.new == (f"{last}.weight", f"{last}.bias")
    narrow = SingleFrame(ESPNetv2S05(11))
    with pytest.raises(ValueError, match="another shape"):
        load_weights(narrow, path, new_classes=True)


def classifier(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict as of the ImageNet classifier around this encoder; what follows is invented."""
    state = {
        key.removeprefix("base_net."): value
        for key, value in published(backbone).items()
        if key.startswith("base_net.")
    }
    for key, value in list(state.items()):
        if key.startswith("level4_0.") or re.match(r"level4\.[0-2]\.", key):
            state[key.replace("level4", "level5")] = torch.zeros_like(value)
    for unit in (3, 4):
        for key in ("conv.weight", "bn.weight", "bn.running_mean", "act.weight"):
            state[f"level5.{unit}.{key}"] = torch.zeros(1024)
    state["classifier.weight"] = torch.zeros(1000, 1024)
    state["classifier.bias"] = torch.zeros(1000)
    return state


def test_an_imagenet_classifier_fills_the_encoder_and_nothing_else(tmp_path):
    path = tmp_path / "espnetv2_s_0.5_imagenet_224x224.pth"
    source = randomized(ESPNetv2S05(19))
    torch.save(classifier(source), path)
    model = SingleFrame(ESPNetv2S05(11))
    report = load_weights(model, path)
    assert report.maps == ("ESPNetv2's ImageNet classifier",)
    assert report.loaded == 361 - 3
    assert not any("base_net" in key for key in report.new)
    assert {"classifier.weight", "level5.4.act.weight"} < set(report.unused)
    ours = model.backbone.base_net.state_dict()
    theirs = source.base_net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("lost", ["level3.1.spp_dw.2.conv.weight", "level2_0.inp_reinf.1.bn.bias"])
def test_half_of_an_imagenet_classifier_is_refused(tmp_path, lost):
    path = tmp_path / "classifier.pth"
    state = classifier(ESPNetv2S05(19))
    del state[lost]
    torch.save(state, path)
    with pytest.raises(ValueError, match="missing"):
        load_weights(SingleFrame(ESPNetv2S05(11)), path)


# Methods


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
def test_stream_equals_clip(method):
    assert_stream_equals_clip(built("--method", method), size=(33, 49))


@pytest.mark.parametrize("propagate", ["gsv", "warp", "hold"])
def test_stream_equals_clip_with_key_frames(propagate):
    words = ["--method", "flow", "--propagate", propagate]
    assert_stream_equals_clip(built(*words, job="--eval-mode"), size=SMALL)


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
def test_what_is_trained_gets_gradients(method):
    model = built("--method", method).train()
    clip = video(model, 1 - min(model.offsets, default=0), seed=3, size=SMALL)
    labels = torch.randint(0, 5, (*clip.shape[:2], *clip.shape[-2:]))
    sum(model.losses(clip, labels).values()).backward()
    learnt = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learnt
    assert [name for name in learnt if model.get_parameter(name).grad is None] == []


@pytest.mark.parametrize("number, sizes", [("05", (16, 64)), ("20", (64, 256))])
def test_memory_reads_the_coarsest_map_and_leaves_the_skips(number, sizes):
    words = ["--method", "lma", "--fusion-strategy", "sigmoid-do1"]
    model = built(*words, "--backbone", f"espnetv2_s{number}")
    assert model.memory.size == 11, "about as wide as 21 cells at 1/8"
    keys = model.kv_M_r4
    assert (keys.Key.out_channels, keys.Value.out_channels) == sizes
    clip = video(model, 4, seed=4, size=SMALL)
    with torch.no_grad():
        output = model.frame_outputs(clip)[-1]
    assert output.fused.last.shape == output.features.last.shape
    assert output.fused.last.shape[-2:] == (4, 6)
    assert not torch.equal(output.fused.last, output.features.last)
    pairs = zip(output.fused.stages, output.features.stages, strict=True)
    assert all(fused is own for fused, own in pairs)


def test_the_second_decoder_does_without_skips():
    decoder = ESPNetv2S05(4).second_decoder(64)
    assert decoder(torch.rand(2, 64, 3, 5)).shape == (2, 5, 3, 5)


def test_the_decoder_learns_ten_times_as_fast_as_the_encoder():
    model = built("--method", "single")
    rates = {group["lr"] for group in model.parameter_groups(0.005, 4e-5)}
    assert rates == {0.005, 0.05}
    assert built("--pyramid-width", "10", "--method", "single").backbone.pyramid_width == 10
