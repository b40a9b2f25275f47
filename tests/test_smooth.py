"""smooth: the blend over time, its laws, where it is off, and that its weights are of `single`."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import main
from command import ROOT, TINY, perform
from laws import assert_stream_equals_clip, video
from models import build_model
from models.deploy.state import flatten
from models.optical_flow import FlowProvider
from models.parts.flow_check import flow_validity
from models.smooth import Smooth
from toys import ToyBackbone
from utils.checkpoint import load_weights
from utils.stepper import Stepper
from utils.views import Views

CLASSES = 5


class Shift(FlowProvider):
    """The same flow everywhere, and how often it was asked."""

    def __init__(self, x: float = 0.0, y: float = 0.0):
        super().__init__()
        self.shift = torch.tensor([x, y])
        self.calls = 0

    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        self.calls += 1
        return self.shift.view(1, 2, 1, 1).expand(len(frame), 2, *frame.shape[-2:])


class Script(ToyBackbone):
    """Gives the logits that a test puts in."""

    logits: Tensor

    def forward(self, frame: Tensor) -> Tensor:
        return self.logits


def network(line: str = "", backbone: str = "erf", method: str = "smooth"):
    """A network of the command line's options, with the same weights each time."""
    words = f"--training --method {method} --backbone {backbone} --dataset synthetic {line}"
    args = main.parse_args([*words.split(), "--savedir", "unused"])
    torch.manual_seed(0)
    return build_model(args, CLASSES).eval()


def scripted(strength: float = 0.7, flow: FlowProvider | None = None) -> Smooth:
    return Smooth(Script(CLASSES), optical_flow=flow or Shift(), strength=strength).eval()


def textured(seed: int = 0, size: tuple[int, int] = (32, 48), batch: int = 1) -> Tensor:
    """A frame (batch, 3, *size) of random blocks of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(batch, 3, size[0] // 8, size[1] // 8, generator=generator)
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)


def sure(label: int, size: tuple[int, int] = (8, 12), batch: int = 1) -> Tensor:
    """Logits (batch, CLASSES, *size) that say one class everywhere."""
    logits = torch.zeros(batch, CLASSES, *size)
    logits[:, label] = 4
    return logits


def feed(model: Smooth, *shown: tuple[Tensor, Tensor]) -> Tensor:
    """Steps (frame, logits of the network) one after the other -> the last logits."""
    state = model.start()
    for frame, logits in shown:
        model.backbone.logits = logits
        result, state = model.step(frame, state)
    return result


@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_stream_equals_clip(backbone):
    model = network(backbone=backbone)
    # DIS needs frames larger than the law's.
    model.optical_flow = Shift(x=1.5, y=-2.5)
    assert_stream_equals_clip(model, size=(25, 33))


@torch.no_grad()
def test_stream_equals_clip_with_its_own_flow():
    model = network()
    still = textured(size=(96, 128))
    clip = torch.stack([still.roll(2 * t, 3) for t in range(4)], 1)
    state = model.start()
    for t, frame in enumerate(clip.unbind(1)):
        logits, state = model.step(frame, state)
        torch.testing.assert_close(logits, model(clip[:, : t + 1]), atol=1e-5, rtol=1e-5)
    alone = network("--smooth-strength 0")(clip)
    assert not torch.allclose(logits, alone, atol=1e-4), "the past has a share"


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_a_strength_of_0_is_the_single_frame_network_bit_for_bit_and_asks_for_no_flow(backbone):
    model = network("--smooth-strength 0", backbone)
    model.optical_flow = counter = Shift()
    single = network(backbone=backbone, method="single")
    state = model.start()
    for frame in video(model, 3, 0).unbind(1):
        logits, state = model.step(frame, state)
        assert torch.equal(logits, single.step(frame, None)[0])
    assert state is None
    assert counter.calls == 0
    assert model.offsets == ()
    assert not model.needs_flow(None)
    assert network().needs_flow(False)


def test_the_softmax_of_the_logits_is_the_blend_and_confidence_weighs_it():
    frame = textured()
    unsure = 0.25 * sure(2)
    for before, now, favoured in ((sure(1), unsure, True), (unsure, sure(2), False)):
        blended = feed(scripted(0.5), (frame, before), (frame, now)).softmax(1)
        past = before.softmax(1)
        own = now.softmax(1)
        share = (blended - own) / (past - own)
        assert share.std() < 1e-5, "one share for all classes"
        assert bool(share.mean() > 0.6) == favoured
        assert bool(share.mean() < 0.4) == (not favoured)
    torch.testing.assert_close(blended.sum(1), torch.ones(1, 8, 12))


def test_a_flicker_of_one_frame_is_held_back_and_a_change_that_stays_comes_through():
    frame = textured()
    seen = [(frame, sure(1))] * 3
    flicker = feed(scripted(), *seen, (frame, sure(2)))
    assert (flicker.argmax(1) == 1).all()
    stays = feed(scripted(), *seen, *[(frame, sure(2))] * 8)
    assert (stays.argmax(1) == 2).all()


def test_with_constant_frames_it_converges_to_the_frames_own_probabilities():
    frame = textured()
    own = torch.randn(1, CLASSES, 8, 12, generator=torch.Generator().manual_seed(1))
    found = feed(scripted(), (frame, sure(1)), *[(frame, own)] * 80)
    torch.testing.assert_close(found.softmax(1), own.softmax(1), atol=1e-4, rtol=0)
    constant = feed(scripted(), *[(frame, own)] * 4)
    torch.testing.assert_close(constant, own, atol=1e-4, rtol=0)


def test_labels_move_with_the_flow():
    frame = textured()
    moved = frame.roll(8, 3)
    labels = sure(1)
    labels[:, :, :, :6] = sure(2)[:, :, :, :6]
    unsure = torch.zeros_like(labels)
    # 8 pixels are two cells of the logits.
    found = feed(scripted(flow=Shift(x=-8.0)), (frame, labels), (moved, unsure)).argmax(1)
    assert (found[..., 2:8] == 2).all()
    assert (found[..., 8:] == 1).all()


def test_where_flow_points_out_of_the_frame_the_frame_keeps_its_own():
    frame = textured()
    now = sure(2)
    found = feed(scripted(flow=Shift(x=-8.0)), (frame, sure(1)), (frame.roll(8, 3), now))
    assert torch.equal(found[..., :2], now[..., :2])
    assert (found[..., 2:] != now[..., 2:]).any(1).all()


def test_what_changes_its_looks_keeps_its_own_and_does_not_smear():
    frame = textured(size=(128, 128))
    after = frame.clone()
    # Something comes into the picture; the rest stays.
    after[..., 32:64, 32:64] = 1 - after[..., 32:64, 32:64].round()
    everywhere = sure(1, (32, 32))
    now = everywhere.clone()
    now[..., 8:16, 8:16] = sure(2)[..., :8, :8]
    before = [(frame, everywhere)] * 4
    found = feed(scripted(0.9), *before, (after, now)).argmax(1)
    assert (found[..., 9:15, 9:15] == 2).all()
    assert (feed(scripted(0.9), *before, (frame, now)).argmax(1) == 1).all()


def test_a_scene_cut_begins_anew_and_in_its_own_clip_alone():
    before = textured(0, batch=2)
    after = torch.cat([textured(7), before[1:]])
    now = sure(2, batch=2)
    found = feed(scripted(), *[(before, sure(1, batch=2))] * 3, (after, now))
    assert torch.equal(found[0], now[0])
    assert (found[1] != now[1]).any()


def test_another_exposure_is_no_scene_cut():
    frame = textured()
    flow = torch.zeros(1, 2, *frame.shape[-2:])
    assert flow_validity(0.5 * frame, frame, flow, (8, 12)).min() > 0.9
    assert flow_validity(0.6 * frame + 0.3, frame, flow, (8, 12)).min() > 0.9
    assert flow_validity(textured(7), frame, flow, (8, 12)).max() == 0


def test_noise_of_single_pixels_is_no_scene_cut():
    frame = textured(size=(64, 96))
    noise = 0.2 * torch.randn(frame.shape, generator=torch.Generator().manual_seed(1))
    flow = torch.zeros(1, 2, 64, 96)
    assert flow_validity(frame + noise, frame, flow, (16, 24)).mean() > 0.8


def test_full_size_logits_are_blended_at_half_and_get_the_change():
    frame = textured()
    own = sure(1, (32, 48))
    state = scripted().start()
    model = scripted()
    model.backbone.logits = own
    logits, state = model.step(frame, state)
    assert torch.equal(logits, own)
    assert state.probabilities.shape == (1, CLASSES, 16, 24)
    model.backbone.logits = sure(2, (32, 48))
    logits, _ = model.step(frame, state)
    assert (logits.argmax(1) == 1).all()
    small = feed(scripted(), (frame, sure(1)), (frame, sure(2)))
    torch.testing.assert_close(logits[..., 0, 0], small[..., 0, 0])


@pytest.mark.parametrize("size", [(31, 47), (33, 2), (1, 1)])
def test_any_size_works(size):
    model = scripted()
    for grid in (size, tuple(-(-side // 8) for side in size)):
        frame = torch.rand(1, 3, *size)
        logits = feed(model, (frame, sure(1, grid)), (frame, sure(2, grid)))
        assert logits.shape[-2:] == grid
        assert logits.isfinite().all()


def test_extreme_logits_stay_finite_and_so_does_the_loss():
    frame = textured()
    for grid in ((8, 12), (32, 48)):
        far = 1e4 * sure(1, grid)
        model = scripted(0.999)
        logits = feed(model, (frame, far), (frame, 1e4 * sure(2, grid)))
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        loss = model.cross_entropy(logits, torch.randint(0, CLASSES, (1, 32, 48)))
        assert loss.isfinite()


@torch.no_grad()
def test_given_flow_is_used_and_without_a_provider_it_is_asked_for():
    frame = textured()
    counter = Shift()
    model = scripted(flow=counter)
    model.backbone.logits = sure(1)
    _, state = model.step(frame, None)
    given = torch.zeros(1, 2, 32, 48)
    given[:, 0] = 1000
    logits, _ = model.step(frame, state, flow=given)
    assert counter.calls == 0
    assert torch.equal(logits, sure(1)), "flow points out of the frame"
    bare = Smooth(model.backbone)
    with pytest.raises(ValueError, match="no flow came with the frame"):
        bare.step(frame, state)
    assert bare.step(frame, state, flow=0 * given)[0].isfinite().all()


@torch.no_grad()
def test_state_keeps_its_form_from_the_first_frame_on_and_does_not_grow():
    model = network()
    forms = []
    state = model.start()
    for frame in video(model, 4, 0).unbind(1):
        _, state = model.step(frame, state)
        tensors, structure = flatten(state)
        forms.append((structure, [(x.shape, x.dtype) for x in tensors]))
    assert all(form == forms[0] for form in forms)
    assert [shape[1] for shape, _ in forms[0][1]] == [CLASSES + 1, 3]


def test_mirrored_and_scaled_views_have_their_own_past():
    model = network()
    views = Views(model.size_rule, scales=(1.0, 0.5), flip=True)
    stepper = Stepper(model, views, nullcontext())
    frames = textured(size=(64, 96))
    for _ in range(3):
        scores = stepper(frames)
    assert len({id(state.frame) for state in stepper.states}) == 4
    alone = Stepper(network("--smooth-strength 0"), views, nullcontext())
    torch.testing.assert_close(scores, alone(frames), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_autocast_does_not_round_the_blend():
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        state = model.start()
        for frame in video(model, 2, 0).unbind(1):
            logits, state = model.step(frame, state)
    assert logits.dtype == state.probabilities.dtype == torch.float32


@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_its_loss_and_what_it_trains_are_those_of_single(backbone):
    model = network(backbone=backbone).train()
    single = network(backbone=backbone, method="single").train()
    clip = video(model, 1, 0)
    labels = torch.randint(0, CLASSES, (2, 1, *clip.shape[-2:]))
    losses = []
    for trained in (model, single):
        torch.manual_seed(0)
        losses.append(trained.losses(clip, labels))
    assert {name: loss.item() for name, loss in losses[0].items()} == {
        name: loss.item() for name, loss in losses[1].items()
    }
    assert model.training_offsets(None) == ()
    sizes = [
        [len(group["params"]) for group in trained.parameter_groups(1.0, 0.0)]
        for trained in (model, single)
    ]
    assert sizes[0] == sizes[1]


def test_a_provider_with_weights_is_never_trained():
    provider = Shift()
    provider.layer = nn.Conv2d(3, 2, 1)
    model = Smooth(ToyBackbone(CLASSES), optical_flow=provider).train()
    assert not provider.training
    assert not provider.layer.weight.requires_grad
    trained = {id(p) for group in model.parameter_groups(0.1, 0) for p in group["params"]}
    assert id(provider.layer.weight) not in trained


def test_weights_of_single_load_unchanged_and_its_own_are_those_of_single(tmp_path):
    single = network(method="single")
    torch.save(single.state_dict(), tmp_path / "single.pth")
    model = network()
    assert model.state_dict().keys() == single.state_dict().keys()
    for part in model.parameters():
        part.data.zero_()
    load_weights(model, tmp_path / "single.pth", complete=True)
    saved = model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in single.state_dict().items())


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_a_strength_outside_its_range_is_refused(strength, capsys):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Smooth(ToyBackbone(CLASSES), strength=strength)
    words = ["--inference", "--method", "smooth", f"--smooth-strength={strength}"]
    with pytest.raises(SystemExit) as stopped:
        main.parse_args([*words, "--savedir", "unused"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "--smooth-strength" in error
    assert error.count("\n") == 1


def test_it_scores_weights_of_single_by_the_command_line(tmp_path):
    # The real weights: labels of a fresh network would not flicker.
    words = [word for word in TINY if word not in ("--method", "single")]
    words += ["--weights", str(ROOT / "trained_models" / "erfnet_synthetic.pth")]
    results = []
    for method in (["smooth"], ["smooth", "--smooth-strength", "0"], ["single"]):
        folder = tmp_path / str(len(results))
        perform("--eval-mode", *words, "--method", *method, "--savedir", folder)
        results.append(json.loads((folder / "results.json").read_text()))
    smooth, off, single = results
    assert smooth["metrics"]["VC8"] != single["metrics"]["VC8"]
    assert smooth["loss"] < 10
    assert off["metrics"] == single["metrics"]
    assert off["loss"] == single["loss"]


def test_the_benchmark_compares_it_with_single(tmp_path, capsys):
    place = ROOT / "benchmarks" / "smooth.py"
    spec = importlib.util.spec_from_file_location("benchmark_smooth", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = ["--backbones", "erf", "--sizes", "32x64", "--rounds", "1"]
    result = module.run([*words, "--json", str(tmp_path / "smooth.json")])
    row = result["rows"]["erf 32x64"]
    assert row["ratio"] > 0
    assert json.loads((tmp_path / "smooth.json").read_text())["rows"] == result["rows"]
    assert "erf" in capsys.readouterr().out
