"""Weights that do not fit the model are refused (utils/checkpoint: load_weights, network_of)."""

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
from models.lma import LMANet
from models.single import SingleFrame
from utils.checkpoint import load_weights, network_of, read, save


def same(a: dict, b: dict) -> bool:
    """The same entries, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Small(nn.Module):
    """A small method: a backbone with an auxiliary head, and a part of its own ("memory")."""

    def __init__(self, classes: int = 4, *, auxiliary: bool = True, memory: bool = True):
        super().__init__()
        body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.backbone = nn.ModuleDict({"body": body, "cls": nn.Conv2d(8, classes, 1)})
        if auxiliary:
            self.backbone["aux"] = nn.Conv2d(8, classes, 1)
        if memory:
            self.memory = nn.Linear(2, 2)

    def key_maps(self):
        body = (r"trunk\.(.+)", r"body.\1")
        heads = (r"((?:cls|aux)\..+)", r"\1")
        classifier = (r"fc\.bias", None)
        whole = KeyMap("published", (body, heads, classifier), covers=r"(?:body|cls)\..+")
        part = KeyMap("published body", (body, classifier), covers=r"body\..+")
        return [whole.prefixed("backbone."), part.prefixed("backbone.")]


def published(model: Small) -> dict:
    """The backbone's weights under the published names."""
    state = model.backbone.state_dict()
    return {re.sub(r"^body", "trunk", key): value for key, value in state.items()}


def write(path: Path, content) -> Path:
    torch.save(content, path)
    return path


# The name of the key table, the weights in that naming, entries of the model that they lack.
NAMINGS = {
    "own": ("our names", Small.state_dict, ()),
    "published": ("published", published, ("memory.weight", "memory.bias")),
}
WRAPPERS = {
    "bare": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 1},
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"epoch": 3, "loss": 0.5, "model_state_dict": state},
    "model_state": lambda state: {"model_state": state, "cur_itrs": 7},
    "net": lambda state: {"net": state, "acc": 90.0},
    "network": lambda state: {"network": state},
    "weights": lambda state: {"weights": state},
    "params": lambda state: {"params": state},
    "ema alone": lambda state: {"state_dict_ema": state, "epoch": 1},
    "ema": lambda state: {"ema": state, "updates": 3},
    "nested": lambda state: {"model": {"state_dict": state, "epoch": 1}},
    "nested ema": lambda state: {"state_dict": {"params_ema": state}},
    "options of that name": lambda state: {"network": {"method": "lma"}, "state_dict": state},
    "weights of a loss": lambda state: {"model_state": state, "model": {"depth": 3}},
    "optimizer": lambda state: {"optimizer": {"state": {}}, "state_dict": state},
    "meta": lambda state: {"meta": {"CLASSES": ("a", "b")}, "state_dict": OrderedDict(state)},
}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "module.module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "model.",
        "net.",
        "model._orig_mod.",
        "_orig_mod.model.net.",
        "module.model.module.",
        "_fsdp_wrapped_module.",
    ],
)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("names", NAMINGS)
def test_every_wrapping_of_either_naming_loads(tmp_path, wrapper, prefix, names):
    naming, state_of, new = NAMINGS[names]
    source = Small()
    model = Small()
    state = state_of(source)
    prefixed = {prefix + key: value for key, value in state.items()}
    report = load_weights(model, write(tmp_path / "c.pth", WRAPPERS[wrapper](prefixed)))
    assert same(dict(model.backbone.state_dict()), dict(source.backbone.state_dict()))
    assert report.maps == (naming,)
    assert report.loaded == len(state)
    assert report.new == new


def test_a_compiled_part_of_a_network_loads(tmp_path):
    source = Small()
    model = Small()
    state = {re.sub(r"body\.", "body._orig_mod.", k): v for k, v in source.state_dict().items()}
    load_weights(model, write(tmp_path / "c.pth", state), complete=True)
    assert same(dict(model.state_dict()), dict(source.state_dict()))


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_average_of_weights_loads(tmp_path, wrapped):
    source = Small()
    model = Small()
    state = torch.optim.swa_utils.AveragedModel(source).state_dict()
    assert "n_averaged" in state
    if wrapped:
        state = {"model_ema": {f"_orig_mod.{key}": value for key, value in state.items()}}
    load_weights(model, write(tmp_path / "c.pth", state), complete=True)
    assert same(dict(model.state_dict()), dict(source.state_dict()))


def test_the_report_says_which_of_several_weights_were_taken(tmp_path):
    plain = Small()
    average = Small()
    model = Small()
    both = {"state_dict_ema": average.state_dict(), "state_dict": plain.state_dict()}
    report = load_weights(model, write(tmp_path / "both.pth", both))
    assert "(our names, its state_dict, not its state_dict_ema)" in str(report)
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    del both["state_dict"]
    report = load_weights(model, write(tmp_path / "average.pth", both))
    assert "(our names, its state_dict_ema)" in str(report)
    assert same(dict(model.state_dict()), dict(average.state_dict()))


class Named(nn.Module):
    """A network whose own names begin as some programs call theirs."""

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"net": nn.Linear(2, 2)})


def test_names_of_a_network_that_begin_like_a_wrapper_stay(tmp_path):
    source = Named()
    model = Named()
    for number, prefix in enumerate(("", "model.", "net.")):
        state = {prefix + key: value for key, value in source.state_dict().items()}
        load_weights(model, write(tmp_path / f"{number}.pth", state), complete=True)
        assert same(dict(model.state_dict()), dict(source.state_dict()))
        model.load_state_dict(Named().state_dict())


def test_the_folder_of_a_run_loads_and_names_its_options(tmp_path):
    source = Small()
    model = Small()
    content = {"state_dict": source.state_dict(), "network": {"method": "lma"}}
    save(tmp_path / "model_best.pth.tar", content)
    report = load_weights(model, tmp_path, complete=True)
    assert report.files == (str(tmp_path / "model_best.pth.tar"),)
    assert same(dict(model.state_dict()), dict(source.state_dict()))
    assert network_of([str(tmp_path)]) == {"method": "lma"}


FACTS = {"classes": ["road", "sky"], "palette": [[1, 2, 3], [0, 0, 255]], "work_size": [64, 128]}


def report_of(folder: Path, facts: dict):
    return load_weights(
        Small(), write(folder / "c.pth", {"state_dict": Small().state_dict(), **facts})
    )


def test_classes_colours_and_size_travel_with_weights(tmp_path):
    report = report_of(tmp_path, FACTS)
    assert report.classes == ("road", "sky")
    assert report.palette == ((1, 2, 3), (0, 0, 255))
    assert report.work_size == (64, 128)
    report = report_of(tmp_path, {})
    assert (report.classes, report.palette, report.work_size) == ((), (), None)


@pytest.mark.parametrize(
    "name, value",
    [
        ("classes", "road"),
        ("classes", [1, 2]),
        ("classes", {"road": 1}),
        ("palette", [[1, 2, 3]]),
        ("palette", [[1, 2, 3], [0, 0, 256]]),
        ("palette", [[1, 2, 3], [0, 0, -1]]),
        ("palette", [[1, 2, 3], [0, 0, 1.0]]),
        ("palette", [[1, 2, 3], [0, 0]]),
        ("palette", [[1, 2, 3], "abc"]),
        ("palette", torch.zeros(2, 3)),
        ("work_size", [64]),
        ("work_size", [64, 0]),
        ("work_size", [64, True]),
        ("work_size", "64"),
        ("work_size", [64, 1e3]),
    ],
)
def test_facts_of_another_form_are_left_out(tmp_path, name, value):
    report = report_of(tmp_path, FACTS | {name: value})
    assert not getattr(report, name)


def test_the_report_is_one_line(tmp_path):
    path = write(tmp_path / "c.pth", published(Small()) | {"fc.bias": torch.ones(1)})
    assert str(load_weights(Small(), path)) == (
        f"loaded 11 of 13 entries from {path} (published); "
        "new: 2 (memory.weight, memory.bias); not used: 1 (fc.bias)"
    )


def test_the_table_that_matches_most_is_taken(tmp_path):
    state = published(Small())
    body = {key: value for key, value in state.items() if key.startswith("trunk")}
    assert load_weights(Small(), write(tmp_path / "b.pth", body)).maps == ("published body",)
    assert load_weights(Small(), write(tmp_path / "w.pth", state)).maps == ("published",)


def test_several_files_make_one_model_and_the_last_counts(tmp_path):
    first = Small()
    second = Small()
    model = Small()
    memory = {key: value for key, value in second.state_dict().items() if key.startswith("memory")}
    paths = [write(tmp_path / "a.pth", published(first)), str(write(tmp_path / "b.pth", memory))]
    report = load_weights(model, paths, complete=True)
    assert report.files == tuple(map(str, paths))
    assert report.maps == ("published", "our names") and report.new == ()
    assert same(dict(model.state_dict()), dict(first.state_dict()) | memory)
    load_weights(model, [paths[0], write(tmp_path / "c.pth", published(second))])
    assert same(dict(model.backbone.state_dict()), dict(second.backbone.state_dict()))


def test_half_precision_is_cast_and_counters_may_be_missing(tmp_path):
    source = Small()
    model = Small()
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


@pytest.mark.parametrize("names", NAMINGS)
@pytest.mark.parametrize("in_file, in_model", [(True, False), (False, True)])
def test_an_auxiliary_head_may_be_in_the_file_or_the_model_alone(
    tmp_path, in_file, in_model, names
):
    source = Small(auxiliary=in_file)
    model = Small(auxiliary=in_model)
    _, state_of, _ = NAMINGS[names]
    path = write(tmp_path / "c.pth", state_of(source))
    memory = {"memory.weight": torch.ones(2, 2), "memory.bias": torch.ones(2)}
    report = load_weights(model, [path, write(tmp_path / "m.pth", memory)], complete=True)
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
        r"cls.weight is \[7, 8, 1, 1\], not \[4, 8, 1, 1\].*"
        "it has 7 outputs .classes., the model 4",
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
    report = load_weights(Small(), write(tmp_path / "a.pth", single))
    assert report.new == ("memory.weight", "memory.bias")
    del state["memory.bias"]
    with pytest.raises(ValueError, match="1 missing .memory.bias"):
        load_weights(Small(), write(tmp_path / "b.pth", state))


def test_evaluation_needs_every_entry(tmp_path):
    path = write(tmp_path / "c.pth", published(Small()))
    model = Small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"not complete without 2 \(memory.weight, memory.bias\)"):
        load_weights(model, path, complete=True)
    assert same(before, dict(model.state_dict()))
    with pytest.raises(ValueError, match="no file"):
        load_weights(model, [], complete=True)
    assert load_weights(Small(memory=False), path, complete=True).new == ()


def test_a_model_without_tables_reads_its_own_names(tmp_path):
    source = nn.Linear(2, 2)
    model = nn.Linear(2, 2)
    load_weights(model, write(tmp_path / "c.pth", source.state_dict()))
    assert same(dict(model.state_dict()), dict(source.state_dict()))


# Published files and whole networks


def test_resnet18_of_torchvision_starts_a_pspnet18(shared):
    path = shared / "weights" / "resnet18_imagenet1k_v1_fp16.pth"
    model = SingleFrame(PSPNet18(19))
    source = read(path)
    report = load_weights(model, path)
    assert report.loaded == 120 and report.unused == ("fc.weight", "fc.bias")
    heads = ("backbone.ppm.", "backbone.cls.", "backbone.aux.")
    assert all(key.startswith(heads) for key in report.new)
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
    assert report.loaded == 330
    assert all(key.startswith(("backbone.head.", "backbone.aux")) for key in report.new)
    torch.testing.assert_close(model.backbone.layer3[2].conv2.weight, source.layer3[2].conv2.weight)
    assert len(report.unused) == 8  # conv1, bn1, fc


def test_the_error_names_other_classes_and_other_backbones(tmp_path):
    pspnet = write(tmp_path / "psp.pth", {"epoch": 200, "state_dict": PSPNet18(19).state_dict()})
    message = "it has 19 outputs .classes., the model 11: choose the data set"
    with pytest.raises(ValueError, match=message):
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
    assert all(key.startswith("backbone.decoder.") for key in report.new)
    assert report.maps == ("ERFNet's encoder",)


def test_what_training_saves_comes_back_and_is_complete(tmp_path):
    source = SingleFrame(ERFNet(5))
    model = SingleFrame(ERFNet(5))
    save(tmp_path / "c.pth", {"state_dict": source.state_dict(), "epoch": 1})
    report = load_weights(model, tmp_path / "c.pth", complete=True)
    assert report.new == report.unused == () and report.maps == ("our names",)
    assert same(dict(source.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("backbone", [ERFNet, PSPNet18])
def test_a_memory_beside_other_classes_keeps_all_but_the_classifiers(tmp_path, backbone):
    source = LMANet(backbone(7), struct="aux_mem_loss")
    target = LMANet(backbone(4), struct="aux_mem_loss")
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


# The network's options


def network_in(folder: Path, network, name: str = "c.pth") -> dict:
    """What `network_of` finds in a checkpoint with this entry "network"."""
    save(folder / name, {"state_dict": {"x": torch.zeros(1)}, "network": network})
    return network_of([str(folder / name)])


@pytest.mark.parametrize(
    "value",
    [True, False, 0, 7, -3, 0.5, -1e-4, 2.0, "lma", "", [], [1, -2], (0.5, 1), ["a", "b"], [False]],
)
def test_an_option_with_a_plain_value_is_found_with_its_type(tmp_path, value):
    found = network_in(tmp_path, {"method": "lma", "option": value})
    assert found == {"method": "lma", "option": value}
    assert type(found["option"]) is type(value)


@pytest.mark.parametrize(
    "key, value",
    [
        ("option", None),
        ("option", {"nested": 1}),
        ("option", {}),
        ("option", [[1, 2], [3, 4]]),
        ("option", [1, None]),
        ("option", (1, {"a": 2})),
        ("option", b"bytes"),
        ("option", torch.zeros(1)),
        ("option", [torch.zeros(1)]),
        (3, "value"),
    ],
)
def test_an_entry_that_no_option_can_have_is_left_out_and_its_neighbours_stay(tmp_path, key, value):
    neighbours = {"method": "lma", "memory_weight": 0.25, "sizes": [3, 5]}
    network = {"method": "lma", key: value, "memory_weight": 0.25, "sizes": [3, 5]}
    assert network_in(tmp_path, network) == neighbours


@pytest.mark.parametrize("network", [None, "lma", ["--method", "lma"], 3, (), torch.zeros(2)])
def test_a_network_that_is_no_table_adds_nothing(tmp_path, network):
    assert network_in(tmp_path, network) == {}


def test_of_an_option_in_several_files_the_last_counts(tmp_path):
    network_in(tmp_path, {"backbone": "psp18", "scale": 0.5}, "first.pth")
    network_in(tmp_path, {"backbone": "psp50", "scale": None}, "second.pth")
    (tmp_path / "broken.pth").write_bytes(b"no torch file")
    torch.save(torch.zeros(1), tmp_path / "tensor.pth")
    names = ("first.pth", "missing.pth", "broken.pth", "tensor.pth", "second.pth")
    found = network_of([str(tmp_path / name) for name in names])
    assert found == {"backbone": "psp50", "scale": 0.5}
