"""SwNet-seq's filter, sequences and losses against numbers that the original computes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import golden
import main
from models import build_model
from models.parts.distillation import kl_per_element
from models.parts.guided_filter import class_edges, moving_kernels
from utils.checkpoint import load_weights

SWNET = ["--method", "flow", "--backbone", "swiftnet18"]


def build(*words: str):
    """The network of an evaluation, its normalisation left out: golden inputs are normalised."""
    args = main.parse_args(["--eval-mode", "--savedir", "unused", *SWNET, *words])
    return golden.without_normalization(build_model(args, 19)).eval()


def filled(keys: dict, ideal: bool = True) -> dict[str, torch.Tensor]:
    """A state dict by the names of the original; ideal: with the kernels that move by one cell."""
    state = golden.weights({"state_dict": keys})
    if ideal:
        state["grm.ideal_dk.filter_copy_s"] = moving_kernels()
    return state


def load(model, tmp_path, **files) -> None:
    paths = []
    for name, content in files.items():
        paths.append(tmp_path / f"{name}.pth")
        torch.save(content, paths[-1])
    load_weights(model, paths)


@pytest.mark.parametrize(
    ("name", "words"),
    [("gsv_32x64", []), ("gsv_32x64_delay", []), ("gsv_noedge_32x64", ["--no-edge"])],
)
def test_the_filter(name, words, tmp_path):
    case = golden.case(f"flow/{name}")
    ideal = "ideal-delay" in case.info["config"]["ideal_dk"]
    model = build("--flow", "light", *words)
    load(model, tmp_path, gsv=filled(case.info["state_dict"], ideal))
    image = golden.filling().image
    warped, picture = (image(key, shape) for key, shape in case.info["inputs"].items())
    with torch.no_grad():
        filtered = model.propagation.filter(warped, picture)
    golden.assert_close(filtered, case.arrays["pred"])
    if "edge" in case.arrays:
        golden.assert_close(class_edges(warped), case.arrays["edge"])


def sequence(name: str, tmp_path, *words: str):
    """The case, its network and its frames (1, T, 3, H, W): normalised, in the order RGB."""
    case = golden.case(f"flow/{name}")
    flow = {"light": "light", "flownet": "flownets"}[case.info["config"]["flow"]]
    model = build("--flow", flow, "--eval-scale", str(case.info["config"]["eval_scale"]), *words)
    parts = case.info["state_dict"]
    network = {"state_dict": filled(parts["network"]), "epoch": 54}
    light = flow == "light"
    if light:
        network["state_dict_of"] = filled(parts["ofnet"], ideal=False)
    files = {"segnet": filled(parts["segnet"], ideal=False), "network": network}
    if not light:
        files["flow"] = filled(parts["ofnet"], ideal=False)
    load(model, tmp_path, **files)
    image = golden.filling().image
    frames = [image(key, shape).flip(1) for key, shape in case.info["inputs"].items()]
    return case, model, torch.stack(frames, 1)


@pytest.mark.parametrize("name", ["seq_light_256x512_s75", "seq_flownet_256x512_s75"])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_key_frame_and_the_frames_after_it(name, aligned, tmp_path):
    word = "--warp-align-corners" if aligned else "--no-warp-align-corners"
    case, model, clip = sequence(name, tmp_path, word)
    state = model.start()
    with torch.no_grad():
        for t, frame in enumerate(clip.unbind(1)):
            logits, state = model.step(frame, state, key=t == 0)
            output = f"pred_step{t}_align{aligned}" if t else "pred_step0"
            golden.assert_close(logits, case.arrays[output])
    if not aligned and "final_argmax" in case.arrays:
        labels = model.upsample(logits, clip.shape[-2:]).argmax(1)
        same = (labels.numpy() == case.arrays["final_argmax"]).mean()
        assert same >= 0.999


def test_the_clip_gives_what_the_steps_give(tmp_path):
    case, model, clip = sequence("seq_light_256x512_s75", tmp_path)
    with torch.no_grad():
        golden.assert_close(model(clip), case.arrays["pred_step4_alignTrue"])


class Fixed(nn.Module):
    """A network that says what it is told to."""

    align_corners = True

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, frame):
        return self.logits


def test_losses():
    case = golden.case("flow/loss_24x40")
    image = golden.filling().image
    student = image("loss:pred", [1, 19, 24, 40])
    teacher = 2 * image("loss:teacher", [1, 19, 24, 40])
    labels = torch.from_numpy(case.arrays["labels"]).long().view(1, 24, 40)
    labels[labels == 250] = 255
    model = build("--flow", "light")
    model.class_weights = torch.tensor(case.info["config"]["class_weights"])
    ce = model.cross_entropy(student, labels)
    kl = kl_per_element(student, teacher)
    golden.assert_close(ce.view(1), case.arrays["ce"])
    golden.assert_close(kl.view(1), case.arrays["kl_mean"])
    golden.assert_close((ce + 10 * kl).view(1), case.arrays["criterion_distil"])
    golden.assert_close(10 * (ce + 10 * kl).view(1), case.arrays["total"])


@pytest.mark.parametrize(
    ("table", "words"), [("gsv_end2end_edge", []), ("gsv_end2end_noedge", ["--no-edge"])]
)
def test_every_published_key_is_one_of_ours(table, words):
    golden.needs_golden()
    lists = json.loads((golden.ROOT / "flow" / "state_dicts.json").read_text())
    model = build("--flow", "light", *words)
    beside = {f"state_dict_of.{key}": shape for key, shape in lists["flow_light"].items()}
    published = lists[table] | beside
    (swnet_seq,) = (known for known in model.key_maps() if known.name == "SwNet-seq")
    renamed = swnet_seq.rename(published)
    assert not renamed.unexpected and not renamed.unused
    state = model.state_dict()
    assert {name: list(state[name].shape) for name in renamed.ours} == {
        name: list(published[key]) for name, key in renamed.ours.items()
    }
    assert {key for key in state if not key.startswith("backbone.")} == renamed.ours.keys()


def test_the_published_checkpoint_loads_strictly_and_moves_the_filter(tmp_path):
    golden.needs_golden()
    path = golden.SHARED / "weights" / "cityscapes-swnet_model_best.pth.tar"
    model = build("--flow", "light")
    report = load_weights(model, path)
    assert report.loaded == 59 + 51 and not report.unused
    assert all(name.startswith("backbone.") for name in report.new)
    other = build("--propagate", "gsv", "--flow", "dis")
    report = load_weights(other, path)
    assert report.loaded == 59 and len(report.unused) == 51
    with pytest.raises(ValueError, match="guide_conv.0.weight is"):
        load_weights(build("--flow", "light", "--no-edge"), path)
