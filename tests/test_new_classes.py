"""--new-classes: outputs of classes that the weights know go on from what they were."""

from __future__ import annotations

import pytest
import torch

import main
from command import perform
from datasets import camvid, cityscapes
from datasets.class_map import find_map
from jobs.new_classes import donors_of
from models import build_model
from trees import make_camvid, make_folder
from utils import checkpoint

NETWORK = "--method single --backbone espnetv2_s05 --pyramid-width 4".split()
STILL = (
    "--lr-start 0 --batch-size 2 --num-epochs 1 --threads 1 --device cpu --num-workers 0".split()
)
OUTPUTS = "backbone.bu_dec_l4.merge_layer.3"


def test_a_class_goes_on_from_its_name_else_from_the_first_line_that_leads_to_it():
    names = cityscapes.LABELS.names
    donors = donors_of(camvid.LABELS.names, names, find_map("cityscapes-to-camvid"))
    found = {camvid.LABELS.names[k]: names[donor] for k, donor in donors.items()}
    assert found == {
        "sky": "sky",
        "building": "building",
        "pole": "pole",
        "road": "road",
        "pavement": "sidewalk",
        "tree": "vegetation",
        "signsymbol": "traffic sign",
        "fence": "fence",
        "car": "car",
        "pedestrian": "person",
        "bicyclist": "rider",
    }
    assert donors_of(("ROAD", "boat"), names, None) == {0: 0}


@pytest.fixture
def published(tmp_path):
    """(path, entries) of a network for Cityscapes' classes; nothing in the file names them."""
    args = main.parse_args(["--training", *NETWORK, "--savedir", "unused"])
    entries = build_model(args, 19).state_dict()
    checkpoint.save(tmp_path / "published.pth", entries)
    return tmp_path / "published.pth", entries


def trained(tmp_path, *words) -> tuple[dict, str]:
    """(entries after a training that changes no weight, what it said)"""
    folder = tmp_path / "run"
    done = perform("--training", *NETWORK, *STILL, *words, "--savedir", folder)
    return checkpoint.read(folder / "model_best.pth"), done.stdout


def test_published_weights_start_by_the_map_that_comes_from_their_classes(published, tmp_path):
    path, former = published
    root = make_camvid(tmp_path / "camvid")
    new, said = trained(
        tmp_path,
        *("--dataset", "camvid", "--data-root", root, "--weights", path, "--new-classes"),
        *("--class-map", "cityscapes-to-camvid"),
    )
    assert "outputs that go on from the weights: sky, building, pole, road, " in said
    assert "pavement (from sidewalk), tree (from vegetation)" in said
    rows = [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12]
    for kind in ("weight", "bias"):
        name = f"{OUTPUTS}.{kind}"
        assert torch.equal(new[name][:11], former[name][rows])
    name = f"{OUTPUTS}.weight"
    assert not torch.equal(new[name][11], former[name][11]), "ignore is no class"


def test_classes_of_the_same_name_go_on_without_a_map_and_others_are_new(tmp_path):
    args = main.parse_args(["--training", *NETWORK, "--savedir", "unused"])
    former = build_model(args, 3).state_dict()
    path = tmp_path / "named.pth"
    checkpoint.save(path, {"state_dict": former, "classes": ["Wall", "sea", "ground"]})
    root = make_folder(tmp_path / "mine")  # ground, wall, thing
    new, said = trained(
        tmp_path, "--dataset", "folder", "--data-root", root, "--weights", path, "--new-classes"
    )
    assert "outputs that go on from the weights: ground, wall" in said
    name = f"{OUTPUTS}.weight"
    assert torch.equal(new[name][:2], former[name][[2, 0]])
    assert not torch.equal(new[name][2], former[name][1])
