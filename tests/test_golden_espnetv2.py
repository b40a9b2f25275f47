"""ESPNetv2 computes what the original computes, from filled weights and from published files."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import torch

from golden import ROOT, SHARED, assert_close, case, filling, weights, without_normalization
from models.backbones.espnetv2 import ESPNetv2S05, ESPNetv2S10, ESPNetv2S15, ESPNetv2S20
from models.deploy import for_inference
from models.single import SingleFrame
from utils.checkpoint import load_weights

BY_WIDTH = {0.5: ESPNetv2S05, 1.0: ESPNetv2S10, 1.5: ESPNetv2S15, 2.0: ESPNetv2S20}
FILLED = [
    "s0.5_32x48",
    "s0.5_64x96",
    "s0.5_95x127",
    "s0.5_112x144_b2",
    "s0.5_c12_48x80",
    "s2.0_64x128",
    "s2.0_112x80",
]
PUBLISHED = {"s0.5": "city_s0.5_filled_144x208", "s2.0": "city_s2.0_filled_128x256"}
NEVER_APPLIED = tuple(f"base_net.level{level}_0.eesp.module_act.weight" for level in (2, 3, 4))
# The module whose output is a map of the case
MAPS = {
    "l1": "base_net.level1",
    "l2": "base_net.level2_0",
    "l3_0": "base_net.level3_0",
    "l3": "base_net.level3",
    "l4_0": "base_net.level4_0",
    "l4": "base_net.level4",
    "p1": "bu_dec_l1",
    "m2": "bu_br_l2",
    "p2": "bu_dec_l2",
    "m3": "bu_br_l3",
    "p3": "bu_dec_l3",
    "m4": "bu_br_l4",
}


def published(golden, name: str = "") -> SingleFrame:
    """The network of a case with the file it names."""
    config = golden.info["config"]
    path = SHARED / "weights" / (name or config["weights"])
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == config["weights_sha256"]
    model = SingleFrame(BY_WIDTH[config["s"]](config["classes"])).eval()
    report = load_weights(model, path, complete=True)
    assert (report.loaded, report.new, report.unused) == (523, (), NEVER_APPLIED)
    return model


def computed(model: SingleFrame, frame: torch.Tensor) -> dict[str, torch.Tensor]:
    """All maps that a case may hold, by their names there."""
    backbone = model.backbone
    maps = {}

    def keep(name: str):
        return lambda module, inputs, output: maps.update({name: output})

    for name, module in MAPS.items():
        backbone.get_submodule(module).register_forward_hook(keep(name))
    features = backbone.encode(frame)
    maps["e"] = backbone.embed(features)
    maps["half"] = backbone.classify(maps["e"])
    maps["logits"] = model.upsample(maps["half"], frame.shape[-2:])
    for level, stage in zip((4, 3, 2), features.stages[:3], strict=True):
        maps[f"w{level}"] = backbone.get_submodule(f"merge_enc_dec_l{level}").gate(stage)
    return maps


def assert_maps(golden, model: SingleFrame, frame: torch.Tensor) -> None:
    """Every map of the case, and the labels where the two best logits are apart."""
    maps = computed(model, frame)
    for name, output in golden.info["outputs"].items():
        if "take" not in output:
            continue
        c, y, x = output["take"]
        assert list(maps[name].shape) == output["full_shape"], name
        assert_close(maps[name][:, ::c, ::y, ::x], golden.arrays[name])
    expected = torch.from_numpy(golden.arrays["pred"]).reshape(-1, *frame.shape[-2:])
    assert_labels(maps["logits"], expected)


def assert_labels(logits: torch.Tensor, expected: torch.Tensor) -> None:
    best, second = logits.topk(2, 1).values.unbind(1)
    decided = best - second > 1e-4 * logits.abs().max()
    assert decided.float().mean() > 0.99
    assert torch.equal(logits.argmax(1)[decided], expected[decided].long())


@pytest.mark.parametrize("name", FILLED)
@torch.no_grad()
def test_every_map_of_filled_networks(tmp_path, name):
    golden = case(f"esp/{name}")
    config = golden.info["config"]
    path = tmp_path / "published.pth"
    torch.save(weights(golden.info), path)
    model = SingleFrame(BY_WIDTH[config["s"]](config["classes"])).eval()
    report = load_weights(model, path, complete=True)
    assert (report.loaded, report.new, report.unused) == (523, (), NEVER_APPLIED)
    assert model.num_outputs == config["outputs"]
    frames = [filling().image(*item) for item in golden.info["inputs"].items()]
    assert_maps(golden, without_normalization(model), torch.cat(frames))


@pytest.mark.parametrize("name", PUBLISHED.values(), ids=PUBLISHED)
@torch.no_grad()
def test_published_files_on_filled_input(name):
    golden = case(f"esp/{name}")
    ((key, shape),) = golden.info["inputs"].items()
    model = without_normalization(published(golden))
    assert_maps(golden, model, filling().image(key, shape))


def camvid_frame(golden) -> torch.Tensor:
    """The case's frame (1, 3, H, W) in [0, 1], resized as the authors do."""
    from PIL import Image

    info = golden.info["inputs"]["frame"]
    image = Image.open(ROOT / "esp" / info["file"]).convert("RGB")
    assert hashlib.sha256(image.tobytes()).hexdigest() == info["sha256_of_rgb_bytes"]
    height, width = golden.info["config"]["work_size"]
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (
        hashlib.sha256(image.tobytes()).hexdigest()
        != (golden.info["config"]["sha256_of_resized_rgb_bytes"])
    ):
        pytest.skip("this version of Pillow resizes to other bytes")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("name", ["city_s0.5_camvid", "city_s2.0_camvid"])
@torch.no_grad()
def test_published_files_on_a_real_frame_with_their_own_normalisation(name):
    golden = case(f"esp/{name}")
    assert_maps(golden, published(golden), camvid_frame(golden))


@torch.no_grad()
def test_folding_of_dead_channels_changes_no_label():
    """This file holds running variances down to the smallest numbers that float32 has."""
    golden = case("esp/city_s2.0_camvid")
    model = published(golden)
    variances = [value for key, value in model.state_dict().items() if "running_var" in key]
    subnormal = torch.finfo(torch.float32).tiny
    assert any((value < subnormal).any() for value in variances)
    frame = camvid_frame(golden)
    plain = model(frame[:, None])
    folded = for_inference(copy.deepcopy(model))(frame[:, None])
    assert_close(folded, plain, 1e-5)
    labels = torch.from_numpy(golden.arrays["pred"])[None]
    assert_labels(model.upsample(folded, frame.shape[-2:]), labels)


@torch.no_grad()
def test_void_never_wins():
    golden = case("esp/city_s2.0_camvid")
    logits = published(golden)(camvid_frame(golden)[:, None])
    lead = logits[:, :19].amax(1) - logits[:, 19]
    # Before the logits are enlarged the lead differs a little from the stored one
    assert lead.min() > 0.9 * golden.info["config"]["smallest_lead_over_output_19"]


def camvid_counts(model: SingleFrame, part: str, every: int, size: tuple[int, int]) -> np.ndarray:
    """Pixels (20, 12) by prediction and label of every n-th frame of a part of CamVid."""
    from PIL import Image

    counts = np.zeros((20, 12), np.int64)
    for path in sorted((SHARED / "camvid" / part).glob("*.jpg"))[::every]:
        image = Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        frame = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        label = np.array(Image.open(SHARED / "camvid" / f"{part}annot" / f"{path.stem}.png"))
        logits = model.upsample(model(frame[:, None]), size)
        predicted = model.upsample(logits, label.shape).argmax(1)[0].numpy()
        counts += np.bincount(predicted.ravel() * 12 + label.ravel(), minlength=240).reshape(20, 12)
    return counts


def ious(counts: np.ndarray, class_map: list[int]) -> np.ndarray:
    """IoU of CamVid's 11 classes; class_map: of a prediction, 11 for "ignore"."""
    merged = np.zeros((12, 12), np.int64)
    np.add.at(merged, class_map, counts)
    merged = merged[:, :11]  # unlabelled pixels do not count
    right = np.diagonal(merged)
    return right / (merged[:11].sum(1) + merged.sum(0) - right)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "every"), [("val", 5), ("test", 8)])
@torch.no_grad()
def test_camvid_without_training_on_it(part, every):
    golden = case("esp/camvid_zero_shot")
    expected = golden.info["sets"][f"{part}_every{every}"]
    config = golden.info["config"]
    model = SingleFrame(ESPNetv2S20(19)).eval()
    load_weights(model, SHARED / "weights" / config["weights"], complete=True)
    counts = camvid_counts(model, part, every, tuple(config["work_size"]))
    theirs = np.array(expected["counts"])
    assert (counts.sum(0) == theirs.sum(0)).all()
    assert np.abs(counts - theirs).sum() < 1e-5 * theirs.sum()
    found = ious(counts, golden.info["class_map"])
    assert np.abs(found - expected["iou"]).max() < 1e-4
    assert found.mean() == pytest.approx(expected["miou"], abs=1e-4)
