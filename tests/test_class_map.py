"""Class maps: their files, merged probabilities, commands by them; --show."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, TINY, assert_one_line, call, perform
from datasets import build_dataset, camvid, cityscapes, label_set
from datasets.class_map import MappedVideo, find_map, label_map
from datasets.class_map_file import built_in, read_pairs
from datasets.known_classes import GROUPS, known_sets
from datasets.labels import IGNORE, LabelSet
from disk import write
from golden import SHARED
from trees import make_camvid, make_folder
from utils.merging import Merging
from utils.output.pictures import legend, legend_of, only
from utils.views import Views
from view_toys import Multiple

SYNTHETIC = ROOT / "trained_models" / "erfnet_synthetic.pth"
ON_CPU = ["--threads", "1", "--device", "cpu", "--num-workers", "1"]


def pairs_of(path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(pair.source, pair.target) for pair in read_pairs(path)]


# Files


@pytest.mark.parametrize(
    "text",
    [
        "truck -> car\ntraffic light -> sign\n* -> ignore\n",
        "truck, car\ntraffic light, sign\n*, ignore\n",
        'from,to\ntruck,car\n"traffic light",sign\n*,Ignore\n',
        "source;target\r\ntruck;car\r\ntraffic light;sign\r\n*;ignore\r\n",
        "# mine\ntruck\tcar   # a comment\n\ntraffic light\tsign\n*\tignore",
        "truck: car\ntraffic light: sign\n*: ignore\n",
        "truck → car\ntraffic light → sign\n* → ignore\n".encode("utf-16"),
    ],
)
def test_a_map_is_read_in_every_form_and_encoding(tmp_path, text):
    expected = [("truck", "car"), ("traffic light", "sign"), ("*", None)]
    assert pairs_of(tmp_path / "map.txt", text) == expected


def test_quotes_protect_separators_in_names(tmp_path):
    assert pairs_of(tmp_path / "m", '"wall, low" -> "a: b"\n') == [("wall, low", "a: b")]


@pytest.mark.parametrize(
    "text, message",
    [
        ("road -> a\ntruck -> \n", "line 2 ('truck ->'): truck becomes nothing"),
        ("-> car\n", "line 1 ('-> car'): there is no name before the separator"),
        ("road\n", "line 1 ('road'): there are 1 names, not two"),
        ("a, b, c\n", "line 1 ('a, b, c'): there are 3 names, not two"),
        ("a_b, c\nx, c\nA B, d\n", "line 3 ('A B, d'): A B was mapped in line 1 before"),
        ("road -> *\n", "* stands for classes that become another"),
        ('"road -> car\n', "line 1 ('\"road -> car'): a quote is not closed"),
        ("# nothing\n", "maps no class"),
        ("from,to\n", "maps no class"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        pairs_of(tmp_path / "map.txt", text)
    assert message in str(caught.value) and str(tmp_path / "map.txt") in str(caught.value)
    assert "expected from -> to" in str(caught.value)


@pytest.mark.parametrize("name", sorted(built_in()))
def test_a_map_of_the_tool_says_what_all_classes_become(name):
    found = find_map(name)
    assert found.target_set() in known_sets()
    for labels in known_sets():
        if name.startswith(("cityscapes", "camvid", "synthetic")) and all(
            map(found.names, labels.names)
        ):
            assert len(found.table(labels.names, found.target_set().names)) == len(labels.names)
            break
    else:
        assert name.startswith("idd")


def test_the_map_to_camvid_is_the_one_of_the_published_figures():
    table = find_map("cityscapes-to-camvid").table(cityscapes.LABELS.names, camvid.LABELS.names)
    assert table == (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10)
    path = SHARED / "golden" / "esp" / "camvid_zero_shot.json"
    if path.exists():
        # Its last entry is the network's own "ignore" output, and 11 CamVid's void.
        assert json.loads(path.read_text())["class_map"] == [*table, 11]


# Names


def test_names_that_no_line_has_are_an_error_unless_a_star_takes_them(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("road -> way\n")
    with pytest.raises(ValueError, match="has no line for wall, sky: add one for each, or"):
        find_map(str(path)).table(("road", "wall", "sky"), ("way",))
    path.write_text("road -> way\n* -> ignore\n")
    assert find_map(str(path)).table(("sky", "Road"), ("x", "way")) == (IGNORE, 1)


@pytest.mark.parametrize(
    "line, message",
    [
        ("raod -> way", "raod is none of the classes road, wall; did you mean road?"),
        ("road -> wya", "wya is none of the classes way, rest; did you mean way?"),
    ],
)
def test_an_unknown_name_is_told_with_its_line_and_what_was_meant(tmp_path, line, message):
    path = tmp_path / "map.txt"
    path.write_text(f"wall -> rest\n{line}\n* -> ignore\n")
    with pytest.raises(ValueError) as caught:
        find_map(str(path)).table(("road", "wall"), ("way", "rest"))
    assert f"{path}, line 2 ('{line}'): {message}" in str(caught.value)


def test_an_unknown_map_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match="did you mean cityscapes-to-camvid"):
        find_map("cityscapes-to-camvd")


def test_new_classes_have_colours_of_those_they_come_from(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("truck -> car\ncar -> car\nroad -> way\n* -> ignore\n")
    own = LabelSet(("road", "car", "truck"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    assert find_map(str(path)).target_set(own) == LabelSet(("car", "way"), ((2, 2, 2), (1, 1, 1)))


# Merging


def test_merged_probabilities_add_up_and_ignored_ones_are_an_output_behind_the_classes():
    logits = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0)) * 6
    table = (1, 0, 1, IGNORE, 1)  # the sixth output is the network's own "ignore"
    merged = Merging(table, 3)(logits).softmax(1)
    p = logits.softmax(1)
    expected = torch.stack(
        [p[:, 1], p[:, 0] + p[:, 2] + p[:, 4], 0 * p[:, 0], p[:, 3] + p[:, 5]], 1
    )
    torch.testing.assert_close(merged, expected)


def test_two_parts_win_together_over_a_class_that_beats_each_of_them():
    logits = torch.tensor([0.35, 0.25, 0.4]).log().view(1, 3, 1, 1)
    assert logits.max(1).indices.item() == 2
    assert Merging((0, 0, 1), 2)(logits).max(1).indices.item() == 0


def test_a_class_that_stays_keeps_its_logit_and_nothing_is_added_where_nothing_is_ignored():
    logits = torch.randn(1, 3, 4, 4)
    assert torch.equal(Merging((2, 0, 1), 3)(logits), logits[:, [1, 2, 0]])


def test_enlarged_scores_of_an_absent_class_are_numbers():
    merging = Merging((0, 2), 3)
    assert merging.absent == [1]
    scores = torch.nn.functional.interpolate(merging(torch.randn(1, 2, 4, 4)), scale_factor=3.0)
    assert scores.isfinite().all() and (scores.max(1).indices != 1).all()


# Data


def folder_map(tmp_path, text: str):
    path = tmp_path / "map.txt"
    path.write_text(text)
    return path


def folder_args(tmp_path, *words):
    root = tmp_path / "clips"
    if not root.exists():
        make_folder(root)
    words = ["--dataset", "folder", "--data-root", str(root), *words]
    return main.parse_args([*words, "--method", "single", "--savedir", str(tmp_path / "run")])


def test_a_training_reads_labels_by_the_map(tmp_path):
    path = folder_map(tmp_path, "wall -> solid\nthing -> solid\nground -> ignore\n")
    plain = build_dataset(folder_args(tmp_path, "--training"), "train", augment=False)
    args = folder_args(tmp_path, "--training", "--class-map", str(path))
    assert label_set(args).names == ("solid",)
    data = build_dataset(args, "train", augment=False)
    table = torch.full((256,), 255)
    table[1:3] = 0
    for before, after in zip(plain, data, strict=True):
        assert torch.equal(after.labels, table[before.labels])
        assert torch.equal(after.frames, before.frames)


def test_a_mapped_video_reaches_worker_processes_and_has_all_else_of_its_video(tmp_path):
    video = build_dataset(folder_args(tmp_path, "--training"), "train", augment=False).videos[0]
    mapped = pickle.loads(pickle.dumps(MappedVideo(video, np.zeros(256, np.uint8))))
    assert len(mapped) == len(video) and mapped.labelled == video.labelled
    assert not mapped.label(0).any() and getattr(mapped, "degrade", None) is None


def test_a_score_takes_labels_as_they_are_where_the_map_leads_to_them():
    found = find_map("cityscapes-to-camvid")
    assert label_map(found, camvid.LABELS, learnt=False) is None
    assert label_map(found, camvid.LABELS, learnt=True) is None, "a training from others' weights"
    assert label_map(find_map("camvid-to-groups"), GROUPS, learnt=False) is None


def test_a_score_maps_labels_too_where_the_map_comes_from_them():
    mapped = label_map(find_map("camvid-to-groups"), camvid.LABELS, learnt=False)
    assert mapped.labels == GROUPS
    assert mapped.table[:12].tolist() == [6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2, 255]
    itself = label_map(find_map("cityscapes-to-camvid"), cityscapes.LABELS, learnt=False)
    assert itself.labels == camvid.LABELS and not itself.left_out


def test_a_map_of_other_data_is_refused():
    with pytest.raises(ValueError, match="has no line for drivable, .*is it for these classes"):
        label_map(find_map("cityscapes-to-camvid"), GROUPS, learnt=True)


# Commands


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    return make_camvid(tmp_path_factory.mktemp("camvid"), size=(64, 96), frames=2)


def scores(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_a_network_of_other_classes_is_scored_on_camvid(drives, tmp_path):
    words = ["--eval-mode", "--dataset", "camvid", "--data-root", drives, *ON_CPU]
    words += ["--weights", SYNTHETIC, "--save-labels", "--savedir", tmp_path / "run"]
    assert_one_line(call(*words), "choose another --dataset, or give a --class-map")
    done = perform(*words, "--class-map", "synthetic-to-camvid")
    assert "1 of 11 classes come from no class of the network" in done.stdout
    assert "never predicted: bicyclist" in done.stdout
    labels = [np.asarray(Image.open(path)) for path in (tmp_path / "run").rglob("labels/*/*.png")]
    assert labels and all(set(np.unique(label)) <= {*range(10), 255} for label in labels)
    results = scores(tmp_path / "run")
    assert len(results["metrics"]["IoU"]) == 11 and results["loss"] is not None


def test_merged_labels_of_a_video_are_what_probabilities_say(tmp_path):
    """Against labels that the unmerged network's own scores give."""
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    write(tmp_path / "in" / "a.png", frame)
    path = folder_map(tmp_path, "car -> moves\nperson -> moves\nroad -> way\n* -> ignore\n")
    words = ["--inference", "--source", tmp_path / "in", "--weights", SYNTHETIC, *ON_CPU]
    words += ["--output", "labels", "overlay", "--class-map", path]
    done = perform(*words, "--savedir", tmp_path / "run")
    assert "ignores 8 of the network's 11 classes" in done.stdout
    from models import build_model
    from utils.checkpoint import load_weights, network_of

    args = main.parse_args(
        ["--inference", "--source", "x", "--weights", str(SYNTHETIC), "--savedir", "unused"],
        network_of([str(SYNTHETIC)]),
    )
    model = build_model(args, 11).eval()
    load_weights(model, SYNTHETIC)
    with torch.inference_mode():
        clip = torch.from_numpy(frame).permute(2, 0, 1)[None, None] / 255
        p = model.upsample(model(clip), (64, 96)).softmax(1)[0]
    names = label_set(args).names
    moves, way = p[names.index("car")] + p[names.index("person")], p[names.index("road")]
    expected = torch.stack([moves, way, 1 - moves - way]).max(0).indices.numpy()
    expected = np.where(expected == 2, 255, expected)
    labels = np.asarray(Image.open(next((tmp_path / "run").rglob("*_labels/*.png"))))
    assert (labels == expected).mean() > 0.999  # batch norm is folded: ties may fall otherwise


def test_a_training_by_a_map_says_what_it_leaves_out_and_its_weights_are_scored(drives, tmp_path):
    words = ["--dataset", "camvid", "--data-root", drives, "--class-map"]
    path = folder_map(tmp_path, "road -> way\npavement -> way\ncar -> car\n*: ignore\n")
    train = ["--training", "--method", "single", "--backbone", "erf", "--num-epochs", "1"]
    train += ["--train-encoder", "--batch-size", "2", *ON_CPU]
    done = perform(*train, *words, path, "--savedir", tmp_path / "run")
    assert "--class-map leaves out 8 classes of the labels (2 of 2 looked at" in done.stdout
    assert "sky 7.9 %" in done.stdout  # of twelve ids that are drawn alike
    weights = tmp_path / "run" / "model_best.pth.tar"
    perform("--eval-mode", *words, path, *ON_CPU, "--weights", weights, "--savedir", tmp_path / "e")
    assert len(scores(tmp_path / "e")["metrics"]["IoU"]) == 2
    # The same classes in another order of lines.
    path.write_text("car -> car\nroad -> way\npavement -> way\n*: ignore\n")
    perform("--eval-mode", *words, path, *ON_CPU, "--weights", weights, "--savedir", tmp_path / "f")
    turned = scores(tmp_path / "f")["metrics"]
    assert turned["IoU"][::-1] == scores(tmp_path / "e")["metrics"]["IoU"]
    content = torch.load(weights, weights_only=True)
    assert list(content["classes"]) == ["way", "car"]


def test_a_map_that_cannot_be_is_told_in_one_line_before_anything_is_written(drives, tmp_path):
    words = ["--eval-mode", "--dataset", "camvid", "--data-root", drives, "--weights", SYNTHETIC]
    words += ["--savedir", tmp_path / "run", *ON_CPU, "--class-map"]
    path = folder_map(tmp_path, "road -> raod\n* -> ignore\n")
    done = call(*words, path)
    assert_one_line(done, "line 1 ('road -> raod'): raod is none of", tmp_path / "run")
    assert "did you mean road?" in done.stderr
    assert_one_line(call(*words, tmp_path / "none.txt"), "is neither a file nor one of")
    done = call(*words, "cityscapes-to-camvid")
    assert_one_line(done, "cityscapes-to-camvid has no line for sign", tmp_path / "run")


def test_weights_that_name_no_classes_need_a_map_of_known_ones(drives, tmp_path):
    weights = tmp_path / "bare.pth"
    torch.save(torch.load(SYNTHETIC, weights_only=True)["state_dict"], weights)
    words = [
        "--eval-mode",
        "--method",
        "single",
        "--backbone",
        "erf",
        "--weights",
        weights,
        *ON_CPU,
    ]
    words += ["--dataset", "camvid", "--data-root", drives, "--savedir", tmp_path / "run"]
    path = folder_map(tmp_path, "road -> road\n* -> ignore\n")
    assert_one_line(call(*words, "--class-map", path), "the weights do not name their classes")
    perform(*words, "--class-map", "synthetic-to-camvid")


def test_a_benchmark_times_merged_labels(tmp_path):
    words = ["--benchmark", "--weights", SYNTHETIC, "--class-map", "synthetic-to-camvid", *ON_CPU]
    words += ["--work-size", "32", "64", "--max-frames", "6"]
    perform(*words, "--savedir", tmp_path / "run")


# --show


def test_only_shown_classes_cover_the_picture_and_label_pngs_have_all(tmp_path):
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    write(tmp_path / "a.png", frame)
    words = ["--inference", "--source", tmp_path / "a.png", "--weights", SYNTHETIC, *ON_CPU]
    words += ["--output", "overlay", "labels", "--alpha", "1"]
    perform(*words, "--savedir", tmp_path / "all")
    labels = np.asarray(Image.open(next((tmp_path / "all").rglob("*_labels/*.png"))))
    present = [int(k) for k in np.unique(labels) if k < 11]
    names = label_set(main.parse_args(["--training", *TINY, "--savedir", "x"])).names
    perform(*words, "--show", names[present[0]].upper(), "--savedir", tmp_path / "one")
    again = np.asarray(Image.open(next((tmp_path / "one").rglob("*_labels/*.png"))))
    assert np.array_equal(labels, again)
    drawn = np.asarray(Image.open(next((tmp_path / "one").glob("*_overlay.png"))))
    hidden = labels != present[0]
    assert np.array_equal(drawn[hidden], frame[hidden])
    assert (drawn[~hidden] == drawn[~hidden][0]).all()
    done = call(*words, "--show", "raod", "--savedir", tmp_path / "none")
    assert_one_line(done, "--show: raod is none of the classes", tmp_path / "none")
    assert "did you mean road?" in done.stderr


def test_a_legend_shows_the_shown_classes_in_the_order_asked_for():
    labels = LabelSet(("a", "b", "c"), ((9, 0, 0), (0, 9, 0), (0, 0, 9)))
    assert np.array_equal(legend_of(labels, (2, 0)), legend(["c", "a"], [(0, 0, 9), (9, 0, 0)]))
    assert np.array_equal(legend_of(labels), legend(labels.names, labels.palette))
    assert only(np.array([[0, 1, 255]], np.uint8), (1,)).tolist() == [[255, 1, 255]]


def test_views_are_unmerged_unless_told():
    logits = torch.randn(1, 3, 2, 2)
    assert Views(Multiple()).merge(logits) is logits
