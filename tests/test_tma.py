"""TMANet: the Law on every family of backbones, what is trained, what its options mean, what it
starts from."""

import json
import random

import pytest
import torch

import main
from command import TINY, perform
from laws import assert_stream_equals_clip, video
from models import build_model
from models.deploy import for_inference
from models.tma import TMANet
from toys import ToyBackbone
from utils.checkpoint import load_weights

LINES = (
    "",
    "--stm-queue-size 1",
    "--stm-queue-size 4",
    "--memory-strategy skip_01",
    "--stm-queue-size 3 --win-size 3",
    "--memory-strategy random --win-size 5",
    "--key-channels 8 --value-channels 24",
)


def network(line: str = "", backbone: str = "erf", classes: int = 5) -> TMANet:
    """A TMANet whose batch norms are not those of a fresh network."""
    args = main.parse_args(
        [
            "--training",
            "--method",
            "tma",
            "--backbone",
            backbone,
            "--dataset",
            "synthetic",
            "--savedir",
            "unused",
            *line.split(),
        ]
    )
    torch.manual_seed(0)
    model = build_model(args, classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return model.eval()


def clip_and_labels(model, frames: int = 3):
    clip = video(model, frames, 0)
    labels = torch.full((2, frames, *clip.shape[-2:]), 255)
    labels[:, -1] = torch.randint(0, 5, labels[:, -1].shape)
    return clip, labels


@pytest.mark.parametrize(
    "backbone, line",
    [
        *(("erf", line) for line in LINES),
        ("psp18", ""),
        ("psp18", LINES[2]),
        ("r50v1c", ""),
        ("r50v1c", LINES[1]),
    ],
)
def test_stream_equals_clip(backbone, line):
    assert_stream_equals_clip(
        network(line, backbone), size=(37, 53) if backbone == "erf" else (17, 25)
    )


@torch.no_grad()
def test_the_first_frame_stands_for_those_before_it():
    model = network("--stm-queue-size 3")
    frames = video(model, 3, 0)
    assert [model.startup(past) for past in range(4)] == [
        (0, 0, 0),
        (-1, -1, -1),
        (-2, -2, -1),
        (-3, -2, -1),
    ]
    state = model.start()
    for t, repeated in enumerate([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2]]):
        logits, state = model.step(frames[:, t], state)
        torch.testing.assert_close(logits, model(frames[:, repeated]))
        torch.testing.assert_close(
            logits, model(frames[:, : t + 1])
        )  # a short clip is filled the same way


@torch.no_grad()
def test_memory_changes_the_prediction():
    model = network()
    clip = video(model, 3, 0)
    changed = torch.cat([video(model, 2, 5), clip[:, -1:]], 1)
    assert not torch.allclose(model(clip), model(changed), atol=1e-5)


def test_a_stepped_video_encodes_each_frame_once_and_keeps_features_alone():
    model, calls = network(), []
    model.backbone.encoder.register_forward_hook(lambda *_: calls.append(1))
    state = model.start()
    for frame in video(model, 6, 0).unbind(1):
        _, state = model.step(frame, state)
    assert len(calls) == 6
    assert [tuple(entry.shape[:2]) for entry in state.entries] == [(2, 128)] * 2


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_everything_that_is_trained_gets_a_gradient(backbone, line):
    model = network(line, backbone).train()
    clip, labels = clip_and_labels(model, len(model.training_offsets(random.Random(0))) + 1)
    losses = model.losses(clip, labels)
    assert set(losses) == ({"ce", "aux"} if backbone == "psp18" else {"ce"})
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    groups = model.parameter_groups(1.0, 0.0)
    assert sum(len(group["params"]) for group in groups) == len(
        [p for p in model.parameters() if p.requires_grad]
    )


def test_the_loss_divides_by_all_pixels_as_published():
    model = network()
    clip, labels = clip_and_labels(model)
    whole = model.losses(clip, labels)["ce"].item()
    labels[:, :, ::2] = 255
    assert model.losses(clip, labels)["ce"].item() == pytest.approx(whole / 2, rel=0.2)


def test_drawn_frames_are_in_their_order_and_scoring_draws_nothing():
    model, rng = (
        network("--memory-strategy random --stm-queue-size 2 --win-size 6"),
        random.Random(0),
    )
    drawn = {model.training_offsets(rng) for _ in range(300)}
    assert len(drawn) == 10 and all(list(offsets) == sorted(offsets) for offsets in drawn)
    assert {offset for offsets in drawn for offset in offsets} == set(range(-5, 0))
    assert model.offsets == (-2, -1)


@pytest.mark.parametrize(
    "line, offsets",
    [
        ("--dataset cityscapes", (-2, -1)),
        ("--dataset camvid --backbone r50v1c", (-4, -3, -2, -1)),
        ("--stm-queue-size 1", (-1,)),
        ("--memory-strategy skip_02", (-6, -3)),
        ("--win-size 2", (-1,)),
        ("--memory-strategy random --win-size 9", (-2, -1)),
    ],
)
def test_which_frames_are_in_memory_follows_from_the_options(line, offsets):
    assert (
        main.parse_args(["--training", "--method", "tma", *line.split(), "--savedir", "x"]).offsets
        == offsets
    )


@pytest.mark.parametrize(
    "line, said",
    [
        ("--corr-size 21", "--corr-size acts with --method lma only"),
        ("--win-size 1", "(2), got 1"),
        ("--memory-strategy skip_01 --win-size 4", "1 + a multiple of 2"),
        ("--key-channels 0", "at least 1"),
        ("--memory-strategy random --stm-queue-size 4 --win-size 3", "draws 4 of the 2 frames"),
        ("--align-corners", "acts with --backbone r50v1c or r101v1c only, not with erf"),
        ("--method lma --key-channels 8", "--key-channels acts with --method tma only"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(line, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.parse_args(["--training", "--method", "tma", "--savedir", "x", *line.split()])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1


def test_keys_and_values_are_as_published_or_fit_a_narrow_backbone():
    for backbone, keys, values in (("r50v1c", 64, 256), ("psp18", 64, 256), ("erf", 16, 64)):
        model = network(backbone=backbone)
        assert model.query_key_conv[1].conv.out_channels == keys
        assert model.memory_value_conv[1][1].conv.out_channels == values
    with pytest.raises(ValueError, match="at least one earlier frame"):
        TMANet(ToyBackbone(5), ())


def test_a_single_frame_network_is_a_start_and_gives_all_but_its_decoder(tmp_path):
    args = main.parse_args(
        ["--training", "--method", "single", "--dataset", "synthetic", "--savedir", "unused"]
    )
    start, model = build_model(args, 5), network()
    torch.save(start.state_dict(), tmp_path / "single.pth")
    report = load_weights(model, tmp_path / "single.pth", complete=False)
    assert report.unused and all(key.startswith("backbone.decoder.") for key in report.unused)
    assert report.new and not any(key.startswith("backbone.") for key in report.new)
    state = model.state_dict()
    assert all(
        torch.equal(value, state[key]) for key, value in start.state_dict().items() if key in state
    )
    with pytest.raises(ValueError, match="not complete without"):
        load_weights(model, tmp_path / "single.pth", complete=True)


def test_its_own_checkpoint_comes_back(tmp_path):
    model, other = network(), network("--value-channels 32")
    torch.save(model.state_dict(), tmp_path / "tma.pth")
    fresh = network()
    assert load_weights(fresh, tmp_path / "tma.pth").loaded == len(model.state_dict())
    with pytest.raises(ValueError, match="of another shape"):
        load_weights(other, tmp_path / "tma.pth")


@pytest.mark.parametrize("line", ["", "--memory-strategy skip_01"])
@torch.no_grad()
def test_attention_shows_where_a_pixel_looks(line):
    model = network(line)
    frames, state, seen = video(model, 5, 0, batch=1), model.start(), []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for frame in frames.unbind(1):
        maps = model.attention(frame, state, (20, 31))
        known = (*state.entries, model.encode(frame).last)
        entries = tuple(
            known[len(state.entries) + offset] for offset in model.startup(len(state.entries))
        )
        _, state = model.step(frame, state)
        read = seen[-1].chunk(2, 1)[1][0, :, 20 // 8, 31 // 8]
        values = model.memory(entries)[1]
        ours = sum(
            (weights * value[0]).sum((1, 2)) for weights, value in zip(maps, values, strict=True)
        )
        torch.testing.assert_close(ours, read, rtol=1e-4, atol=1e-5)
        assert maps.sum().item() == pytest.approx(1, rel=1e-5)


@torch.no_grad()
def test_half_precision_leaves_the_keys_alone_and_autocast_does_not_round_their_products():
    model = network()
    clip = video(model, 3, 0)
    expected = model(clip)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(clip)
    assert (rounded.float() - expected).abs().max() < 0.1 * expected.abs().max()
    prepared = for_inference(network(), dtype=torch.bfloat16)
    keys = [conv.weight.dtype for conv in prepared.fp32_modules()]
    assert len(keys) == 6 and set(keys) == {torch.float32}
    assert prepared.query_value_conv[0].conv.weight.dtype == torch.bfloat16
    found, state = None, prepared.start()
    for frame in clip.unbind(1):
        found, state = prepared.step(frame, state)
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@torch.no_grad()
def test_prepared_for_inference_it_computes_the_same():
    model, prepared = network(), for_inference(network())
    clip = video(model, 3, 0)
    torch.testing.assert_close(prepared(clip), model(clip), rtol=1e-4, atol=1e-5)
    assert not [
        part for part in prepared.query_key_conv.modules() if isinstance(part, torch.nn.BatchNorm2d)
    ]


def test_it_trains_and_is_scored_by_the_command_line(tmp_path):
    """With nothing but the weights it knows what it is, what is None by default included."""
    words = [word for word in TINY if word not in ("--method", "single")]
    perform(
        "--training",
        "--method",
        "tma",
        *words,
        "--num-epochs",
        "1",
        "--batch-size",
        "2",
        "--savedir",
        tmp_path / "train",
    )
    weights = tmp_path / "train" / "model_best.pth.tar"
    words = [word for word in words if word not in ("--dataset", "synthetic")]
    perform("--eval-mode", *words, "--weights", weights, "--savedir", tmp_path / "scored")
    results = json.loads((tmp_path / "scored" / "results.json").read_text())
    assert results["options"]["method"] == "tma" and "VC8" in results["metrics"]
    recipe = (tmp_path / "scored" / "args.txt").read_text()
    assert "--method tma" in recipe and "--stm-queue-size 2" in recipe and "channels" not in recipe


def test_first_frames_may_be_labelled_and_not_scored(tmp_path):
    words = "--synthetic-size 32 64 --synthetic-videos 1 2 1 --synthetic-length 5 --pictures 0"
    base = f"--dataset synthetic {words} --device cpu --threads 1 --num-workers 0".split()
    args = main.parse_args(["--training", "--method", "tma", *base, "--savedir", "unused"])
    torch.save(build_model(args, 11).state_dict(), tmp_path / "w.pth")
    run = ["--eval-mode", "--method", "tma", *base, "--weights", tmp_path / "w.pth"]
    found = {}
    for how in ("repeat", "skip"):
        perform(*run, "--first-frames", how, "--save-labels", "--savedir", tmp_path / how)
        found[how] = json.loads((tmp_path / how / "results.json").read_text())
        assert len(list((tmp_path / how / "labels").rglob("*.png"))) == 10
    # of two videos of five frames, with two frames in memory
    assert found["repeat"]["frames"] == 10 and found["skip"]["frames"] == 6
    assert found["repeat"]["metrics"]["mIoU"] != found["skip"]["metrics"]["mIoU"]
