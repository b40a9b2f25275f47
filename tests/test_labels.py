"""Label sets: names, colours, id tables, and class weights by name or from the labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets import camvid, cityscapes
from datasets.cityscapes import CITYSCAPES_IDS
from datasets.class_weights import CLASS_WEIGHTS, balanced, class_weights
from datasets.labels import default_palette


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
