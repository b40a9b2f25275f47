"""Weights fit or the run stops (utils/checkpoint.py: load_weights)."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from golden import case, weights
from models.backbones.erfnet import ERFNet
from models.backbones.fcn import ResNet50V1c
from models.backbones.pspnet import PSPNet18, PSPNet50
from models.keymaps import KeyMap
from models.single import SingleFrame
from utils.checkpoint import load_weights, read, save


def same(a: dict, b: dict) -> bool:
    """The same entries, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Small(nn.Module):
    """A method in little: a backbone with an auxiliary head, and a part of its own."""

    def __init__(self, classes: int = 4, *, auxiliary: bool = True, memory: bool = True):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "body": nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
                "cls": nn.Conv2d(8, classes, 1),
            }
        )
        if auxiliary:
            self.backbone["aux"] = nn.Conv2d(8, classes, 1)
        if memory:
            self.memory = nn.Linear(2, 2)

    def key_maps(self):
        return [
            KeyMap(
                "published",
                ((r"trunk\.(.+)", r"body.\1"), (r"((?:cls|aux)\..+)", r"\1"), (r"fc\.bias", None)),
                covers=r"(?:body|cls)\..+",
            ).prefixed("backbone."),
            KeyMap(
                "published body",
                ((r"trunk\.(.+)", r"body.\1"), (r"fc\.bias", None)),
                covers=r"body\..+",
            ).prefixed("backbone."),
        ]


def published(model: Small) -> dict:
    """The backbone's weights as the original names them."""
    return {
        re.sub(r"^body", "trunk", key): value for key, value in model.backbone.state_dict().items()
    }


def write(path: Path, content) -> Path:
    torch.save(content, path)
    return path


WRAPPERS = {
    "bare": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 1},
    "model": lambda state: {"model": state},
    "optimizer": lambda state: {"optimizer": {"state": {}}, "state_dict": state},
    "meta": lambda state: {"meta": {"CLASSES": ("a", "b")}, "state_dict": OrderedDict(state)},
}


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("names", ["own", "published"])
def test_every_wrapping_of_either_naming_loads(tmp_path, wrapper, prefix, names):
    source, model = Small(), Small()
    state = source.state_dict() if names == "own" else published(source)
    path = write(
        tmp_path / "c.pth", WRAPPERS[wrapper]({prefix + key: value for key, value in state.items()})
    )
    report = load_weights(model, path)
    assert same(dict(model.backbone.state_dict()), dict(source.backbone.state_dict()))
    assert report.maps == ("our names" if names == "own" else "published",)
    assert report.loaded == len(state)
    assert report.new == (() if names == "own" else ("memory.weight", "memory.bias"))


def test_the_report_is_one_line_that_says_it_all(tmp_path):
    path = write(tmp_path / "c.pth", published(Small()) | {"fc.bias": torch.ones(1)})
    assert str(load_weights(Small(), path)) == (
        f"loaded 11 of 13 entries from {path} (published); new: 2 (memory.weight, memory.bias); not used: 1 (fc.bias)"
    )


def test_the_table_that_matches_most_is_taken(tmp_path):
    state = published(Small())
    body = {key: value for key, value in state.items() if key.startswith("trunk")}
    assert load_weights(Small(), write(tmp_path / "b.pth", body)).maps == ("published body",)
    assert load_weights(Small(), write(tmp_path / "w.pth", state)).maps == ("published",)


def test_several_files_make_one_model_and_the_last_counts(tmp_path):
    first, second, model = Small(), Small(), Small()
    memory = {key: value for key, value in second.state_dict().items() if key.startswith("memory")}
    paths = [write(tmp_path / "a.pth", published(first)), str(write(tmp_path / "b.pth", memory))]
    report = load_weights(model, paths, complete=True)
    assert (
        report.files == tuple(map(str, paths))
        and report.maps == ("published", "our names")
        and report.new == ()
    )
    assert same(dict(model.state_dict()), dict(first.state_dict()) | memory)
    load_weights(model, [paths[0], write(tmp_path / "c.pth", published(second))])
    assert same(dict(model.backbone.state_dict()), dict(second.backbone.state_dict()))


def test_half_precision_is_cast_and_counters_may_be_missing(tmp_path):
    source, model = Small(), Small()
    state = {
        key: value.half()
        for key, value in source.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    report = load_weights(model, write(tmp_path / "c.pth", state), complete=True)
    assert report.new == ("backbone.body.1.num_batches_tracked",)
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    torch.testing.assert_close(
        model.backbone["cls"].weight, source.backbone["cls"].weight, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("names", ["own", "published"])
@pytest.mark.parametrize("in_file, in_model", [(True, False), (False, True)])
def test_an_auxiliary_head_may_be_in_the_file_or_the_model_alone(
    tmp_path, in_file, in_model, names
):
    source, model = Small(auxiliary=in_file), Small(auxiliary=in_model)
    state = source.state_dict() if names == "own" else published(source)
    memory = write(
        tmp_path / "m.pth", {"memory.weight": torch.ones(2, 2), "memory.bias": torch.ones(2)}
    )
    report = load_weights(model, [write(tmp_path / "c.pth", state), memory], complete=True)
    assert all("aux" in key for key in (*report.new, *report.unused))
    assert len(report.new) == 2 * in_model and len(report.unused) == 2 * in_file


BAD_FILES = {
    "unknown entry": (
        lambda state: state | {"trunk.9.weight": torch.ones(1)},
        "1 unknown .*trunk.9.weight",
    ),
    "no part of an auxiliary head": (
        lambda state: state | {"aux.7.weight": torch.ones(1)},
        "unknown.*aux.7.weight",
    ),
    "other classes": (
        lambda state: published(Small(7)),
        r"cls.weight is \[7, 8, 1, 1\], not \[4, 8, 1, 1\].*it has 7 outputs .classes., the model 4",
    ),
    "other shape": (
        lambda state: state | {"trunk.0.weight": torch.ones(8, 3, 5, 5)},
        r"5, 5\], not \[8, 3, 3, 3\]",
    ),
    "half a file": (
        lambda state: dict(list(state.items())[:4]),
        "missing .*backbone.body.1.running_var.*incomplete",
    ),
    "one entry short": (
        lambda state: {key: value for key, value in state.items() if key != "cls.bias"},
        "1 missing .backbone.cls.bias.*incomplete",
    ),
    "another network": (
        lambda state: {"conv.weight": torch.ones(1)},
        "unknown.*conv.weight.*another --backbone",
    ),
    "twice": (lambda state: state | {"module.cls.bias": torch.ones(4)}, "cls.bias twice"),
    "nothing": (lambda state: {}, "no weights: found nothing"),
    "no tensors": (lambda state: {"epoch": 1}, "no weights: found epoch"),
    "a tensor": (lambda state: torch.ones(2), "no weights: found a Tensor"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("position", [0, 1])
def test_a_bad_file_is_one_helpful_line_and_leaves_the_model_alone(tmp_path, kind, position):
    spoil, words = BAD_FILES[kind]
    model = Small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    paths = [write(tmp_path / "good.pth", published(Small()))]
    paths.insert(position, write(tmp_path / "bad.pth", spoil(published(Small()))))
    with pytest.raises(ValueError, match=words) as caught:
        load_weights(model, paths)
    assert "\n" not in str(caught.value) and "bad.pth" in str(caught.value)
    assert same(before, dict(model.state_dict()))


def test_our_own_files_must_hold_their_parts_whole(tmp_path):
    state = Small().state_dict()
    single = {key: value for key, value in state.items() if key.startswith("backbone.")}
    assert load_weights(Small(), write(tmp_path / "a.pth", single)).new == (
        "memory.weight",
        "memory.bias",
    )
    del state["memory.bias"]
    with pytest.raises(ValueError, match="1 missing .memory.bias"):
        load_weights(Small(), write(tmp_path / "b.pth", state))


def test_evaluation_needs_every_entry(tmp_path):
    path, model = write(tmp_path / "c.pth", published(Small())), Small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"not complete without 2 \(memory.weight, memory.bias\)"):
        load_weights(model, path, complete=True)
    assert same(before, dict(model.state_dict()))
    with pytest.raises(ValueError, match="no file"):
        load_weights(model, [], complete=True)
    assert load_weights(Small(memory=False), path, complete=True).new == ()


def test_a_model_without_tables_reads_its_own_names(tmp_path):
    source, model = nn.Linear(2, 2), nn.Linear(2, 2)
    load_weights(model, write(tmp_path / "c.pth", source.state_dict()))
    assert same(dict(model.state_dict()), dict(source.state_dict()))


# Real files and real networks


def test_resnet18_of_torchvision_starts_a_pspnet18(shared):
    path = shared / "weights" / "resnet18_imagenet1k_v1_fp16.pth"
    model, source = SingleFrame(PSPNet18(19)), read(path)
    report = load_weights(model, path)
    assert report.loaded == 120 and report.unused == ("fc.weight", "fc.bias")
    assert all(
        key.startswith(("backbone.ppm.", "backbone.cls.", "backbone.aux.")) for key in report.new
    )
    torch.testing.assert_close(model.backbone.layer0[0].weight, source["conv1.weight"].float())
    torch.testing.assert_close(
        model.backbone.layer4[1].bn2.running_var, source["layer4.1.bn2.running_var"].float()
    )
    with pytest.raises(ValueError, match="not complete without"):
        load_weights(model, path, complete=True)


def test_a_fitted_stem_and_the_layers_of_torchvision_make_a_resnet50_v1c(shared, tmp_path):
    import torchvision

    source = torchvision.models.resnet50()
    body = write(tmp_path / "resnet50.pth", source.state_dict())
    model = SingleFrame(ResNet50V1c(11))
    report = load_weights(model, [shared / "weights" / "resnet50_v1c_stem_fp32.pth", body])
    assert report.loaded == 330 and all(
        key.startswith(("backbone.head.", "backbone.aux")) for key in report.new
    )
    torch.testing.assert_close(model.backbone.layer3[2].conv2.weight, source.layer3[2].conv2.weight)
    assert len(report.unused) == 8  # conv1, bn1, fc


def test_weights_for_other_classes_or_of_other_backbones_are_called_so(tmp_path):
    pspnet = write(tmp_path / "psp.pth", {"epoch": 200, "state_dict": PSPNet18(19).state_dict()})
    with pytest.raises(
        ValueError, match="it has 19 outputs .classes., the model 11: choose the data set"
    ):
        load_weights(SingleFrame(PSPNet18(11)), pspnet)
    for network in (ERFNet(19), PSPNet50(19), ResNet50V1c(19)):
        with pytest.raises(ValueError, match="is it of another --backbone") as caught:
            load_weights(SingleFrame(network), pspnet)
        assert len(str(caught.value)) < 900
    erfnet = weights(case("lma/erfnet_64x128").info)
    with pytest.raises(ValueError, match="it has 20 outputs"):
        load_weights(SingleFrame(ERFNet(11)), write(tmp_path / "erf.pth", erfnet))
    encoder = {key: value for key, value in erfnet.items() if key.startswith("encoder.")}
    report = load_weights(SingleFrame(ERFNet(19)), write(tmp_path / "encoder.pth", encoder))
    assert all(key.startswith("backbone.decoder.") for key in report.new) and report.maps == (
        "ERFNet's encoder",
    )


def test_what_training_saves_comes_back_and_is_complete(tmp_path):
    source, model = SingleFrame(ERFNet(5)), SingleFrame(ERFNet(5))
    save(tmp_path / "c.pth", {"state_dict": source.state_dict(), "epoch": 1})
    report = load_weights(model, tmp_path / "c.pth", complete=True)
    assert report.new == report.unused == () and report.maps == ("our names",)
    assert same(dict(source.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("backbone", [ERFNet, PSPNet18])
def test_a_memory_beside_other_classes_keeps_all_but_the_classifiers(tmp_path, backbone):
    from models.lma import LMANet

    source, target = (
        LMANet(backbone(7), struct="aux_mem_loss"),
        LMANet(backbone(4), struct="aux_mem_loss"),
    )
    save(tmp_path / "seven.pth", source.state_dict())
    with pytest.raises(ValueError, match="--new-classes"):
        load_weights(target, tmp_path / "seven.pth")
    report = load_weights(target, tmp_path / "seven.pth", new_classes=True)
    assert {key.rpartition(".")[0] for key in report.new} <= {
        "backbone.decoder.output_conv",
        "decoder_mem.output_conv",
        "backbone.cls.4",
        "backbone.aux.4",
        "decoder_mem.cls.4",
    }
    assert 2 <= len(report.new) <= 6
