"""Pictures of label maps: right colours, right places, files that read back."""

import resource

import numpy as np
import pytest
import torch
from PIL import Image

from utils.output import pictures
from utils.output.pictures import (
    as_picture,
    colourise,
    comparison,
    error_map,
    legend,
    overlay,
    save_png,
    side_by_side,
)

PALETTE = np.array([[128, 64, 128], [244, 35, 232], [70, 70, 70]], np.uint8)
BLACK = (0, 0, 0)


@pytest.fixture
def labels():
    ids = (
        np.random.default_rng(0).integers(0, 5, (12, 17)).astype(np.uint8)
    )  # 3 is beyond the palette
    ids[ids == 4] = 255
    return ids


@pytest.fixture
def frame():
    return np.random.default_rng(1).integers(0, 256, (12, 17, 3)).astype(np.uint8)


def test_every_pixel_gets_the_colour_of_its_class_and_black_if_it_has_none(labels):
    colours = {0: PALETTE[0], 1: PALETTE[1], 2: PALETTE[2], 3: BLACK, 255: BLACK}
    expected = np.array([[colours[int(id)] for id in row] for row in labels], np.uint8)
    for ids in (
        labels,
        labels.astype(np.int64),
        torch.from_numpy(labels),
        torch.from_numpy(labels).long(),
    ):
        np.testing.assert_array_equal(colourise(ids, PALETTE), expected)
    row = colourise(np.array([[-1, 256, 1000, 2]]), PALETTE)[0]
    np.testing.assert_array_equal(row, [BLACK, BLACK, BLACK, PALETTE[2]])


def test_255_is_black_even_with_a_palette_of_256_colours():
    assert colourise(np.array([[255, 254]]), np.full((256, 3), 9))[0].tolist() == [
        [0, 0, 0],
        [9, 9, 9],
    ]


@pytest.mark.parametrize("alpha", [0, 0.25, 0.5, 1])
def test_an_overlay_is_a_weighted_mean_and_leaves_pixels_without_a_class(frame, labels, alpha):
    expected = (1 - alpha) * frame + alpha * colourise(labels, PALETTE)
    expected[labels >= 3] = frame[labels >= 3]
    np.testing.assert_allclose(overlay(frame, labels, PALETTE, alpha), expected, atol=0.5)
    assert frame.dtype == np.uint8


def test_the_error_map_is_right_wrong_or_unlabelled(labels):
    predictions = np.where(np.arange(17) % 2, labels, 1)
    picture = error_map(labels, predictions)
    for y, x in np.ndindex(labels.shape):
        expected = (
            BLACK
            if labels[y, x] == 255
            else pictures.RIGHT
            if labels[y, x] == predictions[y, x]
            else pictures.WRONG
        )
        assert tuple(picture[y, x]) == expected


def test_a_comparison_holds_its_four_pictures_side_by_side(frame, labels):
    predictions = labels[::-1]
    strip = comparison(frame, labels, predictions, PALETTE)
    height, width = labels.shape
    assert strip.shape[1] == 4 * width + 3 * pictures.GAP and strip.shape[0] > height
    parts = (
        frame,
        colourise(labels, PALETTE),
        colourise(predictions, PALETTE),
        error_map(labels, predictions),
    )
    for index, part in enumerate(parts):
        left = index * (width + pictures.GAP)
        np.testing.assert_array_equal(strip[-height:, left : left + width], part)


def test_titles_are_written_above_their_pictures(frame):
    wide = np.repeat(np.repeat(frame, 20, 0), 20, 1)
    plain, titled = side_by_side(wide, wide), side_by_side(wide, wide, titles=("baseline", ""))
    band = titled[: titled.shape[0] - plain.shape[0]]
    np.testing.assert_array_equal(titled[len(band) :], plain)
    half = wide.shape[1]
    assert (
        (band[:, :half] == pictures.TEXT).all(-1).any()
    )  # some pixel has the full colour of the text
    assert (band[:, half:] == pictures.BAND).all()
    assert len(np.unique(side_by_side(wide, wide, titles=("a", "b"))[: len(band)])) > 1


def test_a_legend_shows_every_colour_once_and_fits_its_width():
    names = [f"class number {i}" for i in range(7)]
    palette = np.random.default_rng(2).integers(0, 256, (7, 3)).astype(np.uint8)
    for width in (150, 400, 960):
        picture = legend(names, palette, width)
        assert picture.shape[1] == width and picture.dtype == np.uint8
        for colour in palette:
            ys, xs = np.nonzero((picture == colour).all(-1))
            assert len(ys) >= 18 * 18 and np.ptp(ys) < 20 and np.ptp(xs) < 20
    assert legend(names, palette, 150).shape[0] > legend(names, palette, 960).shape[0]


def test_picture_files_read_back_and_appear_whole(tmp_path, frame):
    save_png(tmp_path / "a.png", frame)
    save_png(tmp_path / "grey.png", frame[..., 0])
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), frame)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "grey.png")), frame[..., 0])

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))  # as on a full disk
    try:
        for name in ("a.png", "new.png"):
            with pytest.raises(OSError):
                save_png(tmp_path / name, frame[::-1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "grey.png"]
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), frame)


def test_a_frame_survives_the_way_to_a_tensor_and_back(frame):
    tensor = (
        torch.from_numpy(frame).permute(2, 0, 1).float().div(255)
    )  # as datasets/clip.py makes it
    np.testing.assert_array_equal(as_picture(tensor), frame)
    assert (
        as_picture(torch.full((3, 1, 1), 1.7)).item(0) == 255
        and as_picture(torch.full((3, 1, 1), -2.0)).item(0) == 0
    )


def test_what_does_not_fit_is_refused(frame, labels):
    wrong = [
        lambda: colourise(labels.astype(float), PALETTE),
        lambda: colourise(labels[None], PALETTE),
        lambda: colourise(labels, PALETTE[:, :2]),
        lambda: colourise(labels, np.zeros((257, 3))),
        lambda: overlay(frame, labels[1:], PALETTE),
        lambda: overlay(frame / 255, labels, PALETTE),
        lambda: overlay(frame, labels, PALETTE, 1.5),
        lambda: error_map(labels, labels[1:]),
        lambda: comparison(frame[1:], labels, labels, PALETTE),
        lambda: side_by_side(),
        lambda: side_by_side(frame, frame[1:]),
        lambda: side_by_side(frame, titles=("a", "b")),
        lambda: legend(["a"], PALETTE),
        lambda: legend([], PALETTE[:0]),
        lambda: as_picture(torch.zeros(1, 4, 4)),
        lambda: save_png("never.png", frame.astype(float)),
        lambda: save_png("never.png", frame[None]),
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 6), (7, 2)])
def test_colours_are_those_of_the_palette_whatever_the_size(size):
    palette = np.random.default_rng(0).integers(0, 256, (11, 3), np.uint8)
    labels = np.random.default_rng(1).choice([*range(11), 60, 255], size).astype(np.uint8)
    known = np.where((labels < 11)[..., None], palette[np.minimum(labels, 10)], 0)
    assert np.array_equal(colourise(labels, palette), known)
    assert np.array_equal(colourise(labels.T, palette), known.transpose(1, 0, 2))
