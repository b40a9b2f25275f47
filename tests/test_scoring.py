"""What an evaluation scores apart: degraded frames, and predictions enlarged to the labels' own
size."""

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets import build_dataset
from evaluations import evaluated
from jobs.scoring import degraded_of
from models.single import SingleFrame
from toys import ToyBackbone
from utils.metrics import ConfusionMatrix
from utils.views import resize_labels

SMALL = (
    "--eval-mode --method single --dataset synthetic --savedir unused --synthetic-size 32 64 "
    "--synthetic-length 12 --synthetic-videos 1 3 1"
).split()


@pytest.fixture
def model():
    torch.manual_seed(1)
    return SingleFrame(ToyBackbone(11)).eval()


def data_of(*words):
    args = main.parse_args([*SMALL, *words])
    return build_dataset(args, "val"), args


def test_degraded_frames_are_scored_apart(model):
    data, _ = data_of()
    degraded = degraded_of(data)
    expected, seen = {True: ConfusionMatrix(11), False: ConfusionMatrix(11)}, {True: 0, False: 0}
    for i in range(len(data)):
        clip = data[i]
        hit = data.videos[clip.video].degraded(clip.index)
        with torch.no_grad():
            logits = model.upsample(model(clip.frames[None]), (32, 64))
        expected[hit].update(clip.labels[-1][None], logits.argmax(1))
        seen[hit] += 1
    assert seen[True] > 0 and seen[False] > 0, "the case has both"
    found = evaluated(model, data.stepping(), degraded=degraded)
    assert found["clean"] == expected[False].compute()["mIoU"]
    assert found["degraded"] == expected[True].compute()["mIoU"] != found["clean"]
    assert "clean" not in evaluated(model, data)


def test_a_data_set_that_does_not_know_its_degraded_frames_has_no_such_scores():
    assert degraded_of(data_of("--no-synthetic-degrade")[0]) is None
    assert degraded_of(data_of()[0]) is not None


def test_use_orig_res_scores_at_working_size_and_enlarged(model):
    data, args = data_of("--work-size", "24", "40", "--use-orig-res")
    small, large = ConfusionMatrix(11), ConfusionMatrix(11)
    for i in range(len(data)):
        clip = data[i]
        assert clip.frames.shape[-2:] == (24, 40) and clip.labels.shape[-2:] == (32, 64)
        with torch.no_grad():
            prediction = (
                model.upsample(model(clip.frames[None]), (24, 40))
                .argmax(1)[0]
                .numpy()
                .astype(np.uint8)
            )
        label = clip.labels[-1].numpy().astype(np.uint8)
        small.update(
            np.asarray(Image.fromarray(label).resize((40, 24), Image.Resampling.NEAREST)),
            prediction,
        )
        large.update(
            label,
            np.asarray(Image.fromarray(prediction).resize((64, 32), Image.Resampling.NEAREST)),
        )
    found = evaluated(model, data, original_size=args.use_orig_res)
    assert found["mIoU"] == small.compute()["mIoU"]
    assert found["original_size"]["mIoU"] == large.compute()["mIoU"] != found["mIoU"]
    assert len(found["original_size"]["IoU"]) == 11


@pytest.mark.parametrize(
    "source, target",
    [
        ((1024, 2048), (512, 1024)),
        ((1024, 2048), (1025, 2049)),
        ((512, 1024), (64, 128)),
        ((37, 53), (20, 91)),
    ],
)
def test_labels_are_resized_to_the_pixels_that_pillow_takes(source, target):
    labels = np.random.default_rng(0).integers(0, 256, source, np.uint8)
    expected = Image.fromarray(labels).resize(target[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(
        resize_labels(torch.from_numpy(labels)[None], target)[0].numpy(), np.asarray(expected)
    )
