"""Method `flow`: key frames by the backbone, the others by propagation."""

from __future__ import annotations

import json

import pytest
import torch

import main
from command import assert_one_line, call, perform
from laws import assert_stream_equals_clip
from models import build_model
from models.deploy.state import flatten
from models.flow import mean_error
from models.optical_flow import FlowProvider
from models.parts.guided_filter import GuidedFilter, class_edges, moving_kernels
from test_endings import frames_in

WORDS = ["--method", "flow", "--savedir", "unused"]


def build(*words: str, job: str = "--eval-mode", classes: int = 5):
    torch.manual_seed(0)
    return build_model(main.parse_args([job, *WORDS, *words]), classes)


class Constant(FlowProvider):
    """Everything has come from `shift` pixels to the right."""

    needs_weights = False

    def __init__(self, shift: float):
        super().__init__()
        self.shift = shift
        self.calls = 0

    def forward(self, frame, previous):
        self.calls += 1
        flow = frame.new_zeros(len(frame), 2, *frame.shape[-2:])
        flow[:, 0] = self.shift
        return flow


def frames(count: int, size=(64, 96), batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(batch, 3, *size, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("backbone", ["erf", "swiftnet18", "psp18"])
@pytest.mark.parametrize(
    "words",
    [
        ["--propagate", "gsv"],
        ["--propagate", "gsv", "--flow", "dis", "--no-edge"],
        ["--propagate", "warp"],
        ["--propagate", "hold"],
    ],
    ids=lambda words: " ".join(words),
)
def test_stepping_through_a_video_gives_what_its_clips_give(backbone, words):
    assert_stream_equals_clip(build("--backbone", backbone, *words), size=(53, 75))


@torch.no_grad()
def test_hold_shows_the_key_frame_until_the_next():
    model = build("--backbone", "erf", "--propagate", "hold").eval()
    state = model.start()
    shown = []
    for t, frame in enumerate(frames(5)):
        logits, state = model.step(frame, state, key=t in (0, 3))
        shown.append(logits)
    assert torch.equal(shown[0], shown[2]) and torch.equal(shown[3], shown[4])
    assert not torch.equal(shown[2], shown[3])
    assert not model.needs_flow(False), "no flow is computed"


@torch.no_grad()
def test_warp_moves_the_logits_of_the_key_frame_by_all_flow_since_then():
    model = build("--backbone", "erf", "--propagate", "warp").eval()
    model.optical_flow = Constant(3.0)
    key, *others = frames(4)
    logits, state = model.step(key, None)
    moved = logits
    for _, frame in enumerate(others):
        moved, state = model.step(frame, state, key=False)
    # ERFNet's logits lie on the grid of the frame: three frames are nine cells.
    torch.testing.assert_close(moved[..., :-9], logits[..., 9:], atol=1e-4, rtol=1e-4)
    last = logits[..., -1:].expand_as(moved[..., -9:])
    torch.testing.assert_close(moved[..., -9:], last, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_flow_from_outside_is_used_instead_of_its_own():
    model = build("--backbone", "erf", "--propagate", "warp").eval()
    model.optical_flow = Constant(0.0)
    key, frame = frames(2)
    logits, state = model.step(key, None)
    flow = torch.zeros(1, 2, 8, 12)  # a coarser grid, in pixels of the frame
    flow[:, 0] = 4
    moved, _ = model.step(frame, state, flow, key=False)
    torch.testing.assert_close(moved[..., :-4], logits[..., 4:], atol=1e-4, rtol=1e-4)
    assert model.optical_flow.calls == 0
    given = build("--backbone", "erf", "--propagate", "warp", "--flow", "given").eval()
    with pytest.raises(ValueError, match="--flow given, and no flow came"):
        given.step(frame, given.step(key, None)[1], key=False)


@torch.no_grad()
@pytest.mark.parametrize("size", [(33, 47), (90, 120), (45, 61), (16, 16)])
def test_the_filter_takes_any_size(size):
    network = GuidedFilter(7).eval()
    filtered = network(torch.randn(2, 7, *size), torch.randn(2, 3, *size))
    assert filtered.shape == (2, 7, *size) and filtered.isfinite().all()


@torch.no_grad()
def test_the_filter_is_a_weighted_sum_of_moved_copies():
    """One kernel per pixel, made of all nine, against the copies one by one."""
    network = GuidedFilter(3)
    x, weights = torch.randn(2, 3, 9, 11), torch.rand(2, 10, 9, 11)
    expected = weights[:, :1] * x
    for k, kernel in enumerate(network.kernels):
        copy = torch.nn.functional.conv2d(x.flatten(0, 1)[:, None], kernel, padding=1)
        expected = expected + weights[:, k + 1, None] * copy.view_as(x)
    torch.testing.assert_close(network.filter(x, weights), expected)
    assert moving_kernels().sum() == 8 and moving_kernels()[8].sum() == 0


def test_edges_are_where_a_neighbour_has_another_class():
    logits = torch.zeros(1, 3, 6, 8)
    logits[:, 1, :, 4:] = 1
    edges = class_edges(logits)[0, 0]
    expected = torch.zeros(6, 8)
    expected[:, 3:5] = 1
    expected[0, 4:] = expected[-1, 4:] = expected[:, -1] = 1  # class 1 meets the frame's border
    assert torch.equal(edges, expected)


# Training


def clip_and_labels(frames_of_clip: int = 3):
    clip = torch.stack(frames(frames_of_clip, batch=2), 1)
    labels = torch.full(clip.shape[:2] + clip.shape[-2:], 255)
    labels[:, -1] = torch.randint(0, 5, labels[:, -1].shape)
    return clip, labels


def test_filter_and_flow_network_learn_and_the_backbone_stays():
    model = build("--backbone", "swiftnet18", "--flow-loss", "1", job="--training").train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    clip, labels = clip_and_labels()
    terms = model.losses(clip, labels, torch.randn(2, 2, 2, *clip.shape[-2:]))
    assert set(terms) == {"ce", "distillation", "flow"}
    sum(terms.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert any(name.startswith("optical_flow") for name in trained)
    assert any(name.startswith("propagation.filter.guide") for name in trained)
    assert not any(name.startswith("backbone") for name in trained)
    after = model.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "batch norm included"


def test_flow_that_is_unknown_teaches_nothing():
    exact = torch.ones(1, 2, 4, 6)
    exact[..., 3:] = float("nan")
    flow = torch.zeros(1, 2, 4, 6, requires_grad=True)
    error = mean_error(flow, exact)
    error.backward()
    assert error == 1 and not flow.grad[..., 3:].any() and flow.grad[..., :3].all()
    assert mean_error(flow, torch.full_like(exact, float("nan"))) == 0


@pytest.mark.parametrize(("steps", "propagated"), [(["1"], 1), (["2"], 2), (["1", "3"], 4)])
def test_the_distances_that_are_asked_for_are_learned(steps, propagated):
    model = build("--backbone", "erf", "--multi-step", *steps, job="--training").train()
    assert model.training_offsets(None) == tuple(range(-max(map(int, steps)), 0))
    calls = []
    model.propagation.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    model.losses(*clip_and_labels(1 + max(map(int, steps))))
    assert len(calls) == propagated
    # Only the last two steps of a clip train the filter.
    assert calls.count(False) == (1 if "3" in steps else 0)


def test_rates_of_guide_and_flow_network_are_relative_to_the_rest():
    model = build("--backbone", "erf", "--guide-lr", "10", "--flow-lr", "0.1", job="--training")
    rates = {group["lr"] for group in model.parameter_groups(0.002, 0)}
    assert sorted(rates) == pytest.approx([0.0002, 0.002, 0.02])


def test_what_has_nothing_to_train_is_refused():
    for words in (["--propagate", "hold"], ["--propagate", "warp", "--flow", "dis"]):
        done = call("--training", *WORDS, *words, "--dataset", "synthetic")
        assert_one_line(done, f"{' '.join(words[:2])} --flow")


def test_the_flow_network_learns_through_plain_warping_too():
    model = build("--backbone", "erf", "--propagate", "warp", job="--training").train()
    terms = model.losses(*clip_and_labels())
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in model.optical_flow.parameters())
    assert len(model.parameter_groups(0.1, 0)) == 1


# The command line

TINY = "--dataset synthetic --synthetic-size 48 64 --synthetic-length 6 --synthetic-videos 2 1 1"
SMALL = [*TINY.split(), "--threads", "1", "--device", "cpu", "--num-workers", "0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a filter that was trained for one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    perform(
        "--training", "--method", "flow", "--backbone", "erf", *SMALL, "--num-epochs", "1",
        "--batch-size", "2", "--class-weights", "none", "--savedir", folder,
    )  # fmt: skip
    return folder / "model_best.pth.tar"


@pytest.mark.parametrize("propagate", ["gsv", "warp", "hold", "gsv --flow dis"])
def test_a_checkpoint_of_the_filter_is_scored_under_every_propagation(propagate, trained, tmp_path):
    perform(
        "--eval-mode", *SMALL, "--weights", trained, "--propagate", *propagate.split(),
        "--key-interval", "2", "--savedir", tmp_path,
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["metrics"]["key_distance"]["mIoU"]) == {"0", "1", "2"}
    assert results["latency"]["key_ms"] > 0 and results["latency"]["non_key_ms"] > 0


def test_single_frame_weights_are_enough_to_label_a_video_with_key_frames(weights, tmp_path):
    words = "--inference --method flow --dataset synthetic --backbone erf --threads 1 --device cpu"
    words += " --key-interval 1 --key-record --key-strip --output overlay labels"
    source = frames_in(tmp_path / "in")
    savedir = tmp_path / "out"
    perform(*words.split(), "--source", source, "--weights", weights, "--savedir", savedir)
    rows = (tmp_path / "out" / "in_keyframes.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows[1:]] == ["1", "0", "1"]


def test_the_state_has_one_form_that_graphs_can_take():
    model = build("--backbone", "erf", "--propagate", "warp").eval()
    key, frame = frames(2)
    with torch.no_grad():
        _, first = model.step(key, None)
        _, second = model.step(frame, first, key=False)
    assert flatten(first)[1] == flatten(second)[1]
