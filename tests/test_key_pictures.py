"""`--key-pictures`: what happens between two key frames, drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, perform
from datasets.synthetic import LABELS
from engine import LabelledFrame
from jobs.key_pictures import KeyPictures, coloured, filter_edges
from models import build_model
from models.parts.guided_filter import class_edges
from trees import make_cityscapes
from utils import checkpoint
from utils.keyframes import Decision
from utils.output.key_pictures import composite, strip
from utils.output.pictures import GAP, RIGHT, WRONG, colourise, side_by_side

PALETTE = np.array([[128, 64, 128], [244, 35, 232], [70, 70, 70]], np.uint8)
TRAINED = ROOT / "trained_models" / "erfnet_synthetic.pth"
WORLD = (
    "--eval-mode --method flow --backbone erf --dataset synthetic --synthetic-size 96 192 "
    "--synthetic-videos 1 2 1 --synthetic-length 7 --threads 1 --device cpu --num-workers 0 "
    "--pictures 0"
).split()
SIZE = (96, 192)


def label_maps(count: int, size=(16, 24)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 3, size).astype(np.uint8) for _ in range(count)]


def read(path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def columns(picture: np.ndarray, width: int) -> list[np.ndarray]:
    return [picture[:, x : x + width] for x in range(0, picture.shape[1], width + GAP)]


# The pictures


def test_a_composite_shows_frame_edges_prediction_errors_and_label_in_true_colours():
    prediction, label = label_maps(2)
    label[0] = 255
    frame = np.full((16, 24, 3), 130, np.uint8)  # a stretched range would change it
    edges = np.zeros((2, 3), bool)
    edges[1, 2] = True
    found = columns(composite(frame, edges, prediction, label, PALETTE)[-16:], 24)
    assert len(found) == 5
    assert np.array_equal(found[0], frame)
    expected = np.zeros((16, 24, 3), np.uint8)
    expected[8:, 16:] = 255
    assert np.array_equal(found[1], expected), "a cell of the map is 8 x 8 pixels"
    assert np.array_equal(found[2], colourise(prediction, PALETTE))
    errors = found[3]
    assert not errors[0].any()
    assert (errors[1:] == np.where((prediction == label)[1:, :, None], RIGHT, WRONG)).all()
    assert np.array_equal(found[4], colourise(label, PALETTE))


def test_a_strip_has_a_row_of_each_kind_and_a_column_of_each_frame():
    maps = label_maps(3)
    frames = [np.full((8, 12, 3), 40 * i, np.uint8) for i in range(3)]
    flows = [None, *[np.full((4, 6, 3), 200, np.uint8)] * 2]
    picture = strip(frames, maps, maps[::-1], flows, PALETTE)
    row = side_by_side(*frames, titles="abc").shape[0] + 8  # frames are enlarged to the labels
    assert picture.shape == (4 * row + 3 * GAP, 3 * 24 + 2 * GAP, 3)
    cells = [columns(picture[r * (row + GAP) :][row - 16 : row], 24) for r in range(4)]
    assert [int(cell[8, 12, 0]) for cell in cells[0]] == [0, 40, 80]
    for drawn, labels in zip(cells[1] + cells[2], maps + maps[::-1], strict=True):
        assert np.array_equal(drawn, colourise(labels, PALETTE))
    assert (cells[3][1] == 200).all() and len(np.unique(cells[3][0])) == 1
    without = strip(frames, maps, maps, [None] * 3, PALETTE)
    assert without.shape[0] == 3 * row + 2 * GAP, "without flow there is no row of it"


def test_flows_of_one_strip_share_their_colours():
    slow = torch.zeros(1, 2, 4, 4)
    slow[:, 0] = 2
    fast, again = coloured([4 * slow, slow])
    assert not np.array_equal(fast, again)
    assert np.array_equal(coloured([slow, 4 * slow])[0], again)
    assert coloured([None, None]) == [None, None]


def test_edges_of_the_filter_cover_the_frame_without_its_padding():
    warped = torch.randn(1, 3, 4, 6)
    scores = torch.zeros(1, 3, 29, 43)
    edges = filter_edges(warped, scores)
    assert edges.shape == (1, 1, 29, 43)
    assert torch.equal(edges[..., ::8, ::8], class_edges(warped))


# Which sequences


class Recorded(KeyPictures):
    """Remembers what would be drawn."""

    def draw(self, name, frames, flows, labels):
        self.drawn = [*getattr(self, "drawn", []), (name, len(frames))]


def drawn_of(keys: str, sequences: int, start: int = 0) -> list[tuple[str, int]]:
    """Of frames that are key frames where `keys` has a K; a space begins a new video."""
    frames = len(keys.replace(" ", ""))
    consumer = Recorded(
        None, LABELS, None, None, stepping=True, frames=frames, sequences=sequences, start=start
    )
    with consumer:
        place = 0
        for letter in keys.replace(" ", ""):
            place += 1
            if place > start:
                consumer(frame_of(f"v/{place - 1}", key=letter == "K"))
    return getattr(consumer, "drawn", [])


def frame_of(name: str, key: bool) -> LabelledFrame:
    image = torch.zeros(3, 4, 4)
    label = torch.zeros(4, 4, dtype=torch.int64)
    return LabelledFrame(name, image, label, label, image[None], decision=Decision(key, "test"))


def test_a_sequence_ends_before_the_next_key_frame_and_they_are_evenly_spread():
    keys = "K..K..K. K..K"
    assert drawn_of(keys, 0) == []
    assert drawn_of(keys, 1) == [("v/2", 3)]
    assert drawn_of(keys, 2) == [("v/2", 3), ("v/7", 2)]
    everything = [("v/2", 3), ("v/5", 3), ("v/7", 2), ("v/10", 3), ("v/11", 1)]
    assert drawn_of(keys, 12) == everything


def test_a_resumed_evaluation_draws_the_sequences_that_are_left():
    keys = "K..K..K. K..K"
    assert drawn_of(keys, 3, start=8) == drawn_of(keys, 3)[2:] == [("v/10", 3)]


def test_of_a_long_sequence_the_beginning_is_drawn():
    assert drawn_of("K" + 30 * ".", 1) == [("v/9", 10)]


# The command line


def evaluated(tmp_path, *words):
    perform(*WORLD, "--savedir", tmp_path, "--key-pictures", "1", *words)
    return tmp_path / "pictures" / "val_0000" / "val_0000_000002"


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["--propagate", "hold"], 3),
        (["--propagate", "warp"], 4),
        (["--propagate", "warp", "--flow", "given"], 4),
        (["--propagate", "warp", "--work-size", "64", "128"], 4),
        (["--propagate", "warp", "--flip"], 4),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_an_evaluation_draws_its_sequences(words, rows, tmp_path):
    place = evaluated(tmp_path, "--weights", TRAINED, *words, "--save-labels")
    cat = read(f"{place}_cat_k2.png")
    seq = read(f"{place}_seq_k3.png")
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 2
    band = cat.shape[0] - SIZE[0]
    assert cat.shape[1] == 5 * SIZE[1] + 4 * GAP
    assert seq.shape == (rows * cat.shape[0] + (rows - 1) * GAP, 3 * SIZE[1] + 2 * GAP, 3)
    labels = Image.open(tmp_path / "labels" / "val_0000" / "val_0000_000002.png")
    scored = colourise(np.asarray(labels), LABELS.palette)
    prediction = columns(cat[band:], SIZE[1])[2]
    assert (prediction == scored).all(-1).mean() > 0.999, "what is drawn is what was scored"
    ours = columns(seq[2 * (cat.shape[0] + GAP) :][band : cat.shape[0]], SIZE[1])
    assert np.array_equal(ours[2], prediction)
    backbone = columns(seq[cat.shape[0] + GAP :][band : cat.shape[0]], SIZE[1])
    assert np.array_equal(ours[0], backbone[0]), "on the key frame they are one"
    assert not np.array_equal(ours[2], backbone[2])


def test_the_edges_of_the_filter_are_drawn_as_it_sees_them(tmp_path):
    args = main.parse_args([*WORLD, "--propagate", "gsv", "--savedir", "x", "--weights", "x"])
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "gsv.pth", build_model(args, 11).state_dict())
    words = ["--weights", tmp_path / "gsv.pth", "--propagate", "gsv"]
    place = evaluated(tmp_path / "out", *words)
    cat = read(f"{place}_cat_k2.png")
    edges = columns(cat[-SIZE[0] :], SIZE[1])[1]
    cells = edges[::8, ::8]
    assert np.array_equal(cells.repeat(8, 0).repeat(8, 1), edges)
    assert set(np.unique(cells)) == {0, 255}


def test_clips_are_sequences_too(tmp_path):
    make_cityscapes(tmp_path / "data", splits=("val",), cities=("aachen",))
    words = "--eval-mode --method flow --backbone erf --dataset cityscapes --threads 1".split()
    words += "--device cpu --num-workers 0 --key-interval 2 --propagate warp".split()
    args = main.parse_args([*words, "--savedir", "x", "--weights", "x"])
    checkpoint.save(tmp_path / "erf.pth", build_model(args, 19).state_dict())
    words += ["--data-root", tmp_path / "data", "--weights", tmp_path / "erf.pth"]
    perform(*words, "--key-pictures", "1", "--pictures", "0", "--savedir", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["metrics"]["key_distance"]["mIoU"]) == {"0", "1", "2"}
    names = {path.name.partition("_cat_")[2] for path in tmp_path.rglob("*_cat_*.png")}
    assert names == {"k2.png"}
    assert len(list(tmp_path.rglob("*_seq_k3.png"))) == 1
