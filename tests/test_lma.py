"""LMANet: the Law on every family of backbones, what is trained, and what its options mean."""

import os
import random
import subprocess
import sys

import pytest
import torch

import main
from command import ROOT
from laws import assert_stream_equals_clip, video
from models import build_model
from models.parts.fusion import FUSIONS

FAMILIES = ("erf", "psp18", "r50v1c")
# Of the frames on which the Law is held: slow networks see small ones.
LAW_SIZES = {"erf": (37, 53), "psp18": (17, 25), "r50v1c": (17, 25)}
LINES = {
    "original": "",
    "queue of five": "--stm-queue-size 5",
    "a window shorter than the queue": "--stm-queue-size 4 --win-size 3",
    "skip": "--memory-strategy skip_02 --stm-queue-size 2",
    "random": "--memory-strategy random",
    "memorize first": "--memorize-first",
    "memorize first, itself alone": "--memorize-first --stm-queue-size 1",
    "baseline": "--baseline-mode",
    "constant": "--learnable-constant",
    "global": "--no-local-correlation --learnable-constant",
    "aux_mem_loss": "--model-struct aux_mem_loss",
    "mem_only": "--model-struct mem_only",
    "mem_only, memorize first": "--model-struct mem_only --memorize-first",
    "original_kv_fusion": "--model-struct original_kv_fusion",
    "original_kv_fusion, one frame": "--model-struct original_kv_fusion --stm-queue-size 1",
}


def network(line: str = "", backbone: str = "erf", classes: int = 5):
    """An LMANet with a small window and statistics that are not those of a fresh network."""
    args = main.parse_args(
        [
            "--training",
            "--backbone",
            backbone,
            "--dataset",
            "synthetic",
            "--savedir",
            "unused",
            "--corr-size",
            "5",
            "--train-encoder",
            "--train-decoder",
            *line.split(),
        ]
    )
    torch.manual_seed(0)
    model = build_model(args, classes)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) and "memory_fusion" in name:
            module.running_mean.normal_(0, 0.1)
    return model.eval()


def clip_and_labels(model, frames: int = 4, batch: int = 2):
    clip = video(model, frames, 0, batch=batch)
    labels = torch.full((batch, frames, *clip.shape[-2:]), 255)
    labels[:, -1] = torch.randint(0, 5, labels[:, -1].shape)
    return clip, labels


@pytest.mark.parametrize(
    "backbone, line",
    [
        *(("erf", line) for line in LINES),
        *(("psp18", line) for line in LINES),
        *(("r50v1c", line) for line in ("original", "global", "original_kv_fusion")),
    ],
)
def test_stream_equals_clip(backbone, line):
    assert_stream_equals_clip(network(LINES[line], backbone), size=LAW_SIZES[backbone])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_stream_equals_clip_with_every_fusion_on_narrow_and_wide_maps(backbone, fusion):
    model = network(f"--fusion-strategy {fusion}", backbone)
    channels = model.backbone.channels
    assert model.kv_M_r4.Key.out_channels == channels // (16 if fusion == "sigmoid-down1" else 8)
    assert_stream_equals_clip(model, size=LAW_SIZES[backbone])


@pytest.mark.parametrize("line", [line for line in LINES.values() if line != "--baseline-mode"])
@torch.no_grad()
def test_memory_changes_the_prediction_and_the_first_frame_has_none(line):
    model = network(line)
    clip = video(model, 4, 0, batch=1)
    alone = model.decode(model.backbone.encode(clip[:, -1]))
    assert not torch.allclose(model(clip), alone, atol=1e-5)
    first = model(clip[:, -1:])
    assert torch.allclose(first, alone) != model.memorize_first, (
        "only --memorize-first finds anything at the start"
    )


def test_a_stepped_video_encodes_each_frame_once_and_keeps_no_more_than_the_queue():
    model, calls = network("--stm-queue-size 2 --fusion-strategy sigmoid-do1"), []
    model.backbone.encoder.register_forward_hook(lambda *_: calls.append(1))
    state = model.start()
    for frame in video(model, 6, 0).unbind(1):
        _, state = model.step(frame, state)
    assert len(calls) == 6 and len(state.entries) == 2
    key, value = state.entries[-1]
    assert key.shape[1] == 16 and value.shape[1] == 64


@pytest.mark.parametrize("backbone", FAMILIES)
def test_where_no_ignore_output_is_learnt_a_constant_one_follows_the_classes(backbone):
    model = network(backbone=backbone)
    logits = model(video(model, 2, 0))
    assert model.num_outputs == logits.shape[1] == 6
    assert (logits[:, 5] == 0).all() == (backbone != "erf")


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_everything_that_is_trained_gets_a_gradient(backbone, line):
    model = network(line, backbone).train()
    offsets = model.training_offsets(random.Random(0))
    clip, labels = clip_and_labels(model, len(offsets) + 1)
    sum(model.losses(clip, labels).values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    excused = {"mem_only": "backbone.", "original_kv_fusion": "kv_M_r4."}.get(model.struct, "none")
    assert (
        not without
        or model.has_unused_parameters
        and all(name.startswith(excused) for name in without)
    )


def test_by_default_only_the_memory_is_trained_and_a_second_decoder_with_it():
    args = main.parse_args(["--training", "--model-struct", "aux_mem_loss", "--savedir", "unused"])
    trained = {
        name.split(".")[0]
        for name, p in build_model(args, 19).named_parameters()
        if p.requires_grad
    }
    assert trained == {"kv_M_r4", "kv_Q_r4", "memory_fusion", "decoder_mem"}
    args = main.parse_args(["--training", "--train-decoder", "--savedir", "unused"])
    names = [name for name, p in build_model(args, 19).named_parameters() if p.requires_grad]
    assert any(name.startswith("backbone.decoder") for name in names)
    assert not any(name.startswith("backbone.encoder") for name in names)


def test_query_keys_begin_equal_to_memory_keys_and_are_their_own():
    model = network()
    assert torch.equal(model.kv_Q_r4.Key.weight, model.kv_M_r4.Key.weight)
    assert model.kv_Q_r4.Key.weight.data_ptr() != model.kv_M_r4.Key.weight.data_ptr()
    assert not torch.equal(
        network("--no-align-weights").kv_Q_r4.Key.weight, model.kv_M_r4.Key.weight
    )


def test_aux_mem_loss_halves_the_loss_between_both_decoders():
    model = network("--model-struct aux_mem_loss")
    clip, labels = clip_and_labels(model)
    losses = model.losses(clip, labels)
    (output,) = model.frame_outputs(clip)
    first = model.cross_entropy(model.decode(output.fused), labels[:, -1])
    assert losses["ce"].item() == pytest.approx(first.item() / 2)
    second = model.cross_entropy(model.label_read(output), labels[:, -1])
    assert losses["memory"].item() == pytest.approx(second.item() / 2)
    alone = model.losses(clip[:, -1:], labels[:, -1:])
    assert alone["ce"].item() == pytest.approx(alone["memory"].item()), (
        "with no memory both are the plain logits"
    )


def test_always_decode_learns_from_every_label_of_a_clip():
    model = network("--always-decode")
    clip, labels = clip_and_labels(model)
    last_only = model.losses(clip, labels)["ce"]
    labels[:, 1] = torch.randint(0, 5, labels[:, 1].shape)
    both = model.losses(clip, labels)["ce"]
    second = model.cross_entropy(model(clip[:, :2]), labels[:, 1])
    assert both.item() == pytest.approx((last_only + second).item() / 2, rel=1e-5)
    model.always_decode = False
    assert model.losses(clip, labels)["ce"].item() == pytest.approx(last_only.item(), rel=1e-6)


def test_feature_distillation_needs_no_labels_and_shares_the_weight_with_the_labels():
    model = network("--feature-distillation 1 --no-train-encoder --no-train-decoder")
    clip, labels = clip_and_labels(model)
    alone = model.losses(clip, torch.full_like(labels, 255))
    assert alone.keys() == {"feature_distillation"}
    alone["feature_distillation"].backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"kv_M_r4", "kv_Q_r4", "memory_fusion"}
    (output,) = model.frame_outputs(clip)
    expected = 0.0
    for x, target in ((output.fused.last, output.features.last), (output.read, output.value)):
        expected += (
            ((x - target).square().mean((0, 2, 3)) / (target.var((0, 2, 3)) + 1e-2)).mean().item()
        )
    assert alone["feature_distillation"].item() == pytest.approx(expected, rel=1e-5)
    model.feature_distillation = 0.25
    both, model.feature_distillation = model.losses(clip, labels), 0.0
    assert both["feature_distillation"].item() == pytest.approx(
        alone["feature_distillation"].item() / 4
    )
    assert both["ce"].item() == pytest.approx(0.75 * model.losses(clip, labels)["ce"].item())


def test_random_memory_draws_all_but_one_of_the_queue_among_the_frames_of_the_clip():
    model, rng = (
        network("--memory-strategy random --stm-queue-size 3 --win-size 7"),
        random.Random(0),
    )
    drawn = {model.training_offsets(rng) for _ in range(300)}
    assert len(drawn) == 15 and all(
        len(set(offsets)) == 2 and list(offsets) == sorted(offsets) for offsets in drawn
    )
    assert {offset for offsets in drawn for offset in offsets} == set(range(-6, 0))
    assert model.offsets == (-3, -2, -1), "evaluation draws nothing"


@pytest.mark.parametrize(
    "line, offsets",
    [
        ("", (-3, -2, -1)),
        ("--stm-queue-size 4", (-4, -3, -2, -1)),
        ("--win-size 3", (-2, -1)),
        ("--win-size 9", (-3, -2, -1)),
        ("--memorize-first", (-2, -1)),
        ("--memorize-first --stm-queue-size 1", ()),
        ("--baseline-mode --train-decoder", ()),
        ("--memory-strategy skip_01 --win-size 5", (-4, -2)),
        ("--memory-strategy skip_03 --win-size 9", (-8, -4)),
        ("--memory-strategy skip_01", (-6, -4, -2)),
        ("--memory-strategy skip_01 --win-size 13", (-6, -4, -2)),
        ("--model-struct original_kv_fusion --win-size 6", (-5, -4, -3, -2, -1)),
    ],
)
def test_which_frames_are_in_memory_follows_from_the_options(line, offsets):
    assert main.parse_args(["--training", *line.split(), "--savedir", "unused"]).offsets == offsets


@torch.no_grad()
def test_a_longer_clip_is_a_window_of_which_the_strategy_picks():
    model = network("--memory-strategy skip_01 --stm-queue-size 2")
    clip = video(model, 5, 0)
    assert torch.equal(model(clip), model(clip[:, [0, 2, 4]]))
    model = network("--stm-queue-size 2")
    assert torch.equal(model(clip), model(clip[:, 2:]))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--memorize-first",
        "--no-local-correlation",
        "--learnable-constant",
        "--memory-strategy skip_01",
        "--model-struct original_kv_fusion",
    ],
)
def test_attention_shows_where_a_pixel_looks(line):
    model = network(line)
    frames, state = video(model, 5, 0, batch=1), model.start()
    for frame in frames.unbind(1):
        maps = model.attention(frame, state, (20, 31))
        seen = {}
        hook = model.memory.register_forward_hook(
            lambda _, inputs, read, seen=seen: seen.update(values=inputs[2], read=read)
        )
        with torch.no_grad():
            _, state = model.step(frame, state)
        hook.remove()
        if not seen:
            assert maps.shape[0] == 0
            continue
        expected = seen["read"][0, :, 20 // 8, 31 // 8]
        ours = sum(
            (weights * value[0]).sum((1, 2))
            for weights, value in zip(maps, seen["values"], strict=True)
        )
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        assert 0 <= maps.min() and maps.sum() <= 1 + 1e-5


def test_the_shallow_decoder_learns_at_an_eighth_of_the_size():
    model = network("--shallow-dec")
    clip, labels = clip_and_labels(model)
    logits = model(clip)
    assert logits.shape[-2:] == (clip.shape[-2] // 8, clip.shape[-1] // 8)
    small = labels[:, -1, 4::8, 4::8]  # the pixel that Pillow's nearest neighbour takes
    expected = torch.nn.functional.cross_entropy(logits, small)
    assert model.losses(clip, labels)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_backbone_whose_channels_do_not_divide_is_refused():
    from models.lma import LMANet
    from toys import ToyBackbone

    backbone = ToyBackbone(5)
    backbone.channels = 12
    with pytest.raises(ValueError, match="12 do not divide"):
        LMANet(backbone)


def test_the_same_seed_gives_the_same_network_in_every_process():
    code = (
        "import main, models, torch; torch.manual_seed(0); print([float(p.double().sum()) for p in "
        "models.build_model(main.parse_args(['--training', '--savedir', 'x']), 5).parameters()])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1, "no set decides the order in which weights are drawn"


def test_small_keys_begin_small_and_learn_slowly():
    plain = network("--fusion-strategy sigmoid-do1")
    soft = network("--fusion-strategy sigmoid-do1 --small-key-init")
    assert soft.kv_M_r4.Key.weight.std().item() == pytest.approx(
        0.1 * plain.kv_M_r4.Key.weight.std().item(), rel=0.05
    )
    assert torch.equal(soft.kv_Q_r4.Key.weight, soft.kv_M_r4.Key.weight)
    rates = {
        id(p): group["lr"] for group in soft.parameter_groups(1.0, 0.0) for p in group["params"]
    }
    assert (
        rates[id(soft.kv_M_r4.Key.weight)] == pytest.approx(0.03)
        and rates[id(soft.kv_M_r4.Value.weight)] == 1.0
    )
    assert len(rates) == len([p for p in soft.parameters() if p.requires_grad]), (
        "each parameter is in one group"
    )
    assert {group["lr"] for group in plain.parameter_groups(1.0, 0.0)} == {1.0}


def test_keys_that_are_told_where_things_were_begin_smaller_and_learn_faster():
    plain, told = network(), network("--small-key-init --correspondence-loss 0.1")
    assert told.kv_M_r4.Key.weight.std().item() == pytest.approx(
        0.03 * plain.kv_M_r4.Key.weight.std().item(), rel=0.05
    )
    rates = {
        id(p): group["lr"] for group in told.parameter_groups(1.0, 0.0) for p in group["params"]
    }
    assert rates[id(told.kv_M_r4.Key.weight)] == pytest.approx(0.3)


def test_without_labels_the_scale_of_the_fused_map_is_found_faster():
    model = network("--feature-distillation 1")
    rates = {
        id(p): group["lr"] for group in model.parameter_groups(1.0, 0.0) for p in group["params"]
    }
    fusion = model.memory_fusion
    assert rates[id(fusion.bn.weight)] == 10.0 and rates[id(fusion.conv_layer_1.weight)] == 1.0


@pytest.mark.parametrize(
    "words",
    ["", "--memorize-first", "--model-struct original_kv_fusion", "--feature-distillation 1"],
)
def test_flow_teaches_the_keys_where_to_look(words):
    model = network(f"--correspondence-loss 0.5 {words}")
    clip, labels = clip_and_labels(model)
    flows = torch.zeros(len(clip), clip.shape[1] - 1, 2, *clip.shape[-2:])
    terms = model.losses(clip, labels, flows)
    assert terms["correspondence"] > 0 and "correspondence" not in model.losses(clip, labels)
    terms["correspondence"].backward()
    assert all(part.Key.weight.grad.abs().sum() > 0 for part in (model.kv_M_r4, model.kv_Q_r4))
    assert model.wants_flows and not network(words).wants_flows
    model.correspondence_weight = 1.0
    assert model.losses(clip, labels, flows)["correspondence"].item() == pytest.approx(
        2 * terms["correspondence"].item(), rel=1e-5
    )


@pytest.mark.parametrize(
    "words, said",
    [
        ("--dataset camvid", "optical flow"),
        ("--no-local-correlation", "window"),
        ("--correspondence-loss -1", "--correspondence-loss: expected a number of at least 0"),
    ],
)
def test_matching_is_refused_where_it_cannot_be(words, said, capsys):
    with pytest.raises(SystemExit):
        main.parse_args(
            f"--training --savedir x --dataset synthetic --correspondence-loss 0.1 {words}".split()
        )
    assert said in capsys.readouterr().err
