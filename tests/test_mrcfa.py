"""VSS-MRCFA on any backbone with maps at 1/4 to 1/32: laws, sizes, options, files, training."""

from __future__ import annotations

import json
import random

import pytest
import torch
import torch.nn.functional as F

import main
from command import assert_one_line, call, perform
from datasets import build_dataset
from laws import assert_stream_equals_clip, video
from models import build_model
from models.deploy import for_inference
from models.parts.affinity import CrossFrameAffinity
from segformer_names import random_state
from trees import make_cityscapes
from utils.checkpoint import load_weights, save_published

SMALL = (64, 96)  # six cells of 32 x 32
SHORT = ("--offsets", "-3", "-2", "-1")


def built(*words: str, backbone: str = "mit_b0", classes: int = 5):
    base = ["--training", "--method", "mrcfa", "--backbone", backbone, "--savedir", "unused"]
    return build_model(main.parse_args([*base, *words]), classes).eval()


def labels_for(clip: torch.Tensor, classes: int = 5) -> torch.Tensor:
    return torch.randint(0, classes, (*clip.shape[:2], *clip.shape[-2:]))


# In a stream


@pytest.mark.parametrize(
    "words, backbone",
    [
        (SHORT, "mit_b0"),
        (("--offsets", "-3", "-1", "--ref-size", "1_16"), "mit_b0"),
        (("--offsets", "-2", "-1", "--affinity-convs", "2"), "swiftnet18"),
        (("--offsets", "-1"), "swiftnet18_pyramid"),
    ],
)
def test_stream_equals_clip(words, backbone):
    assert_stream_equals_clip(built(*words, backbone=backbone), size=SMALL)


@torch.no_grad()
def test_each_frame_of_a_stream_is_encoded_once_and_its_state_does_not_grow():
    model = built()
    encode = model.backbone.encode
    calls = []
    model.backbone.encode = lambda frame: calls.append(1) or encode(frame)
    state = model.start()
    for frame in torch.rand(12, 1, 3, *SMALL):
        _, state = model.step(frame, state)
    assert len(calls) == 12
    assert len(state.entries) == 9
    keys, values = state.entries[0]
    assert [tuple(key.shape) for key in keys] == [(1, 2, 3, c) for c in (64, 160, 256)]
    assert values.shape == (1, 256, 2, 3)


@torch.no_grad()
def test_inference_computes_no_head_that_only_training_needs():
    model = built(*SHORT)
    used = set()
    for name in ("deco1", "deco2", "deco3", "deco4", "backbone.linear_pred"):
        hook = model.get_submodule(name).register_forward_hook
        hook(lambda *_, name=name: used.add(name))
    model(video(model, 1, 1, SMALL))
    assert used == {"backbone.linear_pred"}
    used.clear()
    model(video(model, 4, 1, SMALL))
    assert used == {"deco4"}


def test_near_the_start_frames_are_closer_together_and_the_first_ones_stand_alone():
    model = built("--offsets", "-6", "-2")
    found = [model.startup(past) for past in range(8)]
    assert found == [(), (), (), (-3, -1), (-4, -1), (-5, -1), (-6, -2), (-6, -2)]


@torch.no_grad()
def test_the_order_of_references_does_not_matter_and_their_number_may_differ():
    model = built(*SHORT)
    clip = video(model, 4, 2, SMALL)
    torch.testing.assert_close(model(clip), model(clip[:, [2, 0, 1, 3]]), rtol=1e-4, atol=1e-5)
    doubled = model(clip[:, [0, 1, 0, 1, 3]])
    torch.testing.assert_close(model(clip[:, [0, 1, 3]]), doubled, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_network_prepared_for_inference_gives_the_same():
    model = built(*SHORT)
    random_state(model.backbone)
    clip = video(model, 4, 3, SMALL)
    expected = model(clip)
    torch.testing.assert_close(for_inference(model)(clip), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_affinities_are_float32_whatever_else_is_rounded():
    model = built(*SHORT)
    clip = video(model, 4, 3, SMALL)
    seen = []
    model.affinity.register_forward_hook(lambda _, inputs, found: seen.append((inputs, found)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.memory_entry(model.encode(clip[:, 0]))
        model(clip)
    assert [key.dtype for key in rounded.keys] == [torch.float32] * 3
    assert rounded.values.dtype == torch.bfloat16
    ((target, keys), found) = seen[0]
    assert {x.dtype for x in (*target, *keys[0], found.maps)} == {torch.float32}
    assert for_inference(model, dtype=torch.bfloat16)(clip).isfinite().all()
    assert {p.dtype for p in model.affinity.parameters()} == {torch.float32}
    assert model.backbone.block1[0].attn.q.weight.dtype == torch.bfloat16


def test_a_benchmark_counts_the_published_parameters(tmp_path):
    words = "--benchmark --method mrcfa --backbone mit_b0 --dataset vspw --device cpu --threads 1"
    words += " --work-size 64 96 --max-frames 12"
    perform(*words.split(), "--savedir", tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text())["parameters"] == 5_186_388


@torch.no_grad()
def test_where_a_pixel_attends_is_what_is_read_for_it():
    model = built(*SHORT)
    frames = video(model, 4, 5, SMALL, batch=1)
    state = model.start()
    assert model.attention(frames[:, 0], state, (0, 0)).shape[0] == 0
    for frame in frames[:, :3].unbind(1):
        state = model.observe(frame, state)
    weights = model.attention(frames[:, 3], state, (42, 17))
    assert weights.shape == (3, 2, 3) and weights.sum() == pytest.approx(1, abs=1e-5)
    values = torch.stack([entry.values[0] for entry in state.entries])  # (T, E, gh, gw)
    read = model.read(model.encode(frames[:, 3]), state.entries)[0].mean(0)
    expected = torch.einsum("tyx,teyx->e", weights, values)
    torch.testing.assert_close(read[:, 42 // 8, 17 // 8], expected, rtol=1e-4, atol=1e-5)


# Tokens


def affinity(**settings) -> CrossFrameAffinity:
    torch.manual_seed(1)
    return CrossFrameAffinity((4, 6, 8), **settings).eval()


def maps(height: int, width: int, seed: int) -> list[torch.Tensor]:
    """Maps at 1/8, 1/16 and 1/32 of a frame of so many cells of 32 x 32."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, channels, scale * height, scale * width, generator=generator)
        for channels, scale in ((4, 4), (6, 2), (8, 1))
    ]


@pytest.mark.parametrize("keep_ratio, kept", [(0.5, 3), (0.8, 4), (1.0, 6), (0.01, 1)])
@torch.no_grad()
def test_the_share_of_tokens_that_is_kept(keep_ratio, kept):
    network = affinity(keep_ratio=keep_ratio)
    keys = network.keys(network.reduce(maps(2, 3, 1)))
    found = network(maps(2, 3, 2), [keys, keys])
    assert found.maps.shape == (2, 2, kept, 8, 12)
    assert (found.kept.diff(dim=-1) > 0).all(), "in the order of the grid"


@torch.no_grad()
def test_tokens_are_chosen_by_their_best_places():
    network = affinity(topk=2)
    own, target = maps(2, 3, 1), maps(2, 3, 2)
    query = network.q3(target[2].permute(0, 2, 3, 1)).flatten(1, 2)
    key = network.k3(own[2].permute(0, 2, 3, 1)).flatten(1, 2)
    products = key @ query.transpose(1, 2)  # (B, N, X)
    for clip, found in enumerate(network(target, [network.keys(network.reduce(own))]).kept):
        scores = [sum(sorted(row, reverse=True)[:2]) for row in products[clip].tolist()]
        best = sorted(sorted(range(6), key=lambda token: -scores[token])[:3])
        assert found[0].tolist() == best


@torch.no_grad()
def test_on_a_finer_grid_products_and_scores_are_enlarged_first():
    """The published branch for grids that differ; no golden case reaches it."""
    network = affinity(grid="1_16")
    own, target = maps(2, 3, 1), maps(2, 3, 2)
    keys = network.keys(network.reduce(own))
    assert [tuple(key.shape[1:3]) for key in keys] == [(4, 6), (4, 6), (2, 3)]
    seen = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = network(target, [keys])
    query = network.q3(target[2].permute(0, 2, 3, 1))
    products = torch.einsum("bghc,bxyc->bxygh", keys[2], query)  # places, then tokens
    enlarged = F.interpolate(products.flatten(1, 2), (4, 6), mode="bilinear")  # (B, X, 4, 6)
    scores = products.flatten(1, 2).flatten(2).topk(5, 1).values.sum(1).view(2, 1, 2, 3)
    scores = F.interpolate(scores, (4, 6), mode="bilinear").flatten(1)
    kept = scores.topk(12, -1).indices.sort(-1).values
    assert torch.equal(found.kept[:, 0], kept)
    picture = enlarged.flatten(2).gather(2, kept[:, None].expand(-1, 6, -1))  # (B, X, S)
    expected = picture.transpose(1, 2).reshape(24, 1, 2, 3)
    torch.testing.assert_close(seen[0][2], expected)


@torch.no_grad()
def test_sizes_as_measured_on_the_original():
    model = built()
    for height, width in ((64, 96), (32, 160), (72, 96), (96, 104), (112, 144)):
        logits = model(torch.rand(1, 4, 3, height, width))
        assert logits.shape == (1, 5, height // 4, width // 4)
    for height, width in ((88, 96), (120, 160)):
        with pytest.raises(ValueError, match="two grids.*multiples of 32"):
            model(torch.rand(1, 4, 3, height, width))
    for height, width in ((64, 64), (32, 128)):
        with pytest.raises(ValueError, match="at least 5 cells"):
            model(torch.rand(1, 4, 3, height, width))
        assert model(torch.rand(1, 1, 3, height, width)).isfinite().all(), "alone any size works"
    assert str(model.size_rule) == "a multiple of 32"


# Options


@pytest.mark.parametrize(
    "words, reason",
    [
        ("--backbone erf", "1/8, 1/16 and 1/32"),
        ("--backbone mit_b0 --offsets -3 -6", "from the oldest frame to the newest"),
        ("--backbone mit_b0 --offsets -3 3", "below 0"),
        ("--backbone mit_b0 --keep-ratio 0", "no token"),
        ("--backbone mit_b0 --method single --stm-topk 3", "--method mrcfa only"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, reason):
    done = call("--training", "--method", "mrcfa", *words.split(), "--savedir", "unused")
    assert_one_line(done, reason)


def test_the_pairs_that_can_be_are_named(capsys):
    with pytest.raises(SystemExit):
        main.parse_args("--training --method mrcfa --backbone psp18 --savedir x".split())
    fits = [f"mit_b{size}" for size in range(6)]
    assert "swiftnet18, swiftnet18_pyramid, " + ", ".join(fits) in capsys.readouterr().err


@pytest.mark.parametrize(
    "backbone, keep_ratio, convolutions",
    [("mit_b0", 0.8, 1), ("mit_b1", 0.5, 2), ("mit_b2", 0.5, 1), ("mit_b5", 0.5, 1)],
)
def test_defaults_are_the_published_ones(backbone, keep_ratio, convolutions):
    args = main.parse_args(f"--training --method mrcfa --backbone {backbone} --savedir x".split())
    assert (args.keep_ratio, args.affinity_convs) == (keep_ratio, convolutions)
    assert args.offsets == (-9, -6, -3) and args.ref_size == "1_32" and args.stm_topk == 5
    assert args.head_channels == 256 and args.optimizer == "adamw" and args.loss_mean == "all"
    assert (args.lr_start, args.head_lr, args.lr_power, args.lr_warmup) == (6e-5, 10, 1, 1500)


# Training


@pytest.mark.parametrize("backbone", ["mit_b0", "swiftnet18"])
def test_what_is_trained_gets_gradients(backbone):
    model = built(*SHORT, backbone=backbone).train()
    clip = video(model, 4, 3, SMALL)
    sum(model.losses(clip, labels_for(clip)).values()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []


def test_a_clip_runs_backwards_half_of_the_time():
    model = built()
    rng = random.Random(0)
    drawn = [model.training_offsets(rng) for _ in range(400)]
    assert set(drawn) == {(-9, -6, -3), (9, 6, 3)}
    assert 150 < drawn.count((9, 6, 3)) < 250
    forwards = built("--time-reversal", "0")
    assert {forwards.training_offsets(rng) for _ in range(20)} == {(-9, -6, -3)}


def test_frames_without_labels_do_not_count_in_the_divisor():
    """Published for Cityscapes, where only the last frame has a label."""
    model = built(*SHORT)
    clip = video(model, 4, 3, SMALL)
    labels = labels_for(clip)
    labels[:, :, :8] = 255
    alone = labels.clone()
    alone[:, :3] = 255
    logits = model.upsample(model(clip[:, 3:]), SMALL)
    expected = F.cross_entropy(logits, labels[:, 3], ignore_index=255, reduction="none").mean()
    losses = model.losses(clip, alone)
    torch.testing.assert_close(losses["frames"], 0.5 * expected)
    torch.testing.assert_close(losses["ce"], model.losses(clip, labels)["ce"])


def test_clips_of_cityscapes_reach_to_either_side_and_have_one_label(tmp_path):
    """Where a snippet ends before nine frames, only the other side is left."""
    make_cityscapes(tmp_path / "whole", (16, 32), splits=("train",), cities=("aachen",))
    early = {"numbers": range(20), "splits": ("train",), "cities": ("aachen",)}
    make_cityscapes(tmp_path / "early", (16, 32), **early)
    base = "--training --method mrcfa --backbone mit_b0 --dataset cityscapes --savedir unused"
    for name, sides in (("whole", {(-9, -6, -3), (9, 6, 3)}), ("early", {(-9, -6, -3)})):
        args = main.parse_args([*base.split(), "--data-root", str(tmp_path / name)])
        with torch.device("meta"):
            draw = build_model(args, 19).training_offsets
        data = build_dataset(args, "train", draw=draw)
        drawn = {data.offsets(random.Random(n), 19, len(data.videos[0])) for n in range(20)}
        assert drawn == sides
        labels = data[0].labels
        assert (labels[:3] == 255).all() and (labels[3] != 255).any()


# Files


@pytest.mark.parametrize("words", [(), ("--affinity-convs", "2")])
def test_weights_are_written_in_the_published_form_and_read_again(words, tmp_path):
    model = built(*words)
    path = tmp_path / "published.pth"
    names = ["a", "b", "c", "d", "e"]
    assert save_published(model, path, classes=names, palette=[(1, 2, 3)] * 5) == "VSS-MRCFA"
    content = torch.load(path, weights_only=True)
    assert content["meta"]["CLASSES"] == names and content["meta"]["PALETTE"][4] == [1, 2, 3]
    again = built(*words)
    assert load_weights(again, path, complete=True).maps == ("VSS-MRCFA",)
    ours = model.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in again.state_dict().items())


def test_a_network_without_a_published_form_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="no published form"):
        save_published(built(backbone="swiftnet18"), tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_a_single_frame_network_is_a_start_and_is_written_as_segformer(tmp_path):
    words = "--training --method single --backbone mit_b0 --savedir unused".split()
    single = build_model(main.parse_args(words), 5)
    path = tmp_path / "segformer.pth"
    assert save_published(single, path) == "SegFormer (NVIDIA, mmcv)"
    report = load_weights(built(), path)
    assert {name.split(".")[0] for name in report.new} == {
        "affinity",
        "sr1_feat",
        *(f"deco{number}" for number in range(1, 5)),
    }
    torch.save(single.state_dict(), tmp_path / "ours.pth")
    assert load_weights(built(), tmp_path / "ours.pth").new == report.new
