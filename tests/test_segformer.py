"""SegFormer: what it is made of, which sizes it takes, which files it reads, which methods it
carries."""

from __future__ import annotations

import importlib.util
import json
import os
import struct

import pytest
import torch
from torch import nn

import main
from laws import assert_stream_equals_clip, video
from models import build_model
from models.backbones.mit import Attention, Block, DropPath, PatchEmbedding
from models.backbones.segformer import MiTB0, MiTB1, MiTB2, MiTB3, MiTB4, MiTB5
from models.single import SingleFrame
from segformer_names import mmcv_names, random_state, smp_names, transformers_names
from utils.checkpoint import load_weights

SMALL = (37, 53)


def built(*words: str, job: str = "--training", classes: int = 5) -> nn.Module:
    args = main.parse_args([job, "--backbone", "mit_b0", "--savedir", "unused", *words])
    return build_model(args, classes).eval()


def randomized(classes: int = 5) -> MiTB0:
    backbone = MiTB0(classes).eval()
    random_state(backbone)
    return backbone


# What it is made of


@pytest.mark.parametrize(
    "cls, encoder, width",
    [
        (MiTB0, 3_319_392, 256),
        (MiTB1, 13_151_424, 256),
        (MiTB2, 24_196_288, 768),
        (MiTB3, 44_072_128, 768),
        (MiTB4, 60_842_688, 768),
        (MiTB5, 81_443_008, 768),
    ],
)
def test_encoders_have_their_published_sizes(cls, encoder, width):
    with torch.device("meta"):
        backbone = cls(19)
    parts = backbone.encoder_parts()
    assert sum(p.numel() for part in parts for p in part.parameters()) == encoder
    assert backbone.embedding_channels == width


@pytest.mark.parametrize("cls, millions", [(MiTB0, 3.8), (MiTB1, 13.7), (MiTB2, 27.5)])
def test_networks_have_their_published_sizes(cls, millions):
    """For the 150 classes of ADE20K: SegFormer's paper, table 1."""
    with torch.device("meta"):
        backbone = cls(150)
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_each_norm_has_its_published_eps():
    backbone = MiTB0(3)
    blocks = [module for module in backbone.modules() if isinstance(module, Block)]
    assert len(blocks) == 8
    for block in blocks:
        assert block.norm1.eps == block.norm2.eps == 1e-6
    assert {backbone.get_submodule(f"norm{stage}").eps for stage in range(1, 5)} == {1e-6}
    embeddings = [m for m in backbone.modules() if isinstance(m, PatchEmbedding)]
    reducing = [m for m in backbone.modules() if isinstance(m, Attention) and m.reduces]
    assert len(embeddings) == 4 and len(reducing) == 6
    assert {module.norm.eps for module in (*embeddings, *reducing)} == {1e-5}
    assert backbone.linear_fuse.bn.eps == 1e-5 and backbone.linear_fuse.bn.momentum == 0.1


def test_residuals_are_dropped_more_often_the_deeper_they_lie():
    rates = [module.rate for module in MiTB0(3).modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 8).tolist())


def test_a_dropped_residual_is_zero_and_the_others_keep_the_mean():
    drop = DropPath(0.25).train()
    dropped = drop(torch.ones(4000, 1, 1, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(dropped[..., 0], dropped[..., 1]), "whole samples"
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(3, 2)), torch.ones(3, 2))


@torch.no_grad()
def test_attention_is_what_its_formula_says():
    attention = Attention(6, heads=2, reduction=1)
    x = torch.randn(1, 2, 3, 6)
    key, value = attention.kv(x).flatten(1, 2).chunk(2, -1)
    query = attention.q(x).flatten(1, 2)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 3**0.5
        heads.append(scores.softmax(-1) @ value[..., part])
    expected = attention.proj(torch.cat(heads, -1)).view(1, 2, 3, 6)
    torch.testing.assert_close(attention(x), expected)


@torch.no_grad()
def test_the_head_gives_what_the_published_order_of_its_layers_gives():
    """Projected, enlarged, put side by side from the coarsest on, and convolved."""
    backbone = randomized()
    features = backbone.encode(torch.rand(2, 3, *SMALL))
    size = features.stages[0].shape[-2:]
    maps = []
    for stage in (4, 3, 2, 1):
        tokens = features.stages[stage - 1].permute(0, 2, 3, 1)
        x = backbone.get_submodule(f"linear_c{stage}").proj(tokens).permute(0, 3, 1, 2)
        maps.append(nn.functional.interpolate(x, size, mode="bilinear", align_corners=False))
    fuse = backbone.linear_fuse
    expected = fuse.bn(fuse.conv(torch.cat(maps, 1))).relu()
    torch.testing.assert_close(backbone.embed(features), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_head_reads_last_and_the_finer_stages():
    backbone = randomized()
    features = backbone.encode(torch.rand(1, 3, *SMALL))
    logits = backbone.decode(features)
    for stage in range(4):
        stages = list(features.stages)
        stages[stage] = 2 * stages[stage]
        changed = backbone.decode(features._replace(stages=tuple(stages)))
        assert torch.equal(changed, logits) == (stage == 3)
    assert not torch.allclose(backbone.decode(features._replace(last=2 * features.last)), logits)


@torch.no_grad()
def test_every_size_from_29_on_works_and_gives_a_quarter_rounded_up():
    backbone = MiTB0(2).eval()
    for side in range(29, 97, 7):
        logits = backbone(torch.rand(1, 3, side, 125 - side))
        assert logits.shape == (1, 2, -(-side // 4), -(-(125 - side) // 4))
    assert backbone.size_rule.fit(1) == 29
    with pytest.raises(RuntimeError):
        backbone(torch.rand(1, 3, 28, 64))


# Files


def loaded(tmp_path, state, classes: int = 5):
    path = tmp_path / "published.pth"
    torch.save(state, path)
    model = SingleFrame(MiTB0(classes)).eval()
    return model, load_weights(model, path)


FORMS = {
    "SegFormer (NVIDIA, mmcv)": mmcv_names,
    "SegFormer (segmentation-models)": smp_names,
    "SegFormer (transformers)": lambda backbone: transformers_names(backbone, recent=False),
    "as transformers' modules are called": lambda b: transformers_names(b, recent=True),
    "our names": lambda b: {f"backbone.{key}": value for key, value in b.state_dict().items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_form_give_the_same_network(form, tmp_path):
    source = randomized()
    model, report = loaded(tmp_path, FORMS[form](source))
    assert report.new == report.unused == ()
    ours = model.backbone.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in source.state_dict().items())


@pytest.mark.parametrize("form", list(FORMS)[:4])
def test_half_a_file_is_refused(form, tmp_path):
    state = FORMS[form](randomized())
    for lost in list(state)[7::80]:
        part = {key: value for key, value in state.items() if key != lost}
        with pytest.raises(ValueError, match="does not fit the model"):
            loaded(tmp_path, part)


def test_safetensors_are_read(tmp_path):
    source = randomized()
    table, data = {}, b""
    for key, value in transformers_names(source, recent=False).items():
        raw = value.contiguous().numpy().tobytes()
        dtype = "I64" if value.dtype == torch.int64 else "F32"
        offsets = [len(data), len(data) + len(raw)]
        table[key] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    head = json.dumps(table).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    model = SingleFrame(MiTB0(5))
    assert load_weights(model, path, complete=True).new == ()
    assert torch.equal(model.backbone.linear_pred.weight, source.linear_pred.weight)


def with_group_norm(backbone) -> dict[str, torch.Tensor]:
    """The file of a network whose head has the other norm."""
    state = {key: v for key, v in mmcv_names(backbone).items() if ".bn.running" not in key}
    del state["decode_head.linear_fuse.bn.num_batches_tracked"]
    return {key.replace("fuse.bn.", "fuse.gn."): value for key, value in state.items()}


@torch.no_grad()
def test_the_keys_of_a_file_choose_the_norm_of_the_head(tmp_path):
    model, report = loaded(tmp_path, with_group_norm(randomized()))
    assert report.new == ()
    assert isinstance(model.backbone.linear_fuse.gn, nn.GroupNorm)
    assert model.backbone.linear_fuse.gn.num_groups == 1
    # and back, from our own file of either
    batch = {f"backbone.{key}": value for key, value in randomized().state_dict().items()}
    group = model.state_dict()
    for state, name in ((batch, "bn"), (group, "gn")):
        torch.save(state, tmp_path / "ours.pth")
        assert load_weights(model, tmp_path / "ours.pth", complete=True).new == ()
        assert model.backbone.linear_fuse.norm_name == name
    fresh = SingleFrame(MiTB0(5))
    fresh.load_state_dict(group)
    frame = torch.rand(1, 1, 3, *SMALL)
    torch.testing.assert_close(fresh.eval()(frame), model(frame))


def test_an_optimizer_goes_on_with_the_norm_that_a_checkpoint_brings():
    model = SingleFrame(MiTB0(5))
    (held,) = [p for p in model.parameters() if p is model.backbone.linear_fuse.bn.weight]
    other = SingleFrame(MiTB0(5))
    other.follow_keys(["decode_head.linear_fuse.gn.weight"])
    model.load_state_dict(other.state_dict())
    assert model.backbone.linear_fuse.gn.weight is held


def test_a_refused_file_leaves_the_norm_as_it_was(tmp_path):
    state = with_group_norm(randomized())
    del state["backbone.norm4.bias"]
    torch.save(state, tmp_path / "broken.pth")
    model = SingleFrame(randomized())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="norm4"):
        load_weights(model, tmp_path / "broken.pth")
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_encoders_of_other_trainings_are_a_start(tmp_path, shared):
    path = shared / "weights" / "mit_b0_meyelens_nvkeys_fp16.pth"
    report = load_weights(SingleFrame(MiTB0(11)), path)
    assert report.loaded == 176 and report.maps == ("Mix Transformer",)
    assert {key.split(".")[1] for key in report.new} == {
        *(f"linear_c{stage}" for stage in range(1, 5)),
        "linear_fuse",
        "linear_pred",
    }
    source = randomized()
    states = {
        "Mix Transformer": {
            key: value
            for key, value in source.state_dict().items()
            if not key.startswith("linear_")
        },
        "Mix Transformer (transformers)": {
            key: value
            for key, value in transformers_names(source, recent=False).items()
            if key.startswith("segformer.")
        },
    }
    for name, state in states.items():
        head = "head" if name == "Mix Transformer" else "classifier"
        state |= {f"{head}.weight": torch.zeros(1000, 256), f"{head}.bias": torch.zeros(1000)}
        model, report = loaded(tmp_path, state)
        assert report.maps == (name,)
        assert report.unused == (f"{head}.weight", f"{head}.bias")
        assert torch.equal(model.backbone.block4[1].attn.kv.bias, source.block4[1].attn.kv.bias)


@torch.no_grad()
def test_transformers_computes_the_same(tmp_path):
    if importlib.util.find_spec("transformers") is None:
        reason = "transformers is not installed (requirements-dev.txt)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=5)).eval()
    random_state(theirs)
    frame = torch.rand(1, 3, 64, 96)
    theirs.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "modules.pth")
    for file in ("model.safetensors", "modules.pth"):
        model = SingleFrame(MiTB0(5)).eval()
        load_weights(model, tmp_path / file, complete=True)
        expected = theirs(model.backbone.normalize(frame)).logits
        torch.testing.assert_close(model(frame[:, None]), expected, rtol=1e-4, atol=1e-4)


# Methods


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
def test_stream_equals_clip(method):
    assert_stream_equals_clip(built("--method", method), size=SMALL)


@pytest.mark.parametrize("words", ["flow --propagate gsv", "smooth --flow light"])
def test_stream_equals_clip_with_flow(words):
    model = built("--method", *words.split(), job="--eval-mode")
    assert_stream_equals_clip(model, size=SMALL)


@pytest.mark.parametrize("method", ["single", "lma", "tma"])
def test_what_is_trained_gets_gradients(method):
    model = built("--method", method).train()
    clip = video(model, 1 - min(model.offsets, default=0), seed=3, size=SMALL)
    labels = torch.randint(0, 5, (*clip.shape[:2], *clip.shape[-2:]))
    sum(model.losses(clip, labels).values()).backward()
    learnt = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learnt
    assert [name for name in learnt if model.get_parameter(name).grad is None] == []


def test_etc_is_trained_on_it():
    model = built("--method", "etc").train()
    clip = torch.rand(2, 2, 3, *SMALL)
    labels = torch.randint(0, 5, (2, 2, *SMALL))
    terms = model.losses(clip, labels, torch.zeros(2, 1, 2, *SMALL))
    assert set(terms) == {"ce", "motion"} and terms["motion"] > 0
    (gradient,) = torch.autograd.grad(
        terms["motion"], [model.backbone.block1[0].attn.q.weight], retain_graph=True
    )
    assert gradient.abs().max() > 0
    sum(terms.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_memory_reads_the_coarsest_map():
    model = built("--method", "lma")
    assert model.memory.size == 7, "about as wide as 21 cells at 1/8"
    clip = video(model, 4, seed=4, size=(64, 96))
    with torch.no_grad():
        output = model.frame_outputs(clip)[-1]
    assert output.fused.last.shape == output.features.last.shape == (2, 256, 2, 3)
    pairs = zip(output.fused.stages, output.features.stages, strict=True)
    assert all(fused is own for fused, own in pairs)


def test_norms_of_the_encoder_do_not_decay_and_the_head_learns_ten_times_as_fast():
    model = built("--method", "single")
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {
        (round(group["lr"], 9), group["weight_decay"]): [names[id(p)] for p in group["params"]]
        for group in model.parameter_groups(6e-5, 0.01)
    }
    assert set(groups) == {(6e-5, 0.01), (6e-5, 0.0), (6e-4, 0.01)}
    assert all("norm" in name for name in groups[6e-5, 0.0])
    assert not any("norm" in name or "linear_" in name for name in groups[6e-5, 0.01])
    assert all(name.startswith("backbone.linear_") for name in groups[6e-4, 0.01])


def test_the_head_is_as_wide_as_options_say():
    assert built("--method", "single", "--head-channels", "32").backbone.embedding_channels == 32
