"""VSS-MRCFA computes what the original computes, from files as the original saves them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import main
from golden import assert_close, case, filling, weights, without_normalization
from jobs.benchmark import used_parameters
from models import build_model
from models.backbones.mit import DropPath
from models.mrcfa import MRCFA
from models.parts.affinity import CrossFrameAffinity
from utils.checkpoint import load_weights


def built(backbone: str, *words: str, classes: int = 124):
    base = ["--training", "--method", "mrcfa", "--backbone", backbone, "--savedir", "unused"]
    return build_model(main.parse_args([*base, *words]), classes)


def loaded(state: dict, backbone: str, tmp_path):
    """The network, loaded from a file as mmcv's runner writes it."""
    path = tmp_path / "iter_160000.pth"
    torch.save({"meta": {"iter": 160000}, "state_dict": state, "optimizer": {}}, path)
    model = built(backbone)
    report = load_weights(model, path, complete=True)
    assert report.new == () and report.maps == ("VSS-MRCFA",)
    assert report.unused == ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    return without_normalization(model).eval()


@torch.no_grad()
def test_affinities_and_the_tokens_that_are_kept():
    golden = case("mrcfa/affinity_b1_3x4")
    prefix = "decode_head.hypercorre_module."
    # Its inputs are reduced already, so the convolutions that reduce are not in the file.
    affinity = CrossFrameAffinity((128, 320, 512), convolutions=2)
    state = {prefix + key: value for key, value in weights(golden.info, prefix).items()}
    ours = MRCFA.rename(state).ours
    state = {key.removeprefix("affinity."): state[source] for key, source in ours.items()}
    left = affinity.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith(("sr2.", "sr3.")) for key in left.missing_keys)
    images = {key: filling().image(key, shape) for key, shape in golden.info["inputs"].items()}
    names = ("c2", "c3", "c4")
    references = [images[f"affinity_b1_3x4:ref_{name}"] for name in names]
    target = [images[f"affinity_b1_3x4:tgt_{name}"][:, 0] for name in names]
    seen = watched(affinity.decoder)
    found = affinity(target, [affinity.keys([x[:, r] for x in references]) for r in range(3)])
    mask = torch.zeros(1, 3, 12, dtype=torch.bool).scatter(2, found.kept, True)
    assert np.array_equal(mask.numpy(), golden.arrays["mask"])
    layers = {"4": "encoder_layer4", "3": "encoder_layer3", "2": "encoder_layer2"}
    for number, layer in layers.items():
        picture, refined = seen[layer]
        assert_close(picture, golden.arrays[f"stm_c{number}"], 1e-5)
        assert_close(refined, golden.arrays[f"sar{number}"], 1e-5)
    assert_close(seen["encoder_layer4to3"][1], golden.arrays["maa43"], 1e-5)
    maps = found.maps.flatten(3).transpose(2, 3)  # (B, R, X, S)
    assert_close(maps, golden.arrays["affinity"], 1e-5)


def watched(decoder: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What goes into each block and what comes out, once the decoder has run."""
    seen = {}

    def note(name):
        def hook(module, inputs, output):
            seen[name] = (inputs[0].clone(), output.clone())

        return hook

    for name, child in decoder.named_children():
        child.register_forward_hook(note(name))
    return seen


@pytest.mark.parametrize("name", ["b0_64x96", "b0_64x96_single", "b1_64x96"])
@torch.no_grad()
def test_networks(name, tmp_path):
    golden = case(f"mrcfa/mrcfa_{name}")
    ((image, shape),) = golden.info["inputs"].items()
    model = loaded(weights(golden.info), f"mit_{name[:2]}", tmp_path)
    logits = model(filling().image(image, shape))
    assert_close(logits, golden.arrays["logits"])
    prediction = model.upsample(logits, shape[-2:]).argmax(1)
    agree = prediction.numpy() == golden.arrays["pred"]
    assert np.mean(agree) > 0.999


def test_training(tmp_path):
    """Logits of all heads, both losses, gradients and batch norm's statistics."""
    golden = case("mrcfa/mrcfa_b1_train")
    ((image, shape),) = golden.info["inputs"].items()
    listed = {"state_dict": case("mrcfa/state_dict_b1").info["state_dict"]}
    model = loaded(weights(listed), "mit_b1", tmp_path).train()
    without_dropping(model)
    clip = filling().image(image, shape)
    labels = torch.from_numpy(golden.arrays["label"]).long()[:, :, 0]
    with torch.no_grad():
        # A copy, since batch norm takes statistics of what it sees
        found = all_logits(copy.deepcopy(model), clip)
        assert_close(found[..., ::2, ::2], golden.arrays["logits"])
        assert_close(accuracy(model, found[:, :4], labels), golden.arrays["acc"])
    losses = model.losses(clip, labels)
    assert_close(losses["frames"], 0.5 * golden.arrays["ce_frames_f64"], 1e-5)
    assert_close(losses["ce"], golden.arrays["ce_target_f64"], 1e-5)
    assert_close(sum(losses.values()), golden.arrays["loss_f64"], 1e-5)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters()), "none is unused"
    compared = 0
    for what, expected in golden.arrays.items():
        kind, _, key = what.partition(":")
        if kind == "grad_norm":
            (ours,) = MRCFA.rename([key]).ours
            assert_close(model.get_parameter(ours).grad.norm(), expected, 5e-3)
            compared += 1
    assert compared == 7
    norm = model.backbone.linear_fuse.bn
    assert_close(norm.running_mean, golden.arrays["bn_running_mean_after"])
    assert_close(norm.running_var, golden.arrays["bn_running_var_after"])


def without_dropping(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0


def all_logits(model, clip: torch.Tensor) -> torch.Tensor:
    """The original's output in training: of each frame, by each reference, and of all."""
    batch, length = clip.shape[:2]
    encoded = model.encode(clip.flatten(0, 1))
    own = model.backbone.classify(encoded.fused).unflatten(0, (batch, length))
    others = model.training_logits(encoded, batch, length)
    return torch.cat([own, torch.stack(others, 1)], 1)


def accuracy(model, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """In percent; pixels without a label count as wrong."""
    prediction = model.upsample(logits.flatten(0, 1), labels.shape[-2:]).argmax(1)
    return 100 * (prediction == labels.flatten(0, 1)).float().mean()


@pytest.mark.parametrize("size", range(6))
def test_published_networks_have_their_parameters_and_their_keys(size):
    listed = case(f"mrcfa/state_dict_b{size}").info
    published = listed["state_dict"]
    with torch.device("meta"):
        model = built(f"mit_b{size}")
    unused = ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    renamed = MRCFA.rename(published)
    assert renamed.unexpected == () and renamed.unused == unused
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert {key: published[source] for key, source in renamed.ours.items()} == shapes
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters + 15_996 == listed["params"]
    # and back, but for what is never used
    back = {MRCFA.published(key) for key in shapes}
    assert back == set(published) - set(unused)


@pytest.mark.parametrize(
    "backbone, words, classes, millions",
    [
        ("mit_b0", "", 124, 5.19),
        ("mit_b1", "", 124, 16.23),
        ("mit_b2", "", 124, 27.27),
        ("mit_b5", "", 124, 84.52),
        # the paper's Cityscapes models: 4.2 and 14.9
        ("mit_b0", "--ref-size 1_16", 19, 4.22),
        ("mit_b1", "--ref-size 1_16", 19, 14.88),
    ],
)
def test_what_inference_uses_has_the_published_number_of_parameters(
    backbone, words, classes, millions
):
    with torch.device("meta"):
        model = built(backbone, *words.split(), classes=classes)
    assert used_parameters(model) / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_optimizer_has_the_published_groups():
    published = case("mrcfa/training_schedule").info["optimizer_b1"]
    with torch.device("meta"):
        model = built("mit_b1")
    names = {id(p): MRCFA.published(name) for name, p in model.named_parameters()}
    groups = model.parameter_groups(6e-5, 0.01)
    ours = {
        (round(group["lr"], 9), group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in groups
    }
    unused = {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    theirs = {(6e-5, 0.01): "[6e-05, 0.01]", (6e-5, 0.0): "[6e-05, 0.0]"}
    theirs[6e-4, 0.01] = "[0.0006000000000000001, 0.01]"
    assert {key: set(published[name]["names"]) - unused for key, name in theirs.items()} == ours
    assert [published[name]["count"] for name in theirs.values()] == [116, 60, 81]


def test_the_start_of_a_video_is_read_by_the_published_table():
    with torch.device("meta"):
        model = built("mit_b0")
    for frame, indices in case("mrcfa/training_schedule").info["test_clip_indices"].items():
        offsets = model.startup(int(frame))
        assert [int(frame) + offset for offset in (*offsets, 0)] == indices
