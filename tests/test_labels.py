"""Label sets: names, colours, id tables, and class weights by name or from the labels."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets import camvid, cityscapes
from datasets.cityscapes import CITYSCAPES_IDS
from datasets.class_weights import CLASS_WEIGHTS, balanced, class_weights
from datasets.label_statistics import count_labels, label_problems, spread
from datasets.labels import default_palette, other_classes


@pytest.mark.parametrize(
    "labels, count", [(camvid.LABELS, 11), (camvid.CAMVID12, 12), (cityscapes.LABELS, 19)]
)
def test_label_sets_have_a_name_and_a_colour_for_each_class(labels, count):
    assert len(labels.names) == len(set(labels.names)) == count
    assert len(labels.palette) == len(set(labels.palette)) == count
    for colour in labels.palette:
        assert len(colour) == 3 and all(0 <= c <= 255 for c in colour)


def test_default_colours_are_distinct_and_do_not_depend_on_the_number_of_classes():
    palette = default_palette(255)
    assert len(set(palette)) == 255 and (0, 0, 0) not in palette
    assert default_palette(7) == palette[:7]
    for number in (0, 256):
        with pytest.raises(ValueError, match="1 to 255"):
            default_palette(number)


def test_cityscapes_ids_go_there_and_back():
    there = cityscapes.TRAIN_IDS
    back = cityscapes.LABELS.ids
    names = cityscapes.LABELS.names
    assert np.array_equal(there[back[:19]], np.arange(19))
    assert set(np.nonzero(there != 255)[0]) == set(CITYSCAPES_IDS) and back[255] == 0
    assert there[7] == names.index("road") and there[26] == names.index("car")
    assert there[33] == names.index("bicycle")
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for label in official:
        if 0 <= label.id:
            assert there[label.id] == label.trainId
        if 0 <= label.trainId < 19:
            assert names[label.trainId] == label.name
            assert cityscapes.LABELS.palette[label.trainId] == label.color


@pytest.mark.parametrize(
    "kind, num_classes", [(kind, k) for kind, lists in CLASS_WEIGHTS.items() for k in lists]
)
def test_published_weights_have_one_per_class(kind, num_classes):
    weights = class_weights(kind, num_classes)
    assert weights.shape == (num_classes,) and weights.dtype == torch.float32
    # etc has one value twice
    assert len(set(weights.tolist())) >= num_classes - 1 and (weights > 0).all()


def test_published_weights_are_large_for_rare_classes():
    rare = cityscapes.LABELS.names.index("motorcycle")
    common = cityscapes.LABELS.names.index("road")
    assert all(weights[19][rare] > weights[19][common] for weights in CLASS_WEIGHTS.values())


def test_weights_that_do_not_fit_say_what_fits():
    assert class_weights("none", 5) is None
    with pytest.raises(
        ValueError, match="'lma' are for 19 classes, not 11: choose none, balanced, swnet$"
    ):
        class_weights("lma", 11)
    with pytest.raises(ValueError, match="'mine' are unknown: choose none, balanced, lma,"):
        class_weights("mine", 19)


def test_balanced_weights_follow_the_labels():
    label = np.array([[0, 0, 0, 1], [0, 0, 0, 255]], np.uint8)
    expected = 1 / np.log(1.10 + np.array([6 / 7, 1 / 7, 0]))
    video = SimpleNamespace(labelled=(4, 9), label={4: label, 9: label}.__getitem__)
    torch.testing.assert_close(balanced([video, video], 3), torch.tensor(expected).float())
    with pytest.raises(ValueError, match="no pixel"):
        balanced([SimpleNamespace(labelled=())], 3)


def labelled(ids: list[int]):
    """A video of labels of one pixel each."""
    maps = [np.full((1, 1), i, np.uint8) for i in ids]
    return SimpleNamespace(labelled=range(len(ids)), label=maps.__getitem__)


def test_labels_are_counted_all_or_some_spread_over_the_data_or_a_share_of_them():
    videos = [labelled([0] * 50), labelled([1] * 50)]
    shown = []

    def progress(items, total):
        shown.append(total)
        return items

    counts = count_labels(videos, progress=progress)
    assert (counts.labels, counts.existing, shown) == (100, 100, [100])
    assert tuple(counts.pixels[:2]) == (50, 50)
    some = count_labels(videos, 10)
    assert (some.labels, some.existing, tuple(some.pixels[:2])) == (10, 100, (5, 5))
    shares = [count_labels(videos, part=(rank, 3), workers=2).pixels for rank in range(3)]
    assert np.array_equal(sum(shares), counts.pixels)
    assert spread(range(100), 3) == [0, 49, 99] and spread(range(2), 3) == [0, 1]
    weights = class_weights("balanced", 2, pixels=counts.pixels)
    torch.testing.assert_close(weights, balanced(videos, 2))


@pytest.mark.parametrize(
    "pixels, told",
    [
        ({0: 5, 1: 5}, []),
        ({0: 5, 1: 4, 255: 1}, []),
        ({0: 5, 255: 3}, ["class road never occurs in 8 of 9 labels .*255 .ignored. fills 38 %"]),
        ({0: 3, 1: 3, 255: 20}, ["255 .ignored. fills 77 % of 8 of 9 labels"]),
        ({255: 3}, ["all pixels of 8 of 9 labels .*nothing can be learnt"]),
        ({1: 3}, ["class ground never occurs"]),
    ],
)
def test_counts_that_teach_nothing_are_told(pixels, told):
    counts = np.zeros(256, np.int64)
    counts[list(pixels)] = list(pixels.values())
    found = label_problems(counts, ("ground", "road"), 8, 9)
    assert len(found) == len(told)
    for sentence, pattern in zip(found, told, strict=True):
        assert re.match(pattern, sentence)


def test_weights_of_other_classes_are_told_but_not_another_spelling():
    ours = ("traffic light", "Road")
    assert not other_classes((), ours) and not other_classes(("traffic_light", "road"), ours)
    told = "the weights were trained for road, traffic light, not for traffic light, Road"
    assert other_classes(("road", "traffic light"), ours) == told
