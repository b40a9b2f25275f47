"""A network prepared for prediction gives the plain network's numbers."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import main
from laws import assert_stream_equals_clip, video
from models import build_model
from models.deploy import for_inference
from models.deploy.cuda_graphs import KINDS, GraphedStep
from models.deploy.folding import fold_batch_norm
from models.deploy.state import flatten, unflatten
from toys import KeyFrames, ToyBackbone

# One of each family
BACKBONES = ("erf", "psp18", "r50v1c", "swiftnet18", "swiftnet18_pyramid", "espnetv2_s05", "mit_b0")
EXACT = ("espnetv2_s05", "mit_b0")  # whose map is made by what is not rounded
# Batch norms that stay: of concatenated maps and of sums, in front of a convolution, one for each
# size of three
UNFOLDED = re.compile(
    r"aux|(?:initial_block|layers\.[06])\.bn$|\.norm$|bn[12]\.[0-2]$"
    r"|(?:br_after_cat|merge_layer\.[02]|bu_br_l[2-4]|linear_fuse)\.bn$"
)
STRUCTURES = ("original", "mem_only", "original_kv_fusion")


def network(*words: str) -> nn.Module:
    """A network of these options whose batch norms are not trivial, as after a training."""
    torch.manual_seed(0)
    model = build_model(main.parse_args(["--inference", "--savedir", "unused", *words]), 19)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def stream(model, frames: torch.Tensor) -> torch.Tensor:
    """frames (B, T, 3, H, W) -> logits (T, B, K, h, w)."""
    state, found = model.start(), []
    for frame in frames.unbind(1):
        logits, state = model.step(frame, state)
        found.append(logits.float())
    return torch.stack(found)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    two = theirs.topk(2, -3).values
    decided = two.select(-3, 0) - two.select(-3, 1) > 2e-5 * theirs.abs().max()  # no tie in either
    assert decided.float().mean() > 0.99
    assert torch.equal(ours.argmax(-3)[decided], theirs.argmax(-3)[decided])


@pytest.mark.parametrize("method", ["single", "lma"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_prepared_network_gives_the_same_logits_on_a_stream_and_on_a_clip(backbone, method):
    plain = network("--method", method, "--backbone", backbone)
    ready = for_inference(copy.deepcopy(plain))
    frames = video(plain, 4, seed=1, size=(24, 40))
    assert_same(stream(ready, frames), stream(plain, frames))
    with torch.no_grad():
        clip = frames[:, :3]
        assert_same(ready(clip), plain(clip))
    left = [n for n, m in ready.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert [name for name in left if not UNFOLDED.search(name)] == []


@pytest.mark.parametrize("struct", STRUCTURES)
def test_every_structure_of_lmanet_can_be_prepared_and_keeps_the_law(struct):
    plain = network("--backbone", "erf", "--model-struct", struct)
    ready = for_inference(copy.deepcopy(plain))
    frames = video(plain, 5, seed=2)
    assert_same(stream(ready, frames), stream(plain, frames))
    assert_stream_equals_clip(ready, size=(16, 24))


@pytest.mark.parametrize(
    "words",
    [
        ["--shallow-dec"],
        ["--backbone-nobn"],
        ["--no-local-correlation"],
        ["--learnable-constant", "--memorize-first"],
    ],
    ids=" ".join,
)
def test_options_that_change_the_network_do_not_change_that(words):
    plain = network("--backbone", "erf", *words)
    frames = video(plain, 4, seed=3)
    assert_same(stream(for_inference(copy.deepcopy(plain)), frames), stream(plain, frames))


class Fork(nn.Module):
    """A convolution that is read by a batch norm and beside it; one whose batch norm reads another
    one too."""

    offsets, size_rule, capturable = (), None, True

    def __init__(self):
        super().__init__()
        self.both, self.one, self.other, self.alone = (nn.Conv2d(3, 3, 1) for _ in range(4))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(3) for _ in range(3))

    def start(self):
        return None

    def needs_flow(self, key):
        return False

    def step(self, frame, state, flow=None):
        x = self.both(frame)
        y = self.bn2(self.one(frame)) + self.bn2(self.other(frame))
        return x + self.bn1(x) + y + self.bn3(self.alone(frame)), None


def test_only_a_convolution_that_nothing_else_reads_is_folded(monkeypatch):
    monkeypatch.setattr(
        "models.deploy.folding.probe", lambda model, frames: iter([torch.rand(1, 3, 4, 4)])
    )
    model = Fork().eval()
    for norm in (model.bn1, model.bn2, model.bn3):
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_()
    frame = torch.rand(2, 3, 5, 5)
    before = model.step(frame, None)[0]
    assert fold_batch_norm(model) == 1
    assert [isinstance(norm, nn.Identity) for norm in (model.bn1, model.bn2, model.bn3)] == [
        False,
        False,
        True,
    ]
    torch.testing.assert_close(model.step(frame, None)[0], before)


@pytest.mark.parametrize(
    "backbone, words",
    [
        *((backbone, words) for backbone in BACKBONES for words in (["--method", "single"], [])),
        ("erf", ["--no-local-correlation", "--learnable-constant"]),
        ("erf", ["--model-struct", "original_kv_fusion"]),
    ],
)
def test_half_precision_rounds_convolutions_but_neither_keys_nor_what_gives_the_logits(
    backbone, words
):
    plain = network("--backbone", backbone, *words)
    ready = for_inference(copy.deepcopy(plain), dtype=torch.bfloat16)
    frames = video(plain, 3, seed=4, size=(24, 40))
    ours, theirs = stream(ready, frames), stream(plain, frames)
    assert 0 < (ours - theirs).abs().mean() < 0.1 * theirs.abs().mean()
    types = {name: m.weight.dtype for name, m in ready.named_modules() if isinstance(m, nn.Conv2d)}
    assert torch.bfloat16 in types.values()
    assert all(types[name] == torch.float32 for name in types if name.endswith(".Key"))
    if words == []:
        state = ready.start()
        _, state = ready.step(frames[:, 0], state)
        key, value = state.entries[-1]
        # Their maps end in slopes and in a layer norm, which are not rounded
        rounded = torch.float32 if backbone in EXACT else torch.bfloat16
        assert (key.dtype, value.dtype) == (torch.float32, rounded)


def recorded(compute):
    """A replay on a CPU: what a CUDA graph does, writing into the same outputs each time."""
    result = compute()
    fixed, _ = flatten(result)

    def replay():
        fresh, _ = flatten(compute())
        for old, new in zip(fixed, fresh, strict=True):
            old.copy_(new)

    return replay, result


class Captures(list):
    """Every computation that was captured; replays compute anew."""

    def __call__(self, compute):
        self.append(compute)
        return recorded(compute)


def assert_turns_are_independent(step, plain, start, videos):
    """Two videos (2, T, 1, 3, H, W) stepped in turns give what each gives alone."""
    states = [start() for _ in videos]
    for t in range(videos.shape[1]):
        for i, frames in enumerate(videos):
            logits, states[i] = step(frames[t], states[i])
            alone = start()
            for frame in frames[: t + 1]:
                expected, alone = plain(frame, alone)
            assert torch.equal(logits, expected), f"video {i}, frame {t}"


@pytest.mark.parametrize(
    "words", [["--method", "single"], [], ["--model-struct", "original_kv_fusion"]], ids=" ".join
)
def test_replayed_steps_keep_state_a_value_so_two_videos_may_be_stepped_in_turns(words):
    model = network("--backbone", "erf", "--shallow-dec", *words)
    captured = Captures()
    step = GraphedStep(model.step, captured)
    videos = torch.stack([video(model, 7, seed, batch=1)[0] for seed in (5, 6)])[:, :, None]
    with torch.inference_mode():
        assert_turns_are_independent(step, model.step, model.start, videos)
    assert captured


@dataclass(frozen=True)
class Memory:
    """A state of many forms: a tensor, a tuple of pairs, a table and a switch."""

    last: torch.Tensor
    pairs: tuple
    table: dict
    switch: bool = True


def step_of_many_forms(frame, state, flow=None, key=None):
    if state is None:
        state = Memory(frame, ((frame, 2 * frame),), {"sum": frame}, False)
    logits = frame + state.last + state.pairs[0][1] + state.table["sum"] - int(state.switch)
    table = {"sum": state.table["sum"] / 2 + frame}
    return logits, Memory(frame / 3, ((state.last, logits),), table, True)


def test_any_state_of_tensors_is_replayed():
    captured = Captures()
    step = GraphedStep(step_of_many_forms, captured)
    with torch.inference_mode():
        assert_turns_are_independent(
            step, step_of_many_forms, lambda: None, torch.rand(2, 6, 1, 3, 4, 5)
        )
    assert captured, "None, then False in the state, then True: the third form comes again"


def test_key_frames_with_their_dataclass_state_are_replayed_apart():
    model = KeyFrames(ToyBackbone(5)).eval()
    captured = Captures()
    graphed = GraphedStep(model.step, captured)
    frames = torch.rand(9, 1, 3, 16, 24)
    state = alone = None
    with torch.inference_mode():
        for t, frame in enumerate(frames):
            logits, state = graphed(frame, state, None, t % 3 == 0)
            expected, alone = model.step(frame, alone, None, t % 3 == 0)
            assert torch.equal(logits, expected)
    assert len(captured) == 2, "one graph for key frames, one for the others"


def test_a_state_that_counts_frames_is_stepped_as_it_is():
    step = GraphedStep(lambda frame, state, flow, key: (frame, (state or 0) + 1), Captures())
    state = 0
    for _ in range(2 * KINDS):
        _, state = step(torch.rand(1, 3, 8, 8), state)
    assert state == 2 * KINDS and not step.graphs and len(step.met) == KINDS


def test_a_state_is_taken_apart_and_put_together_again():
    state = Memory(torch.ones(1), (torch.zeros(2), [3, None]), {"a": (torch.ones(3),)}, False)
    tensors, structure = flatten(state)
    assert [len(tensor) for tensor in tensors] == [1, 2, 3]
    again = unflatten(tensors, structure)
    assert again.pairs[1] == [3, None] and again.switch is False
    assert again.table["a"][0] is state.table["a"][0]
    assert flatten(again)[1] == structure and hash(structure) == hash(flatten(again)[1])


@pytest.mark.parametrize("strip", [0, 12_000])
@pytest.mark.parametrize("wide", [0, 256])
def test_strips_and_tiles_of_any_size_read_the_same_and_have_the_same_gradients(
    monkeypatch, strip, wide
):
    """The constants of the tiled form are chosen for speed alone."""
    from models.ops import local_attention, local_attention_tiled

    generator = torch.Generator().manual_seed(0)

    def maps(channels):
        return torch.randn(
            2, channels, 13, 37, generator=generator, dtype=torch.float64, requires_grad=True
        )

    query, keys, values = maps(3), [maps(3), maps(3)], [maps(4), maps(4)]
    constant = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)

    def outcome(backend):
        read = local_attention(query, keys, values, 7, constant, backend=backend)
        weights = torch.linspace(0, 1, read.numel(), dtype=read.dtype).view_as(read)
        return read, *torch.autograd.grad((read * weights).sum(), [query, *keys, *values, constant])

    expected = outcome("reference")
    monkeypatch.setattr(local_attention_tiled, "STRIP", strip)
    monkeypatch.setattr(local_attention_tiled, "WIDE", wide)
    for ours, theirs in zip(outcome("tiled"), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
